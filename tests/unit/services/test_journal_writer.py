"""`Writer`: group commit, order, disks that refuse, the end."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jobdb_builders import DEADLINE_S, finished_job, make_job, running_writer, stop

from pman.errors import SnapshotError
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb.database import Database
from pman.jobdb.record_json import encode_record
from pman.jobdb.store import JobStore
from pman.meters import CommitMeter
from pman.services import writer as writer_module
from pman.services.writer import Writer


class GatedDatabase(Database):
    """A real data base whose commits wait at a gate, and fail on demand."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.error: SnapshotError | None = None
        self.batches: list[tuple[list[str], list[str]]] = []

    def apply(
        self, upserts: Sequence[tuple[str, bytes]], deletes: Sequence[str], *more: Any
    ) -> None:
        self.entered.release()
        assert self.gate.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        super().apply(upserts, deletes, *more)
        self.batches.append(([name for name, _ in upserts], list(deletes)))


@pytest.fixture
def database(tmp_path: Path) -> GatedDatabase:
    Database.create(tmp_path / "pman.db", [], str(uuid.uuid4())).close()
    return GatedDatabase(tmp_path / "pman.db")


def started(database: Database) -> Writer:
    writer = Writer(database)
    writer.start()
    writer.wait_ready()
    return writer


def read(path: Path) -> list[Job]:
    database = Database.open(path)
    try:
        return database.read_all()
    finally:
        database.close()


def test_what_waits_shares_a_commit(database: GatedDatabase) -> None:
    writer = started(database)
    first = writer.write(make_job(), fresh=encode_record(make_job()))
    assert database.entered.acquire(timeout=DEADLINE_S)
    jobs = [make_job(f"j{n}") for n in range(10)]
    commits = [writer.write(job, fresh=encode_record(job)) for job in jobs]
    database.gate.set()
    for commit in [first, *commits]:
        commit.wait(DEADLINE_S)
    assert [len(names) for names, _ in database.batches] == [1, 10]
    stop(writer)
    assert read(database.path)[1:] == jobs


def test_states_of_one_job_are_written_once(database: GatedDatabase) -> None:
    writer = started(database)
    writer.write(make_job())
    assert database.entered.acquire(timeout=DEADLINE_S)
    name = make_job().name
    done: list[int] = []
    for n in range(5):
        writer.write(finished_job(f"{n}", name=name), on_done=lambda error, n=n: done.append(n))
    database.gate.set()
    stop(writer)
    assert database.batches[1] == ([name], [])
    assert done == [0, 1, 2, 3, 4]
    assert read(database.path)[1].jid == "4"


def test_write_after_delete_and_delete_after_write(database: GatedDatabase) -> None:
    database.gate.set()
    writer = started(database)
    one, two, three = make_job("1"), make_job("2"), make_job("3")
    for job in (one, two):
        writer.write(job)
    writer.replace([one.name], [three, one])
    writer.write(three)
    writer.delete([two.name])
    stop(writer)
    assert read(database.path) == [three, one]


