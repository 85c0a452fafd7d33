"""What kept jobs cost: time to start, memory, and `status` beside a pman that keeps few.

    python benchmarks/bench_kept.py [--jobs 100000] [--few 100] [--rounds 7] [--seconds 1]

Both job DBs are made in one go by `_fill.py`; then one pman is started on each. The memory of a
kept job is the difference of their resident memory; `status` is asked of both in turns, on one
connection, each round for another job.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _daemon import Daemon, daemon
from _fill import fill

HERE = Path(__file__).parent


def latency_ms(pman: Daemon, jid: str, seconds: float) -> tuple[float, float]:
    """Return p50 and p99 of `status`."""
    meta = {"key": "jid", "value": jid}
    body = json.dumps({"payload": {"action": "status", "meta": meta}})
    command = [sys.executable, str(HERE / "_load.py"), "--port", str(pman.port), "--body", body]
    command += ["--connections", "1", "--seconds", str(seconds)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(result.stdout)
    return 1000 / figures["requests_per_s"], figures["p99_ms"]


def compare(many: Daemon, few: Daemon, args: argparse.Namespace) -> None:
    """Print the latencies and their ratio."""
    rounds = [
        (
            *latency_ms(few, f"kept-{n * args.few // args.rounds}", args.seconds),
            *latency_ms(many, f"kept-{n * args.jobs // args.rounds}", args.seconds),
        )
        for n in range(args.rounds)
    ]
    few_mean, few_p99, many_mean, many_p99 = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    print(
        f"status  {args.few} kept: mean {few_mean:.3f} ms, p99 {few_p99:.2f} ms"
        f"   {args.jobs} kept: mean {many_mean:.3f} ms, p99 {many_p99:.2f} ms"
        f"   ratio {many_mean / few_mean:.2f}"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pman-bench-") as temporary:
        folders = {count: Path(temporary, str(count)) for count in (args.few, args.jobs)}
        for count, folder in folders.items():
            fill(folder / "db", count)
        keep = ("--keepJobs", str(args.jobs))
        with (
            daemon(*keep, folder=folders[args.few]) as few,
            daemon(*keep, folder=folders[args.jobs]) as many,
        ):
            print(f"start   first answer with {args.jobs} kept jobs after {many.start_s:.2f} s")
            compare(many, few, args)
            # After the load, which has touched what there is to touch.
            per_job = (many.memory_mib() - few.memory_mib()) * 1024 / (args.jobs - args.few)
            print(
                f"memory  {few.memory_mib():.0f} MiB with {args.few} kept,"
                f" {many.memory_mib():.0f} MiB with {args.jobs}: {per_job:.2f} KiB a job"
            )


if __name__ == "__main__":
    main()
