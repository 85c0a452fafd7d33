"""`compact`: the same job, with less of it in memory."""

from __future__ import annotations

import msgspec
from jobdb_builders import finished_job

from pman.job.record import Job
from pman.jobdb.footprint import compact
from pman.jobdb.record_json import decode_record, encode_record


def read_again(job: Job) -> Job:
    """Return the job as a start reads it, nothing shared."""
    return decode_record(encode_record(job))


def test_a_job_stays_what_it_is() -> None:
    job = msgspec.structs.replace(finished_job(codes=(0, 3)), handle={"boot": "b-1", "pid": 7})
    made = read_again(job)
    compact(made)
    assert made == job


def test_jobs_share_what_they_have_in_common() -> None:
    job = msgspec.structs.replace(finished_job(), handle={"boot": "b-1", "pid": 7})
    one, other = read_again(job), read_again(job)
    for made in (one, other):
        compact(made)
    assert one.handle is not None
    assert other.handle is not None
    for field in ("auid", "backend", "reason", "message", "facts"):
        assert getattr(one, field) is getattr(other, field)
    assert one.handle["boot"] is other.handle["boot"]


def test_a_part_shares_with_its_job() -> None:
    made = read_again(finished_job())
    made.cmd = "true --all"
    made.parts[0] = msgspec.structs.replace(
        made.parts[0], cmd=" true --all"[1:], started_at=made.started_at, ended_at=1.5
    )
    compact(made)
    assert made.parts[0].cmd is made.cmd
    assert made.parts[0].started_at is made.started_at
    assert made.parts[0].ended_at == 1.5
