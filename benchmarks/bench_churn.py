"""The memory of daemon and shepherd while jobs come and go.

    python benchmarks/bench_churn.py [--full] [--keep 1000]

20,000 jobs of `true`, or 200,000 with `--full` (some minutes) or PMAN_BENCH_FULL=1; all but the
newest 1,000 are dropped. The growth that is printed is that between the second tenth and the last.
"""

from __future__ import annotations

import argparse
import os

from _daemon import Daemon, daemon
from bench_jobs import last_end, submit

SHORT, FULL = 20_000, 200_000

#: Rounds; after each of them the memory is looked at.
ROUNDS = 10

CLIENTS = 16


def churn(pman: Daemon, number: int, jobs: int, keep: int) -> tuple[float, float]:
    """Have jobs come, and all but `keep` of them go; return the memory of both, MiB."""
    prefix = f"churn{number}"
    submit(pman, prefix, jobs, CLIENTS)
    last_end(pman, prefix, min(jobs, keep))
    return pman.memory_mib(), pman.shepherd_mib()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", default=bool(os.getenv("PMAN_BENCH_FULL")))
    parser.add_argument("--keep", type=int, default=1000)
    args = parser.parse_args()
    jobs = (FULL if args.full else SHORT) // ROUNDS
    with daemon("--keepJobs", str(args.keep), "--DBsavePeriod", "5") as pman:
        seen = []
        for number in range(ROUNDS):
            seen.append(churn(pman, number, jobs, args.keep))
            print(
                f"{(number + 1) * jobs:7d} jobs   daemon {seen[-1][0]:.1f} MiB"
                f"   shepherd {seen[-1][1]:.1f} MiB",
                flush=True,
            )
    growth = (seen[-1][0] - seen[1][0]) * 1024 * 1024 / (jobs * (ROUNDS - 2))
    print(f"growth {growth:.0f} bytes a job that has gone, {args.keep} kept")


if __name__ == "__main__":
    main()
