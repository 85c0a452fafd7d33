"""Start: what is there is found, what is damaged is rebuilt, nothing is started empty over."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import golden_replay as golden
import pytest
from jobdb_builders import THEN, finished_job, make_job, no_output, plant

from pman.config import Settings
from pman.errors import StartError
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb.opening import open_job_db
from pman.jobdb.orphans import ASIDE_NAME
from pman.jobdb.record_json import encode_record
from pman.jobdb.snapshot import SnapshotFolder
from pman.jobdb.view import job_tree
from pman.output import OutputFiles


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(db_path=tmp_path / "a" / "db")


def fill(settings: Settings, *jobs: Job) -> str:
    """Put jobs into DB and snapshot; return the instance."""
    job_db = open_job_db(settings)
    job_db.database.apply([(job.name, encode_record(job)) for job in jobs], [])
    job_db.close()
    for job in jobs:
        SnapshotFolder(settings.db_path / "jobs").write(job, job_tree(job, no_output))
    return job_db.instance


def opened(settings: Settings) -> tuple[list[Job], str]:
    job_db = open_job_db(settings)
    job_db.close()
    job_db.close()
    return job_db.jobs, job_db.instance


def test_new_folder_is_private_and_empty(settings: Settings) -> None:
    jobs, instance = opened(settings)
    assert jobs == []
    assert settings.db_path.stat().st_mode & 0o777 == 0o700
    assert opened(settings) == ([], instance)


def test_all_of_it_is_private(settings: Settings) -> None:
    settings.db_path.mkdir(parents=True)
    (settings.db_path / "jobs").mkdir(mode=0o755)
    former = os.umask(0o022)
    try:
        fill(settings, finished_job())
    finally:
        os.umask(former)
    modes = {
        str(path.relative_to(settings.db_path)): path.stat().st_mode & 0o777
        for path in settings.db_path.rglob("*")
    }
    assert {"backends", "output", "jobs", "instance", "pman.db", "pman.lock"} <= set(modes)
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777, 0o720])
@pytest.mark.parametrize("inner", ["", "backends", "output", "jobs"])
def test_folder_that_others_may_write_to_is_refused(
    settings: Settings, mode: int, inner: str
) -> None:
    folder = settings.db_path / inner
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(StartError, match=rf"{folder}'.* has mode {mode:04o}.*chmod go-w"):
        open_job_db(settings)
    folder.chmod(0o755)
    opened(settings)


def test_folder_of_somebody_else_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.db_path.mkdir(parents=True)
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    with pytest.raises(StartError, match=f"belongs to user {us}, expected {us + 1}: chown"):
        open_job_db(settings)


def test_jobs_at_impossible_moments_are_left_out(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    good = finished_job("good")
    bad = finished_job("bad", accepted_at=THEN)
    bad.ended_at = 1e300
    fill(settings, bad, good)
    assert opened(settings)[0] == [good]
    (settings.db_path / "pman.db").unlink()
    assert opened(settings)[0] == [good]
    assert caplog.text.count(f"{bad.name}") >= 2


# --- output that no record belongs to ---------------------------------------------------------


def print_something(settings: Settings, *jobs: Job) -> OutputFiles:
    output = OutputFiles(settings.db_path / "output", 1024)
    for job in jobs:
        output.folder(job.name).mkdir(parents=True)
        output.path(job.name, 0, "stdout").write_text(job.jid)
    return output


def test_output_without_a_record_is_set_aside(settings: Settings) -> None:
    kept, gone, unreadable = finished_job("kept"), finished_job("gone"), finished_job("unreadable")
    unreadable.ended_at = 1e300
    fill(settings, kept, unreadable)
    output = print_something(settings, kept, gone, unreadable)
    notes = output.root / "notes" / gone.name
    notes.mkdir(parents=True)
    (output.root / "20200101").mkdir()
    opened(settings)
    assert [output.read_text(job.name, 0, "stdout") for job in (kept, gone, unreadable)] == [
        "kept",
        "",
        "unreadable",
    ]
    assert os.listdir(output.root / ASIDE_NAME) == [gone.name]
    assert notes.exists()
    assert not (output.root / "20200101").exists()


def test_output_stays_while_a_damaged_db_may_hold_its_record(settings: Settings) -> None:
    job = finished_job("newest")
    fill(settings, finished_job("saved"))
    output = print_something(settings, job)
    (settings.db_path / "pman.db").write_bytes(b"noise" * 9999)
    for _ in range(2):
        opened(settings)
        assert output.read_text(job.name, 0, "stdout") == "newest"
    for path in settings.db_path.glob("pman.db.damaged-*"):
        path.unlink()
    opened(settings)
    assert output.read_text(job.name, 0, "stdout") == ""


def test_jobs_are_there_again(settings: Settings) -> None:
    jobs = [finished_job("b"), make_job("a", state=JobState.RUNNING)]
    instance = fill(settings, *jobs)
    assert opened(settings) == (jobs, instance)


@pytest.mark.parametrize("damage", ["gone", "empty", "noise", "truncated"])
def test_damaged_db_is_rebuilt_from_the_snapshot(
    settings: Settings, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    jobs = [finished_job(f"j{n}") for n in range(100)]
    instance = fill(settings, *jobs)
    path = settings.db_path / "pman.db"
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        left = {"empty": b"", "noise": b"noise" * 9999, "truncated": raw[: len(raw) // 2]}
        path.write_bytes(left[damage])
    (settings.db_path / "pman.db-wal").write_bytes(b"left over")
    with caplog.at_level(logging.WARNING):
        assert opened(settings) == (jobs, instance)
    assert "snapshot" in caplog.text
    aside = {p.name.rpartition("-")[2] for p in settings.db_path.glob("pman.db.damaged-*")}
    assert str(os.getpid()) in aside or damage == "gone"
    assert opened(settings) == (jobs, instance)


def test_a_job_that_the_snapshot_calls_new_is_not_started_again(settings: Settings) -> None:
    jobs = [make_job("new"), make_job("runs", state=JobState.RUNNING), finished_job("done")]
    fill(settings, *jobs)
    assert [job.state for job in opened(settings)[0]] == [job.state for job in jobs]
    (settings.db_path / "pman.db").write_bytes(b"noise" * 1000)
    states = [JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED]
    assert {job.jid: job.state for job in opened(settings)[0]} == dict(
        zip(("new", "runs", "done"), states, strict=True)
    )


def test_tree_of_2_2_in_the_folder_is_taken_over(settings: Settings) -> None:
    settings.db_path.mkdir(parents=True)
    for name in ("db-001-layout-finished", "db-002-layout-running"):
        plant(golden.load(name)["tree"], settings.db_path)
    jobs, instance = opened(settings)
    assert [job.jid for job in jobs] == ["db-1", "db-2", "db-3"]
    assert [job.state.value for job in jobs] == ["COMPLETED", "FAILED", "LOST"]
    output = OutputFiles(settings.db_path / "output", 1024)
    assert output.read_text(jobs[0].name, 0, "stdout") == "hello\n"
    assert opened(settings) == (jobs, instance)


def test_second_daemon_is_told_who_has_it(settings: Settings) -> None:
    job_db = open_job_db(settings)
    code = (
        "import sys; from pathlib import Path\n"
        "from pman.config import Settings; from pman.errors import StartError\n"
        "from pman.jobdb.opening import open_job_db\n"
        "try: open_job_db(Settings(db_path=Path(sys.argv[1])))\n"
        "except StartError as exc: print(exc)"
    )
    second = [sys.executable, "-c", code, str(settings.db_path)]
    told = subprocess.run(second, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"in use by pman with pid {os.getpid()}" in told
    assert str(settings.db_path) in told
    job_db.close()
    told = subprocess.run(second, capture_output=True, text=True, timeout=60, check=True).stdout
    assert told == ""


def test_lock_is_free_after_a_failed_start(settings: Settings) -> None:
    settings.db_path.mkdir(parents=True)
    path = settings.db_path / "pman.db"
    path.mkdir()
    with pytest.raises(StartError):
        open_job_db(settings)
    path.rmdir()
    assert opened(settings)[0] == []


@pytest.mark.parametrize("path", ["/proc/x", "/dev/null", "/dev/null/x"])
def test_unusable_folder_is_refused(path: str) -> None:
    with pytest.raises(StartError, match=path):
        open_job_db(Settings(db_path=Path(path)))


@pytest.mark.slow
def test_a_hundred_thousand_jobs_load(settings: Settings) -> None:
    model = finished_job("a")
    record = encode_record(model)
    names = [f"{model.name[:-12]}{n:012x}" for n in range(100_000)]
    job_db = open_job_db(settings)
    job_db.database.apply(
        [(name, record.replace(model.name.encode(), name.encode())) for name in names], []
    )
    job_db.close()
    jobs, _ = opened(settings)
    assert [job.name for job in jobs] == names
