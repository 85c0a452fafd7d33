"""What a page of `list` costs with many kept jobs, and how soon `wait` tells of an end.

    python benchmarks/bench_list.py [--jobs 100000] [--few 1000] [--rounds 7] [--ends 50]

A page of 100 out of many and one out of few are asked for in turns, on one connection each. How
soon `wait` wakes is the time from the moment of the end, as the shepherd has recorded it, until the
client has the answer; both by the clock of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from _daemon import Daemon, daemon
from _fill import fill

HERE = Path(__file__).parent

#: Pages that are compared: what is asked for beside the limit.
PAGES = {"any": {}, "one auid": {"auid": "bench"}, "one state": {"state": "COMPLETED"}}


def pages_per_s(pman: Daemon, wanted: dict[str, str], seconds: float) -> float:
    """Return how many pages a client gets."""
    body = json.dumps({"payload": {"action": "list", "meta": {"limit": 100, **wanted}}})
    command = [sys.executable, str(HERE / "_load.py"), "--port", str(pman.port), "--body", body]
    command += ["--connections", "1", "--seconds", str(seconds)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(result.stdout)["requests_per_s"])


def compare_pages(many: Daemon, few: Daemon, args: argparse.Namespace) -> None:
    """Print how long a page takes, and the ratio."""
    for name, wanted in PAGES.items():
        rounds = [
            (pages_per_s(few, wanted, args.seconds), pages_per_s(many, wanted, args.seconds))
            for _ in range(args.rounds)
        ]
        of_few, of_many = (1000 / statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"list    100 jobs ({name}) of {args.few}: {of_few:.2f} ms,"
            f" of {args.jobs}: {of_many:.2f} ms, ratio {of_many / of_few:.2f}"
        )


def wake_ms(pman: Daemon, fifo: Path, jid: str) -> float:
    """Return how long after the end of a job the client that waits for it is told."""
    pman.post("run", cmd=f"read _ < {fifo}", auid="bench", jid=jid, threaded=True)
    told: list[tuple[float, float]] = []

    def wait() -> None:
        # A connection of its own: the other one is for what goes on meanwhile.
        client = Daemon(pman.process, pman.port, pman.db_path)
        reply = client.post("wait", jid=jid, timeout=60)
        told.append((time.time(), reply["d_ret"]["jobs"][0]["endedAt"]))

    thread = threading.Thread(target=wait)
    thread.start()
    with fifo.open("w") as gate:  # returns when the job reads
        gate.write("\n")
    thread.join()
    ((at, ended_at),) = told
    return (at - ended_at) * 1000


def time_wakes(pman: Daemon, folder: Path, count: int) -> None:
    """Print how soon `wait` wakes."""
    fifo = folder / "gate"
    os.mkfifo(fifo)
    times = sorted(wake_ms(pman, fifo, f"wake-{n}") for n in range(count))
    print(
        f"wait    wakes {statistics.median(times):.2f} ms after the end of a host job (median of"
        f" {count}), {times[-1]:.2f} ms at most"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--ends", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pman-bench-") as temporary:
        folders = {count: Path(temporary, str(count)) for count in (args.few, args.jobs)}
        for count, folder in folders.items():
            fill(folder / "db", count, with_files=False)
        keep = ("--keepJobs", str(args.jobs))
        with (
            daemon(*keep, folder=folders[args.few]) as few,
            daemon(*keep, folder=folders[args.jobs]) as many,
        ):
            compare_pages(many, few, args)
            time_wakes(few, Path(temporary), args.ends)


if __name__ == "__main__":
    main()
