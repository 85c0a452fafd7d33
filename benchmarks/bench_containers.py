"""Container jobs beside the engines' own command lines.

    python benchmarks/bench_containers.py [--engine swarm|openshift] [--jobs 10] [--many 100]
        [--full]

Three figures for each engine that DOCKER_HOST and KUBECONFIG lead to. How long a container of
`true` takes from `run` to finished, with its log kept, beside what the command line of the engine
takes to make it and see it end, in turns. How long many submitted at once take, and that they all
end right. How many `status` requests a second the daemon answers for a container job, beside those
for a host job, and what its memory grows by.

`docker service create --detach=false` never returns for a replicated service whose containers end
at once: it waits for them to stay up. So it is given `--mode replicated-job`, all else alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence

from _daemon import Daemon, daemon
from _load import load, request

IMAGE = "local/busybox:1"
UID = "1000"

#: How long anything may take, seconds.
TIMEOUT_S = 600.0

#: Jobs that come and go with `--full`, and how many of them at a time.
FULL_JOBS, BATCH_JOBS = 500, 25


def quietly(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Swarm:
    """Docker Swarm."""

    name = "swarm"
    flags: tuple[str, ...] = ()
    rival = "docker service create --detach=false"

    def create_and_wait(self, name: str) -> None:
        """Have the command line make a service of `true` and see it end."""
        mode = ("--mode", "replicated-job", "--restart-condition", "none")
        create = ("docker", "service", "create", "--detach=false", *mode)
        quietly(*create, "--name", name, "--entrypoint", "true", IMAGE)

    def remove(self, name: str) -> None:
        """Remove what `create_and_wait` has made."""
        quietly("docker", "service", "rm", name)

    def problem(self) -> str:
        """Return why there is none to measure, or ""."""
        return answer_of("docker", "info", "--format", "{{.Swarm.ControlAvailable}}", want="true")


class OpenShift:
    """OpenShift or Kubernetes."""

    name = "openshift"
    flags = ("--jobUID", UID, "--project", "myproject")
    rival = "kubectl create job, kubectl wait"

    def create_and_wait(self, name: str) -> None:
        """Have the command line make a Job of `true` and see it end."""
        quietly("kubectl", "-n", "myproject", "create", "job", name, "--image", IMAGE, "--", "true")
        wait = ("wait", "--for=condition=complete", f"job/{name}", f"--timeout={TIMEOUT_S:.0f}s")
        quietly("kubectl", "-n", "myproject", *wait)

    def remove(self, name: str) -> None:
        """Remove what `create_and_wait` has made."""
        quietly("kubectl", "-n", "myproject", "delete", "job", name, "--wait=false")

    def problem(self) -> str:
        """Return why there is none to measure, or ""."""
        if "KUBECONFIG" not in os.environ:
            return "KUBECONFIG is not set"
        return answer_of("kubectl", "get", "--raw", "/healthz", want="ok")


def answer_of(*words: str, want: str) -> str:
    """Run a command; return "" if it prints what is wanted, else what it says."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    return "" if done.stdout.strip() == want else (done.stderr or done.stdout).strip() or "?"


def meta_of(jid: str, cmd: str) -> dict[str, object]:
    """Return the `meta` of a container job; its share of the CPU is small, so that many fit."""
    return {
        "cmd": cmd,
        "auid": "bench",
        "jid": jid,
        "cpu_limit": "100m",
        "memory_limit": "64Mi",
        "container": {"target": {"image": IMAGE}},
    }


