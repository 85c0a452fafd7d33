"""`hello` and `status` of a whole pman against a bare ASGI function on uvicorn.

    python benchmarks/bench_http.py [--seconds 3] [--connections 32] [--rounds 5]

The function reads the body and answers a constant as long as the reply of pman, and nothing else;
it runs on uvicorn with uvloop and httptools, without access log. Both get the same requests from
the same
load generator, in turns; the ratio of the medians is printed, and what an idle pman costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _daemon import Daemon, daemon

HERE = Path(__file__).parent

JOB_ID = "a-job-id-2"

BODIES = {
    "hello": '{"payload": {"action": "hello", "meta": {"askAbout": "timestamp"}}}',
    "status": '{"payload": {"action": "status", "meta": {"key": "jid", "value": "a-job-id-2"}}}',
}

#: Time over which an idle daemon is watched, seconds.
IDLE_S = 5.0


@contextmanager
def bare_function(size: int) -> Iterator[int]:
    """Run the ASGI function, which answers `size` bytes; give its port."""
    command = [sys.executable, str(HERE / "bench_front.py"), "--serve", "asgi", "--work", "none"]
    command += ["--size", str(size)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        time.sleep(0.5)  # it prints the port before it listens
        yield port
        server.communicate("")


def load(port: int, body: str, args: argparse.Namespace) -> dict[str, float]:
    """Return requests/s, p50 and p99 (ms) of one round."""
    command = [sys.executable, str(HERE / "_load.py"), "--port", str(port), "--body", body]
    command += ["--connections", str(args.connections), "--seconds", str(args.seconds)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def compare(action: str, pman: Daemon, asgi_port: int, args: argparse.Namespace) -> None:
    """Print one line: pman, the function, and the ratio."""
    rounds = [
        (load(pman.port, BODIES[action], args), load(asgi_port, BODIES[action], args))
        for _ in range(args.rounds)
    ]
    ours, theirs = (
        {key: statistics.median(side[key] for side in sides) for key in sides[0]}
        for sides in zip(*rounds, strict=True)
    )
    print(
        f"{action:7s} pman {ours['requests_per_s']:7.0f}/s p99 {ours['p99_ms']:5.2f} ms"
        f"   bare ASGI {theirs['requests_per_s']:7.0f}/s p99 {theirs['p99_ms']:5.2f} ms"
        f"   ratio {ours['requests_per_s'] / theirs['requests_per_s']:.2f}",
        flush=True,
    )


def idle(pman: Daemon) -> None:
    """Print what a daemon costs that nobody asks anything."""
    before = pman.cpu_s()
    time.sleep(IDLE_S)
    print(
        f"idle    first answer after {pman.start_s:.2f} s, {pman.memory_mib():.0f} MiB resident,"
        f" {(pman.cpu_s() - before) / IDLE_S * 100:.2f} % of a core",
        flush=True,
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with daemon() as pman:
        idle(pman)
        pman.post("run", cmd="true", auid="bench", jid=JOB_ID)
        for action, body in BODIES.items():
            with bare_function(len(pman.raw_reply(body))) as asgi_port:
                compare(action, pman, asgi_port, args)


if __name__ == "__main__":
    main()
