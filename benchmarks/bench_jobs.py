"""Jobs of `true`: durable submits a second, and jobs completed a second beside `xargs`.

    python benchmarks/bench_jobs.py [--jobs 3000] [--clients 16] [--rounds 3]

A submit counts when its answer has come, so when it would survive `kill -9`; the jobs start
meanwhile. Completed jobs are counted from the first request to the end of the last job, as its
record in `pman.db` has it. `xargs -P 2 -n 1 true` starts as many processes with nothing around
them: no shell, no record, no request.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _daemon import Daemon, daemon

SUBMIT = Path(__file__).with_name("_submit.py")

#: How long the jobs of one round may take, seconds.
TIMEOUT_S = 300.0

_LAST_END = """
    SELECT count(*), max(json_extract(record, '$.ended_at')) FROM jobs
    WHERE json_extract(record, '$.state') = 'COMPLETED'
    AND json_extract(record, '$.jid') GLOB ? || '-*'
"""


def submit(pman: Daemon, prefix: str, jobs: int, clients: int, *flags: str) -> dict[str, float]:
    """Submit jobs from a process of its own; return requests/s, p50 and p99 (ms)."""
    command = [sys.executable, str(SUBMIT), "--port", str(pman.port), "--prefix", prefix]
    command += ["--jobs", str(jobs), "--connections", str(clients), *flags]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def last_end(pman: Daemon, prefix: str, jobs: int) -> float:
    """Wait until all jobs are COMPLETED; return when the last ended, UTC epoch seconds."""
    deadline = time.monotonic() + TIMEOUT_S
    connection = sqlite3.connect(f"file:{pman.db_path / 'pman.db'}?mode=ro", uri=True)
    while time.monotonic() < deadline:
        count, ended_at = connection.execute(_LAST_END, (prefix,)).fetchone()
        if count == jobs:
            connection.close()
            return float(ended_at)
        time.sleep(0.1)
    raise SystemExit(f"{count} of {jobs} jobs have ended")


def completed_per_s(pman: Daemon, prefix: str, args: argparse.Namespace) -> tuple[float, ...]:
    """Return submits/s, p99 of a submit (ms) and completed jobs/s of one round."""
    begin = time.time()
    figures = submit(pman, prefix, args.jobs, args.clients)
    rate = args.jobs / (last_end(pman, prefix, args.jobs) - begin)
    return figures["requests_per_s"], figures["p99_ms"], rate


def xargs_per_s(jobs: int) -> float:
    """Return processes/s of `xargs -P 2 -n 1 true`."""
    begin = time.perf_counter()
    numbers = "\n".join(map(str, range(jobs)))
    subprocess.run(["xargs", "-P", "2", "-n", "1", "true"], input=numbers, text=True, check=True)
    return jobs / (time.perf_counter() - begin)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with daemon() as pman:
        submit(pman, "warm", 100, args.clients)
        rounds = [
            (*completed_per_s(pman, f"round{n}", args), xargs_per_s(args.jobs))
            for n in range(args.rounds)
        ]
    submits, p99, completed, xargs = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    print(f"durable submits, {args.clients} clients  {submits:6.0f}/s   p99 {p99:.1f} ms")
    print(f"jobs of true completed       {completed:6.0f}/s   xargs -P 2: {xargs:.0f}/s")


if __name__ == "__main__":
    main()
