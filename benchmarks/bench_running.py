"""Many jobs at once: the memory of daemon and shepherd for each job that runs.

    python benchmarks/bench_running.py [--jobs 1000]

The jobs sleep. Their own processes, a shell and `sleep`, are not counted; the growth of daemon and
shepherd is, and what both need without any job is printed beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _daemon import Daemon, daemon
from bench_jobs import submit

#: How long the jobs may take to start or to end, seconds.
TIMEOUT_S = 120.0

#: Longer than the benchmark takes.
COMMAND = "sleep 600"

CLIENTS = 16


def running(pman: Daemon) -> int:
    """Return how many processes the shepherd has started."""
    shepherds = pman.shepherds()
    children = [Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in shepherds]
    return sum(int(child) not in shepherds for words in children for child in words)


def wait_for(pman: Daemon, jobs: int) -> None:
    """Wait until that many jobs run."""
    deadline = time.monotonic() + TIMEOUT_S
    while running(pman) != jobs:
        if time.monotonic() > deadline:
            raise SystemExit(f"{running(pman)} jobs run, expected {jobs}")
        time.sleep(0.05)


@contextmanager
def sleepers(pman: Daemon, jobs: int) -> Iterator[None]:
    """Have jobs run until the block ends."""
    try:
        submit(pman, "running", jobs, CLIENTS, "--cmd", COMMAND)
        wait_for(pman, jobs)
        yield
    finally:
        pman.post("delete", key="auid", value="bench")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    args = parser.parse_args()
    with daemon() as pman:
        pman.post("run", cmd="true", auid="warm", jid="warm")
        before = pman.memory_mib(), pman.shepherd_mib()
        with sleepers(pman, args.jobs):
            after = pman.memory_mib(), pman.shepherd_mib()
        kib = (sum(after) - sum(before)) * 1024 / args.jobs
        print(
            f"{args.jobs} jobs running   daemon {before[0]:.1f} -> {after[0]:.1f} MiB"
            f"   shepherd {before[1]:.1f} -> {after[1]:.1f} MiB   {kib:.1f} KiB a job"
        )


if __name__ == "__main__":
    main()
