"""A job DB with many finished jobs in it, made in one go.

    python benchmarks/_fill.py FOLDER --jobs 100000

Each job is a host job as the daemon leaves it: record, file in the readable snapshot, one output
file. Job ids are `kept-0`, `kept-1`, …
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pman.backends.host import host_facts
from pman.job.record import Job, Part, local_stamp
from pman.job.state import JobState
from pman.jobdb.database import Database
from pman.jobdb.opening import DATABASE_NAME, OUTPUT_NAME
from pman.jobdb.snapshot import SNAPSHOT_NAME, SnapshotFolder
from pman.jobdb.view import job_tree
from pman.output import OutputFiles

#: The jobs ended in the hours before now, this far apart, seconds.
STEP_S = 0.1

COMMAND = "python3 fs-analyze.py --input /share/incoming --output /share/outgoing --level 7"
PRINTED = b"scanned 1284 files in 3.2 s, 17 of them are new\n"


def kept_job(n: int, at: float) -> Job:
    """Return the n-th job, which ended at `at`, UTC epoch seconds."""
    jid = f"kept-{n}"
    meta = {"cmd": f"{COMMAND} --run {n}", "auid": "bench", "jid": jid, "threaded": True}
    return Job(
        name=f"{local_stamp(at - 4)}_{uuid.uuid4()}",
        jid=jid,
        auid="bench",
        cmd=f"{COMMAND} --run {n}",
        meta=json.dumps(meta),
        backend="host",
        state=JobState.COMPLETED,
        reason="ok",
        exit_code=0,
        accepted_at=at - 4,
        started_at=at - 3.9,
        ended_at=at,
        parts=[Part(f"{COMMAND} --run {n}", 1000 + n, at - 3.9, at, 0)],
        handle={"shepherd": 900, "boot": str(uuid.UUID(int=1)), "pid": 1000 + n, "start_ticks": n},
        facts=host_facts(),
        revision=4,
    )


def fill(db_path: Path, count: int, *, with_files: bool = True) -> None:
    """Make a job DB.

    Args:
        db_path: Folder; must not hold a job DB yet.
        count: Jobs.
        with_files: Write the readable snapshot and the output, too.
    """
    db_path.mkdir(mode=0o700, parents=True)
    output = OutputFiles(db_path / OUTPUT_NAME, 1 << 20)
    snapshot = SnapshotFolder(db_path / SNAPSHOT_NAME)
    begin = time.time() - count * STEP_S

    def jobs() -> Iterator[Job]:
        for n in range(count):
            job = kept_job(n, begin + n * STEP_S)
            if with_files:
                output.folder(job.name).mkdir(parents=True)
                output.path(job.name, 0, "stdout").write_bytes(PRINTED)
                snapshot.write(job, job_tree(job, output.read_text, is_cumulative=False))
            yield job

    Database.create(db_path / DATABASE_NAME, jobs(), str(uuid.uuid4())).close()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=100_000)
    args = parser.parse_args()
    begin = time.perf_counter()
    fill(args.folder, args.jobs)
    print(f"{args.jobs} jobs in {time.perf_counter() - begin:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
