"""From `run` to finished: how long a job that does nothing takes.

    python benchmarks/bench_latency.py [--jobs 300]

Beside it, in turns, what it takes to start and await `/bin/sh -c true` from Python: the part of the
time that no job runner can save.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable

from _daemon import Daemon, daemon


def run_and_wait(pman: Daemon, n: int) -> None:
    """Run a job with a reply when it has ended."""
    reply = pman.post("run", cmd="true", auid="bench", jid=f"sync-{n}")
    assert reply["d_ret"]["l_status"] == ["finishedSuccessfully"], reply


def run_and_poll(pman: Daemon, n: int) -> None:
    """Run a job as pfcon does, and ask for its status until it has ended."""
    pman.post("run", cmd="true", auid="bench", jid=f"poll-{n}", threaded=True)
    while (
        "finished" not in pman.post("status", key="jid", value=f"poll-{n}")["d_ret"]["l_status"][0]
    ):
        time.sleep(0.001)


def bare_shell(_: Daemon, __: int) -> None:
    """Start a shell and wait for it."""
    subprocess.run(["/bin/sh", "-c", "true"], check=True, start_new_session=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=300)
    args = parser.parse_args()
    ways: dict[str, Callable[[Daemon, int], None]] = {
        "run, answered at the end": run_and_wait,
        "run, then status every ms": run_and_poll,
        "sh -c true, no pman": bare_shell,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with daemon() as pman:
        run_and_wait(pman, -1)
        for n in range(args.jobs):
            for name, way in ways.items():
                begin = time.perf_counter()
                way(pman, n)
                times[name].append((time.perf_counter() - begin) * 1000)
    for name, values in times.items():
        values.sort()
        print(
            f"{name:26s} p50 {statistics.median(values):6.2f} ms"
            f"   p99 {values[len(values) * 99 // 100]:6.2f} ms"
        )


if __name__ == "__main__":
    main()
