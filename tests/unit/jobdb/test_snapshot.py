"""The readable snapshot: whole files only, bad ones kept."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobdb_builders import finished_job, make_job, no_output

from pman.errors import SnapshotError
from pman.job.record import Job
from pman.jobdb.snapshot import SnapshotFolder
from pman.jobdb.view import job_tree


@pytest.fixture
def folder(tmp_path: Path) -> SnapshotFolder:
    return SnapshotFolder(tmp_path / "jobs")


def write(folder: SnapshotFolder, job: Job) -> None:
    folder.write(job, job_tree(job, no_output))


def test_file_holds_record_and_tree(folder: SnapshotFolder) -> None:
    job = finished_job("a", (0, 3))
    write(folder, job)
    path = folder.root / job.name[:8] / f"{job.name}.json"
    held = json.loads(path.read_text())
    assert (held["format"], held["revision"]) == (1, 0)
    assert msgspec.convert(held["record"], Job) == job
    assert held["tree"]["end"]["1"]["endInfo"]["1"]["returncode"] == 3
    assert path.read_text().count("\n") > 10
    assert path.stat().st_mode & 0o077 == 0


def test_jobs_come_back_in_order(folder: SnapshotFolder) -> None:
    jobs = [make_job("a"), finished_job("b"), make_job("c", revision=7)]
    for job in reversed(jobs):
        write(folder, job)
    assert folder.read_all() == jobs
    assert folder.revisions() == {jobs[0].name: 0, jobs[1].name: 0, jobs[2].name: 7}


def test_failed_write_leaves_the_former_file(
    folder: SnapshotFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished_job()
    write(folder, job)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fail)
        with pytest.raises(SnapshotError, match="No space left"):
            write(folder, msgspec.structs.replace(job, revision=1))
    assert folder.revisions() == {job.name: 0}
    assert [p.name for p in folder.path(job.name).parent.iterdir()] == [f"{job.name}.json"]


def test_what_a_crash_left_is_removed(folder: SnapshotFolder) -> None:
    job = finished_job()
    write(folder, job)
    left = folder.path(job.name).with_name(f".{job.name}.json.tmp")
    left.write_text("{")
    assert folder.read_all() == [job]
    assert folder.revisions() == {job.name: 0}
    assert not left.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 2, "record": {}}'])
def test_bad_file_is_logged_and_kept(
    folder: SnapshotFolder, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    good, bad = finished_job("good"), finished_job("bad")
    for job in (good, bad):
        write(folder, job)
    folder.path(bad.name).write_text(text)
    with caplog.at_level(logging.ERROR):
        assert folder.read_all() == [good]
    assert bad.name in caplog.text
    assert folder.path(bad.name).read_text() == text


def test_record_of_another_job_is_bad(folder: SnapshotFolder) -> None:
    one, two = finished_job(), finished_job()
    write(folder, one)
    folder.path(one.name).rename(folder.path(two.name))
    assert folder.read_all() == []


def test_removal(folder: SnapshotFolder) -> None:
    one, two = finished_job(), finished_job()
    for job in (one, two):
        write(folder, job)
    folder.remove(one.name)
    assert folder.read_all() == [two]
    folder.remove(two.name)
    folder.remove(two.name)
    assert list(folder.root.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../../../etc/passwd", "", "a/b"])
def test_name_never_leaves_the_folder(folder: SnapshotFolder, name: str) -> None:
    with pytest.raises(SnapshotError):
        write(folder, make_job(name=name))
    with pytest.raises(SnapshotError):
        folder.remove(name)


def test_no_folder_is_no_jobs(folder: SnapshotFolder) -> None:
    assert folder.read_all() == []
    assert folder.revisions() == {}