def test_new_job_fails_at_once_and_known_state_is_kept(
    database: GatedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    database.gate.set()
    database.error = SnapshotError("no space left")
    writer = started(database)
    known, new = make_job("known"), make_job("new")
    settled = threading.Event()
    writer.write(known, on_done=lambda error: settled.set() if error is None else None)
    delete = writer.delete(["x"])
    commit = writer.write(new, fresh=encode_record(new))
    for refused in (commit, delete):
        with pytest.raises(SnapshotError, match="no space left"):
            refused.wait(DEADLINE_S)
    assert not settled.is_set()
    database.error = None
    assert settled.wait(DEADLINE_S)
    delete.wait(DEADLINE_S)
    stop(writer)
    assert read(database.path) == [known]


def test_changes_that_nobody_waits_for_do_not_hasten_the_next_try(
    database: GatedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 1000.0)
    database.gate.set()
    database.error = SnapshotError("no space left")
    meter = CommitMeter()
    writer = Writer(database, meter=meter)
    writer.start()
    jobs = [make_job(f"j{n}") for n in range(100)]
    with pytest.raises(SnapshotError, match="no space left"):
        writer.write(jobs[0]).wait(DEADLINE_S)
    for job in jobs[1:]:
        commit = writer.write(job)
    with pytest.raises(SnapshotError, match="longer than"):  # no try: else it had said why
        commit.wait(0.1)
    database.error = None
    stop(writer)
    assert (meter.failures, sum(meter.times.counts)) == (1, 2)
    assert read(database.path) == jobs


def test_who_waits_hears_soon_that_the_disk_takes_nothing(
    database: GatedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 1000.0)
    database.gate.set()
    database.error = SnapshotError("no space left")
    writer = started(database)
    known, new = make_job("known"), make_job("new")
    with pytest.raises(SnapshotError, match="no space left"):
        writer.write(known).wait(DEADLINE_S)
    # The next try on its own is 1000 s away by now.
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    for ask in (
        lambda: writer.write(new, fresh=encode_record(new)),
        lambda: writer.delete(["x"]),
        lambda: writer.replace(["x"], []),
        writer.barrier,
    ):
        with pytest.raises(SnapshotError, match="no space left"):
            ask().wait(DEADLINE_S)
    database.error = None
    writer.barrier().wait(DEADLINE_S)
    assert read(database.path) == [known]
    stop(writer)


def test_barrier_stands_for_all_before_it(
    database: GatedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    writer = started(database)
    store = JobStore(writer)
    store.load([job := make_job()])
    store.observe(Observation(name=job.name, state=JobState.RUNNING))
    assert database.entered.acquire(timeout=DEADLINE_S)
    store.observe(Observation(name=job.name, state=JobState.COMPLETED))
    with pytest.raises(SnapshotError, match="longer than"):
        store.barrier(0.01)
    database.error = SnapshotError("no space left")
    database.gate.set()
    with pytest.raises(SnapshotError, match="no space left"):
        store.barrier(DEADLINE_S)
    database.error = None
    store.barrier(DEADLINE_S)
    assert [job.state for job in read(database.path)] == [JobState.COMPLETED]
    stop(writer)
    with pytest.raises(SnapshotError, match="stopping"):
        store.barrier(DEADLINE_S)


def test_barrier_that_failed_is_not_kept(database: GatedDatabase) -> None:
    database.gate.set()
    database.error = SnapshotError("no space left")
    writer = started(database)
    with pytest.raises(SnapshotError, match="no space left"):
        writer.barrier().wait(DEADLINE_S)
    assert writer._kept == []
    stop(writer)


def test_commits_are_counted_and_those_that_failed(
    database: GatedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 1000.0)
    database.gate.set()
    meter = CommitMeter()
    writer = Writer(database, meter=meter)
    writer.start()
    for error in (None, SnapshotError("no space left")):
        database.error = error
        commit = writer.write(job := make_job(), fresh=encode_record(job))
        with contextlib.suppress(SnapshotError):
            commit.wait(DEADLINE_S)
    stop(writer)
    assert meter.failures == 1
    assert sum(meter.times.counts) == sum(meter.sizes.counts) == 2
    assert meter.sizes.total == 2
    assert meter.times.total > 0


def test_stop_writes_what_is_queued(database: GatedDatabase) -> None:
    writer = started(database)
    jobs = [make_job(f"j{n}") for n in range(3)]
    for job in jobs:
        writer.write(job)
    writer.request_stop()
    database.gate.set()
    assert writer.join(time.monotonic() + DEADLINE_S)
    assert read(database.path) == jobs
    with pytest.raises(SnapshotError, match="stopping"):
        writer.write(jobs[0], fresh=b"")
    with pytest.raises(SnapshotError, match="stopping"):
        writer.delete([]).wait(DEADLINE_S)


def test_stop_with_a_full_disk_ends(database: GatedDatabase) -> None:
    database.gate.set()
    database.error = SnapshotError("no space left")
    writer = started(database)
    told: list[SnapshotError | None] = []
    writer.write(make_job(), on_done=told.append)
    stop(writer)
    assert len(told) == 1
    assert told[0] is not None


def test_block_that_a_backend_nested_too_deeply_is_left_out(database: GatedDatabase) -> None:
    database.gate.set()
    writer = started(database)
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}
    job = make_job(extra=deep)
    writer.write(job).wait(DEADLINE_S)
    stop(writer)
    assert read(database.path)[0].extra is None


def test_many_threads_submit_and_observe(tmp_path: Path) -> None:
    with running_writer(tmp_path) as writer:
        store = JobStore(writer)
        settled: list[str] = []
        store.on_settled(lambda job: settled.append(job.name))

        def work(seed: int) -> None:
            for n in range(20):
                job, _ = store.submit(make_job(f"{seed}-{n}"), timeout_s=DEADLINE_S)
                for state in (JobState.RUNNING, JobState.COMPLETED):
                    store.observe(Observation(name=job.name, state=state))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert store.count == 160
    assert read(tmp_path / "pman.db") == store.jobs()
    assert sorted(settled) == sorted(store.names())


def test_a_job_that_cannot_be_written_costs_no_other(
    database: GatedDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database.gate.set()
    writer = started(database)
    bad = make_job("bad", container={"x": object()})
    vague = make_job("vague", handle={"x": object()})
    writer.replace([], [bad, vague, make_job("good")]).wait(DEADLINE_S)
    writer.write(bad).wait(DEADLINE_S)
    stop(writer)
    assert [job.jid for job in read(tmp_path / "pman.db")] == ["vague", "good"]
    assert bad.name in caplog.text
