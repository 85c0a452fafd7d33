"""`Saver`: only what changed, on demand and at the end, whatever fails."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobdb_builders import DEADLINE_S, MemoryJournal, finished_job, make_job, running_writer, stop

from pman.config import Settings
from pman.errors import SnapshotError
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb.snapshot import SnapshotFolder
from pman.jobdb.store import JobStore
from pman.output import OutputFiles
from pman.services.saver import Saver


class Watched(SnapshotFolder):
    """A real folder that counts, and that fails on demand."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.written: list[str] = []
        self.failing: set[str] = set()
        self.wrote = threading.Event()

    def write(self, job: Job, tree: dict[str, Any]) -> None:
        if job.jid in self.failing:
            raise SnapshotError("no space left")
        super().write(job, tree)
        self.written.append(job.jid)
        self.wrote.set()


class Rig:
    """A store, a saver on it, and the folder it writes."""

    def __init__(self, path: Path, period_s: float = 0.0) -> None:
        self.settings = Settings(db_path=path, db_save_period_s=period_s)
        self.output = OutputFiles(path / "output", 1024)
        self.store = JobStore(MemoryJournal())
        self.saver = Saver(self.settings, self.store, self.output)
        self.folder = Watched(path / "jobs")
        self.saver._folder = self.folder

    def start(self) -> None:
        self.saver.start()
        self.saver.wait_ready()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    if not made.saver.join(0):
        stop(made.saver)


def test_only_what_changed_is_written(rig: Rig) -> None:
    one, two = make_job("1"), finished_job("2")
    rig.store.load([one, two])
    rig.start()
    rig.saver.save_now(DEADLINE_S)
    rig.saver.save_now(DEADLINE_S)
    assert rig.folder.written == ["1", "2"]
    rig.store.observe(Observation(name=one.name, state=JobState.RUNNING))
    rig.saver.save_now(DEADLINE_S)
    assert rig.folder.written == ["1", "2", "1"]
    assert rig.folder.read_all() == rig.store.jobs()


def test_next_daemon_writes_nothing_again(rig: Rig, tmp_path: Path) -> None:
    rig.store.load([finished_job("1", revision=4)])
    rig.start()
    stop(rig.saver)
    again = Rig(tmp_path)
    again.store.load(rig.store.jobs())
    again.start()
    again.saver.save_now(DEADLINE_S)
    stop(again.saver)
    assert again.folder.written == []


def test_removed_job_goes_and_unknown_files_stay(rig: Rig) -> None:
    jobs = [finished_job("1"), finished_job("2")]
    stranger = finished_job("stranger")
    rig.folder.write(stranger, {})
    rig.store.load(jobs)
    rig.start()
    rig.saver.save_now(DEADLINE_S)
    rig.store.remove([jobs[0].name])
    rig.saver.save_now(DEADLINE_S)
    assert {job.jid for job in rig.folder.read_all()} == {"2", "stranger"}


@pytest.mark.parametrize(
    "fields", [{"started_at": 1e300}, {"started_at": 1e17}, {"container": {"x": object()}}], ids=str
)
def test_a_job_that_cannot_be_spelled_costs_no_other(
    rig: Rig, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    bad = make_job("bad", backend="swarm", **{"started_at": 1.0, **fields})
    rig.store.load([bad, finished_job("good")])
    rig.start()
    for _ in range(2):
        with pytest.raises(SnapshotError, match=bad.name):
            rig.saver.save_now(DEADLINE_S)
    assert rig.folder.written == ["good"]
    assert caplog.text.count(bad.name) == 1
    stop(rig.saver)


def test_stop_saves(rig: Rig) -> None:
    rig.store.load([finished_job("1")])
    rig.start()
    stop(rig.saver)
    assert rig.folder.written == ["1"]
    with pytest.raises(SnapshotError, match="stopping"):
        rig.saver.save_now(DEADLINE_S)


def test_period(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 0.01)
    job = make_job("1")
    rig.store.load([job])
    rig.start()
    assert rig.folder.wrote.wait(DEADLINE_S)
    rig.folder.wrote.clear()
    rig.store.observe(Observation(name=job.name, state=JobState.RUNNING))
    assert rig.folder.wrote.wait(DEADLINE_S)
    stop(rig.saver)


def test_one_job_that_fails_stops_nobody(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.store.load([finished_job(f"{n}") for n in range(5)])
    rig.folder.failing = {"1", "2"}
    rig.start()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            with pytest.raises(SnapshotError, match="2 jobs are not in the snapshot: no space"):
                rig.saver.save_now(DEADLINE_S)
    assert len(caplog.records) == 1
    assert rig.folder.written == ["0", "3", "4"]
    rig.folder.failing = set()
    rig.saver.save_now(DEADLINE_S)
    assert rig.folder.written[3:] == ["1", "2"]


def test_output_is_in_the_file_once_per_part(rig: Rig) -> None:
    """DEFECTS 66: no number of copies that grows with the square of the parts."""
    job = finished_job("1", [0] * 40)
    rig.output.folder(job.name).mkdir(parents=True)
    rig.output.path(job.name, 3, "stdout").write_text("needle")
    rig.store.load([job])
    rig.start()
    rig.saver.save_now(DEADLINE_S)
    raw = rig.folder.path(job.name).read_text()
    assert raw.count("needle") == 2  # in `start` and in `end`
    assert json.loads(raw)["tree"]["end"]["3"]["endInfo"]["3"]["stdout"] == "needle"


def test_saves_while_jobs_come_and_go(tmp_path: Path) -> None:
    """DEFECTS 18 and 65."""
    with running_writer(tmp_path) as writer:
        rig = Rig(tmp_path, 0.001)
        rig.store = JobStore(writer)
        rig.saver._store = rig.store
        rig.start()

        def work(seed: int) -> None:
            for n in range(25):
                job, _ = rig.store.submit(make_job(f"{seed}-{n}"), timeout_s=DEADLINE_S)
                rig.store.observe(Observation(name=job.name, state=JobState.COMPLETED))
                if n % 5 == 0:
                    rig.store.remove([job.name])
                    rig.saver.save_now(DEADLINE_S)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        rig.saver.save_now(DEADLINE_S)
        stop(rig.saver)
    assert {job.name: job for job in rig.folder.read_all()} == {
        job.name: job for job in rig.store.jobs()
    }
    assert rig.store.count == 80


def test_stop_does_not_wait_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pman.services.saver.LAST_SAVE_S", -1.0)
    rig.store.load([finished_job("1")])
    rig.start()
    rig.saver.request_stop()
    assert rig.saver.join(time.monotonic() + DEADLINE_S)
    assert rig.folder.written == []
