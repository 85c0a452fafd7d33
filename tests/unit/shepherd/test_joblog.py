"""Logs of jobs, as a killed shepherd leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pman.shepherd.joblog import JobLogs
from pman.shepherd.protocol import JobRecord, PartRecord, Update


@pytest.fixture
def logs(tmp_path: Path) -> JobLogs:
    return JobLogs(tmp_path)


def record(name: str = "job") -> JobRecord:
    return JobRecord(
        name=name, folder="/output", boot="b", parts=[PartRecord("a"), PartRecord("b")]
    )


def written(logs: JobLogs) -> JobRecord:
    """Write the log of a job that was canceled in its second part; return the job."""
    job = record()
    assert logs.claim(job)
    for update in (
        Update(name="job", index=0, part=PartRecord("a", 7, 70, 1.0, 2.0, 3)),
        Update(name="job", index=1, part=PartRecord("b", 8, 80, 3.0)),
        Update(name="job", is_canceled=True),
    ):
        logs.append(update)
        job.apply(update)
    return job


def test_what_was_written_is_read(logs: JobLogs) -> None:
    job = written(logs)
    assert logs.load() == ([job], [])
    assert job.is_canceled
    assert not job.is_ended


def test_a_name_is_claimed_once(logs: JobLogs) -> None:
    assert logs.claim(record())
    assert not logs.claim(record())


def test_a_log_cut_anywhere_is_an_earlier_truth(logs: JobLogs, tmp_path: Path) -> None:
    written(logs)
    path = tmp_path / "job.jsonl"
    raw = path.read_bytes()
    first_line = raw.index(b"\n") + 1
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        records, broken = logs.load()
        assert len(records) + len(broken) == 1
        assert bool(broken) == (length < first_line - 1)
        assert all(job.name == "job" and not job.is_ended for job in records)


def test_a_claim_that_fails_leaves_nothing(tmp_path: Path, logs: JobLogs) -> None:
    with pytest.raises(OSError):
        logs.claim(record("no/folder"))
    assert list(tmp_path.iterdir()) == []


def test_removed_twice(logs: JobLogs) -> None:
    logs.claim(record())
    logs.remove("job")
    logs.remove("job")
    assert logs.load() == ([], [])


def test_other_files_are_left_alone(logs: JobLogs, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    assert logs.load() == ([], [])