def one_by_one(engine: Swarm | OpenShift, pman: Daemon, jobs: int) -> None:
    """Compare the time from the request to the end of a job, in turns."""

    def by_pman(name: str) -> None:
        reply = pman.post("run", **meta_of(name, "true"))
        if reply["d_ret"]["l_status"] != ["finishedSuccessfully"]:
            raise SystemExit(f"it did not end well: {json.dumps(reply)[-2000:]}")

    ways: dict[str, Callable[[str], None]] = {
        "pman": by_pman,
        engine.rival: engine.create_and_wait,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for n in range(-1, jobs):  # the first of each warms up
        for way, do in ways.items():
            name = f"bench-{uuid.uuid4().hex[:12]}"
            begin = time.perf_counter()
            do(name)
            if n >= 0:
                times[way].append(time.perf_counter() - begin)
            if way != "pman":
                engine.remove(name)
    ours, theirs = (statistics.median(values) for values in times.values())
    print(f"  true, run to finished with log: pman {ours * 1000:.0f} ms, {engine.rival}", end=" ")
    print(f"{theirs * 1000:.0f} ms, ratio {ours / theirs:.2f}", flush=True)


def all_at_once(pman: Daemon, jobs: int) -> None:
    """Submit many jobs, wait for all, and look at each one's end and log."""
    names = [f"many-{uuid.uuid4().hex[:12]}" for _ in range(jobs)]
    begin = time.perf_counter()
    for n, name in enumerate(names):
        reply = pman.post("run", **meta_of(name, f"echo {n}"), threaded=True)
        if not reply["status"]:
            raise SystemExit(f"refused: {json.dumps(reply)[-2000:]}")
    submitted_s = time.perf_counter() - begin
    for n, name in enumerate(names):
        ended = wait_for_end(pman, name)
        if ended["l_status"] != ["finishedSuccessfully"] or f"{n}\n" not in ended["l_logs"][0]:
            raise SystemExit(f"job {n} did not end well: {json.dumps(ended)[-2000:]}")
    took_s = time.perf_counter() - begin
    print(f"  {jobs} at once: submitted in {submitted_s:.1f} s, all ended right in {took_s:.1f} s")


def wait_for_end(pman: Daemon, jid: str) -> dict[str, list[str]]:
    """Ask for the status of a job until it has ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        d_ret: dict[str, list[str]] = pman.post("status", key="jid", value=jid)["d_ret"]
        if "finished" in d_ret["l_status"][0]:
            return d_ret
        time.sleep(0.05)
    raise SystemExit(f"job {jid} did not end")


def status_rates(pman: Daemon, seconds: float) -> None:
    """Compare how fast `status` is answered for a host job and for a container job, in turns."""
    pman.post("run", cmd="true", auid="bench", jid="on-the-host")
    pman.post("run", **meta_of("in-a-container", "true"))
    rates: dict[str, list[float]] = {"on-the-host": [], "in-a-container": []}
    for _ in range(3):
        for jid, values in rates.items():
            body = {"payload": {"action": "status", "meta": {"key": "jid", "value": jid}}}
            raw = request("/api/v1/cmd", json.dumps(body).encode())
            values.append(load(pman.port, raw, 16, seconds)["requests_per_s"])
    host, container = (statistics.median(values) for values in rates.values())
    print(f"  status: container job {container:.0f}/s, host job {host:.0f}/s,", end=" ")
    print(f"ratio {container / host:.2f}", flush=True)


def memory_over(pman: Daemon, jobs: int) -> None:
    """Print the memory of the daemon after each fifth of many jobs."""
    print(f"  memory: {pman.memory_mib():.1f}", end="", flush=True)
    for _ in range(5):
        for _ in range(0, jobs // 5, BATCH_JOBS):
            names = [f"level-{uuid.uuid4().hex[:12]}" for _ in range(BATCH_JOBS)]
            for name in names:
                pman.post("run", **meta_of(name, "echo hello"), threaded=True)
            for name in names:
                wait_for_end(pman, name)
        print(f", {pman.memory_mib():.1f}", end="", flush=True)
    print(f" MiB after each fifth of {jobs} jobs")


def measure(engine: Swarm | OpenShift, args: argparse.Namespace) -> None:
    """Print the figures of one engine."""
    print(f"{engine.name}:", flush=True)
    with daemon("--container-env", engine.name, *engine.flags) as pman:
        one_by_one(engine, pman, args.jobs)
        before = pman.memory_mib()
        all_at_once(pman, args.many)
        status_rates(pman, args.seconds)
        after = pman.memory_mib()
        print(f"  memory: {before:.1f} MiB before the many, {after:.1f} MiB after")
        if args.full:
            memory_over(pman, FULL_JOBS)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=["swarm", "openshift"])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--many", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0)
    is_full = bool(os.environ.get("PMAN_BENCH_FULL"))
    parser.add_argument("--full", action="store_true", default=is_full)
    args = parser.parse_args(argv)
    for engine in (Swarm(), OpenShift()):
        if args.engine not in (None, engine.name):
            continue
        problem = engine.problem()
        if problem:
            print(f"{engine.name}: not measured: {problem}")
        else:
            measure(engine, args)


if __name__ == "__main__":
    main()
