"""`Keeper`: what goes, from where, and what happens when something cannot go."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobdb_builders import DEADLINE_S, THEN, finished_job, make_job, no_output, running_writer, stop

from pman.backends.base import BackendContext
from pman.backends.stub import StubBackend
from pman.config import Settings
from pman.errors import BackendUnavailable, SnapshotError
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb import orphans
from pman.jobdb.database import Database
from pman.jobdb.snapshot import SnapshotFolder
from pman.jobdb.store import JobStore
from pman.jobdb.view import job_tree
from pman.output import OutputFiles
from pman.services import keeper as keeper_module
from pman.services.keeper import Keeper
from pman.services.writer import Writer


class Refusing(StubBackend):
    """A backend that cannot remove some jobs now."""

    refused: set[str]

    def remove(self, job: Job) -> None:
        if job.jid in self.refused:
            raise BackendUnavailable("the engine is away")
        super().remove(job)


def ended_job(jid: str, ended_at: float = THEN) -> Job:
    """Return a finished job of the stub that ended at some moment, UTC epoch seconds."""
    return msgspec.structs.replace(finished_job(jid, backend="stub"), ended_at=ended_at)


class Bench:
    """A job DB on disk with a keeper that is not started."""

    def __init__(self, path: Path, writer: Writer, **limits: Any) -> None:
        none = {"keep_jobs": 0, "keep_days": 0.0, "keep_bytes": 0}
        self.settings = Settings(db_path=path, **(none | limits))
        self.output = OutputFiles(path / "output", 1024)
        self.snapshot = SnapshotFolder(path / "jobs")
        self.backend = Refusing(
            BackendContext(
                settings=self.settings, instance="test", state_path=path, output=self.output
            )
        )
        self.backend.refused = set()
        self.store = JobStore(writer)
        self.gone: queue.Queue[str] = queue.Queue()
        self.keeper = Keeper(
            self.settings,
            self.store,
            {"stub": self.backend},
            self.output,
            now=lambda: THEN + 100.0,
        )
        self.store.on_exchanged(self._note)

    def _note(self, gone: Sequence[Job], _placed: Sequence[Job]) -> None:
        for job in gone:
            self.gone.put(job.jid)

    def add(self, jid: str, printed: bytes = b"", ended_at: float = THEN) -> Job:
        """Have a finished job in the DB, with its files."""
        job = self.files_of(ended_job(jid, ended_at), printed)
        self.store.replace_finished([*self.store.jobs(), job])
        return job

    def files_of(self, job: Job, printed: bytes) -> Job:
        self.output.folder(job.name).mkdir(parents=True)
        self.output.path(job.name, 0, "stdout").write_bytes(printed)
        self.snapshot.write(job, job_tree(job, no_output))
        return job

    def start(self) -> None:
        self.keeper.start()
        self.keeper.wait_ready()

    def next_gone(self, count: int) -> list[str]:
        return [self.gone.get(timeout=DEADLINE_S) for _ in range(count)]

    def left(self) -> list[str]:
        return [job.jid for job in self.store.jobs()]

    def left_on_disk(self) -> tuple[list[str], list[str], list[str]]:
        """Return names in DB, snapshot and output."""
        database = Database.open(self.settings.db_path / "pman.db")
        try:
            records = [job.name for job in database.read_all()]
        finally:
            database.close()
        output = [path.name for path in self.output.root.glob("*/*")]
        return sorted(records), sorted(self.snapshot.revisions()), sorted(output)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with running_writer(tmp_path) as running:
        yield running


def test_a_job_that_is_too_many_leaves_every_place(tmp_path: Path, writer: Writer) -> None:
    bench = Bench(tmp_path, writer, keep_jobs=2)
    jobs = [bench.add(str(n), b"text", ended_at=THEN + n) for n in range(5)]
    bench.start()
    assert bench.next_gone(3) == ["0", "1", "2"]
    stop(bench.keeper)
    left = sorted(job.name for job in jobs[3:])
    assert bench.left_on_disk() == (left, left, left)
    assert bench.left() == ["3", "4"]


def test_jobs_go_in_the_order_of_their_end(tmp_path: Path, writer: Writer) -> None:
    bench = Bench(tmp_path, writer, keep_jobs=1)
    for jid, after_s in (("late", 9.0), ("first", 1.0), ("second", 2.0)):
        bench.add(jid, ended_at=THEN + after_s)
    bench.start()
    assert bench.next_gone(2) == ["first", "second"]
    stop(bench.keeper)


def test_a_job_that_is_too_old_goes(tmp_path: Path, writer: Writer) -> None:
    day_s = 24 * 3600
    bench = Bench(tmp_path, writer, keep_days=2.0)
    bench.add("old", ended_at=THEN + 99 - 2 * day_s)
    bench.add("young", ended_at=THEN + 101 - 2 * day_s)
    bench.start()
    assert bench.next_gone(1) == ["old"]
    stop(bench.keeper)
    assert bench.left() == ["young"]


def test_age_of_an_imported_job_counts_from_its_import(tmp_path: Path, writer: Writer) -> None:
    day_s = 24 * 3600
    bench = Bench(tmp_path, writer, keep_days=2.0)
    archived = [ended_job(str(n), THEN - 3000 * day_s + n) for n in range(3)]
    dates = (THEN + 99, THEN + 101 - 2 * day_s, THEN + 99 - 2 * day_s)
    bench.store.load(
        msgspec.structs.replace(job, imported_at=date)
        for job, date in zip(archived, dates, strict=True)
    )
    bench.start()
    assert bench.next_gone(1) == ["2"]
    # They come behind what has ended here, however long ago they ended elsewhere.
    bench.store.replace_finished(
        [
            msgspec.structs.replace(archived[0], imported_at=THEN + 99),
            ended_job("old", THEN + 99 - 2 * day_s),
        ]
    )
    assert sorted(bench.next_gone(2)) == ["1", "old"]
    stop(bench.keeper)
    assert bench.left() == ["0"]


def test_output_without_a_record_goes(tmp_path: Path, writer: Writer) -> None:
    bench = Bench(tmp_path, writer)
    kept = bench.add("kept", b"text")
    for _ in range(3):
        bench.files_of(finished_job("orphan"), b"text")
    assert orphans.set_aside(bench.output.root, {kept.name}) == 3
    bench.start()
    aside = bench.output.root / orphans.ASIDE_NAME
    wait_until(lambda: not aside.exists())
    stop(bench.keeper)
    assert bench.output.read_text(kept.name, 0, "stdout") == "text"


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_output_beyond_the_limit_goes_with_its_jobs(tmp_path: Path, writer: Writer) -> None:
    bench = Bench(tmp_path, writer, keep_bytes=100)
    for n in range(5):
        bench.add(str(n), b"x" * 40, ended_at=THEN + n)
    bench.start()
    assert bench.next_gone(3) == ["0", "1", "2"]
    stop(bench.keeper)
    assert bench.left() == ["3", "4"]


def test_many_jobs_go_in_small_steps(
    tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "STEP_JOBS", 3)
    bench = Bench(tmp_path, writer, keep_jobs=1)
    steps: list[int] = []
    jobs = [ended_job(str(n), THEN + n) for n in range(9)]
    bench.store.replace_finished(jobs)
    bench.store.on_exchanged(lambda gone, _: steps.append(len(gone)))
    bench.start()
    bench.next_gone(8)
    stop(bench.keeper)
    assert [size for size in steps if size] == [3, 3, 2]


def test_unfinished_jobs_neither_count_nor_go(tmp_path: Path, writer: Writer) -> None:
    bench = Bench(tmp_path, writer, keep_jobs=1)
    bench.store.load([make_job("runs", backend="stub", state=JobState.RUNNING)])
    bench.add("first", ended_at=THEN + 1)
    bench.add("second", ended_at=THEN + 2)
    bench.start()
    assert bench.next_gone(1) == ["first"]
    stop(bench.keeper)
    assert bench.left() == ["runs", "second"]


def test_a_job_that_ends_pushes_the_oldest_out(tmp_path: Path, writer: Writer) -> None:
    bench = Bench(tmp_path, writer, keep_jobs=1, keep_bytes=10)
    bench.add("old", b"x", ended_at=THEN)
    bench.start()
    job, _ = bench.store.submit(make_job("new", backend="stub"), timeout_s=DEADLINE_S)
    bench.store.observe(Observation(name=job.name, state=JobState.COMPLETED))
    assert bench.next_gone(1) == ["old"]
    stop(bench.keeper)
    assert bench.left() == ["new"]


def test_a_job_that_others_delete_counts_no_more(tmp_path: Path, writer: Writer) -> None:
    bench = Bench(tmp_path, writer, keep_bytes=100)
    jobs = [bench.add(str(n), b"x" * 40, ended_at=THEN + n) for n in range(4)]
    bench.start()
    assert bench.next_gone(2) == ["0", "1"]
    bench.store.remove([jobs[3].name])
    assert bench.next_gone(1) == ["3"]
    fresh = ended_job("4", THEN + 9)
    bench.store.replace_finished([jobs[2], bench.files_of(fresh, b"x" * 61)])
    assert bench.next_gone(1) == ["2"]
    stop(bench.keeper)
    assert bench.left() == ["4"]


def test_what_a_load_brings_is_measured(tmp_path: Path, writer: Writer) -> None:
    bench = Bench(tmp_path, writer, keep_bytes=100)
    bench.start()
    jobs = [ended_job(str(n), THEN + n) for n in range(3)]
    bench.store.replace_finished([bench.files_of(job, b"x" * 40) for job in jobs])
    assert bench.next_gone(1) == ["0"]
    stop(bench.keeper)
    assert bench.left() == ["1", "2"]


def test_a_job_that_cannot_go_waits_and_costs_no_other(
    tmp_path: Path,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(keeper_module, "PERIOD_S", 0.05)
    bench = Bench(tmp_path, writer, keep_jobs=2)
    for n in range(4):
        bench.add(str(n), ended_at=THEN + n)
    bench.backend.refused.add("0")
    bench.start()
    assert bench.next_gone(1) == ["1"]
    bench.backend.refused.clear()
    assert bench.next_gone(1) == ["0"]
    stop(bench.keeper)
    assert bench.left() == ["2", "3"]
    assert "the engine is away" in caplog.text


def test_a_disk_that_takes_nothing_ends_no_keeper(
    tmp_path: Path,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(tmp_path, writer, keep_jobs=1)
    for n in range(3):
        bench.add(str(n), ended_at=THEN + n)

    def clear(jobs: list[Job]) -> list[Job]:
        JobStore.clear(bench.store, jobs)
        raise SnapshotError("no space left")

    monkeypatch.setattr(bench.store, "clear", clear)
    bench.start()
    assert bench.next_gone(2) == ["0", "1"]
    stop(bench.keeper)
    assert "no space left" in caplog.text


@pytest.mark.parametrize("jobs", [0, 3])
def test_it_stops_at_once(tmp_path: Path, writer: Writer, jobs: int) -> None:
    bench = Bench(tmp_path, writer, keep_jobs=1_000)
    for n in range(jobs):
        bench.add(str(n))
    bench.start()
    stop(bench.keeper)
    assert len(bench.left()) == jobs
