"""The way of events and letters: from the store, through the writer, to who waits."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobdb_builders import DEADLINE_S, make_job, stop

from pman.errors import SnapshotError
from pman.job.event import Event
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb.database import Database
from pman.jobdb.outbox import Letter
from pman.jobdb.reader import Reader
from pman.jobdb.store import JobStore
from pman.services import writer as writer_module
from pman.services.writer import Writer


class Gated(Database):
    """A data base whose commits wait at a gate, and fail on demand."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.error: SnapshotError | None = None

    def apply(self, *args: Any) -> None:
        self.entered.release()
        assert self.gate.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        super().apply(*args)


class Stage:
    """A store on a writer, and all that was published."""

    def __init__(self, path: Path) -> None:
        Database.create(path, [], str(uuid.uuid4())).close()
        self.database = Gated(path)
        self.writer = Writer(self.database)
        self.published: list[Event] = []
        self.letters: list[Letter] = []
        self.writer.on_events(self.published.extend)
        self.writer.on_letters(self.letters.extend)
        self.store = JobStore(self.writer)
        self.writer.start()
        self.writer.wait_ready()

    def on_disk(self) -> list[Event]:
        reader = Reader(self.database.path)
        try:
            return reader.events(0, 2**62, 10**6)
        finally:
            reader.close()

    def submit(self, jid: str = "a", **fields: Any) -> Job:
        return self.store.submit(make_job(jid, **fields), timeout_s=DEADLINE_S)[0]

    def see(self, job: Job, *states: JobState) -> None:
        for state in states:
            self.store.observe(Observation(name=job.name, state=state))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    return Stage(tmp_path / "pman.db")


def words(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(event.jid, event.kind, event.state.value) for event in events]


ALL_OF_A = [
    ("a", "state", "NEW"),
    ("a", "state", "QUEUED"),
    ("a", "state", "RUNNING"),
    ("a", "state", "COMPLETED"),
]


def test_states_that_share_a_commit_are_all_there(stage: Stage) -> None:
    job = stage.submit()
    stage.database.gate.clear()
    stage.see(job, JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED)
    stage.database.gate.set()
    stage.store.remove([job.name])
    stop(stage.writer)
    assert words(stage.published) == [*ALL_OF_A, ("a", "deleted", "COMPLETED")]
    assert stage.on_disk() == stage.published
    seqs = [event.seq for event in stage.published]
    assert seqs == sorted(set(seqs))
    assert all(abs(event.seq - event.at * 1e6) < 60e6 for event in stage.published)


def test_event_is_published_before_who_waits_goes_on_and_after_the_job_is_there(
    stage: Stage,
) -> None:
    seen: list[bool] = []
    stage.writer.on_events(lambda events: seen.append(stage.store.get(events[0].job) is not None))
    stage.submit()
    assert words(stage.published) == ALL_OF_A[:1]
    assert seen == [True]
    stop(stage.writer)


def test_refused_job_has_no_event(stage: Stage) -> None:
    stage.database.error = SnapshotError("no space left")
    with pytest.raises(SnapshotError):
        stage.submit()
    stage.database.error = None
    stage.submit("b")
    stop(stage.writer)
    assert words(stage.published) == [("b", "state", "NEW")]
    assert stage.on_disk() == stage.published


def test_what_the_disk_refused_is_published_once_it_is_durable(stage: Stage) -> None:
    job = stage.submit()
    stage.database.error = SnapshotError("no space left")
    stage.see(job, JobState.QUEUED, JobState.RUNNING)
    for _ in range(4):  # the submit, and some tries
        assert stage.database.entered.acquire(timeout=DEADLINE_S)
    with pytest.raises(SnapshotError):
        stage.submit("refused")
    assert words(stage.published) == ALL_OF_A[:1]
    stage.database.error = None
    stage.see(job, JobState.COMPLETED)
    stop(stage.writer)
    assert words(stage.published) == ALL_OF_A
    assert stage.on_disk() == stage.published


def test_abandoned_submit_comes_and_goes(stage: Stage) -> None:
    stage.database.gate.clear()
    with pytest.raises(SnapshotError, match="longer than"):
        stage.store.submit(make_job(), timeout_s=0.01)
    stage.database.gate.set()
    stage.submit("b")
    stop(stage.writer)
    assert sorted(words(stage.published)) == [
        ("b", "state", "NEW"),
        ("job-1", "deleted", "NEW"),
        ("job-1", "state", "NEW"),
    ]
    assert stage.on_disk() == stage.published
    assert Database.open(stage.database.path).names() == [stage.store.names()[0]]


def test_state_that_cannot_be_written_has_no_event(stage: Stage) -> None:
    bad = make_job("bad", container={"x": object()})
    stage.store.replace_finished([msgspec.structs.replace(bad, state=JobState.LOST)])
    stage.submit("good")
    stop(stage.writer)
    assert words(stage.published) == [("good", "state", "NEW")]


def test_exchange_of_jobs(stage: Stage) -> None:
    jobs = [stage.submit(jid) for jid in ("gone", "same", "runs")]
    for job in jobs[:2]:
        stage.see(job, JobState.COMPLETED)
    same = msgspec.structs.replace(jobs[1], state=JobState.COMPLETED)
    new = make_job("new", state=JobState.LOST)
    del stage.published[:]
    stage.store.replace_finished([same, new])
    stop(stage.writer)
    assert words(stage.published)[-2:] == [
        ("gone", "deleted", "COMPLETED"),
        ("new", "state", "LOST"),
    ]


def test_progress(stage: Stage) -> None:
    job = stage.submit()
    for share in (0.1, 0.1, 0.2):
        stage.store.observe(Observation(name=job.name, progress=share))
    stop(stage.writer)
    assert [(e.kind, e.progress) for e in stage.published] == [
        ("state", None),
        ("progress", 0.1),
        ("progress", 0.2),
    ]


def test_end_of_a_job_with_a_callback_makes_a_letter(stage: Stage) -> None:
    job = stage.submit(callback="http://h/x", labels={"l": "1"})
    plain = stage.submit("b")
    assert not stage.letters
    stage.see(job, JobState.RUNNING, JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED)
    stage.see(plain, JobState.COMPLETED)
    stage.store.remove([job.name])
    stop(stage.writer)
    (letter,) = stage.letters
    end = next(e for e in stage.published if (e.jid, e.state) == ("a", JobState.COMPLETED))
    assert (letter.job, letter.url, letter.tries) == (job.name, "http://h/x", 0)
    assert "." not in letter.id
    body = msgspec.json.decode(letter.body)
    assert (body["type"], body["id"]) == ("job.ended", letter.id)
    assert body["timestamp"].endswith("Z")
    assert body["data"]["seq"] == end.seq
    assert body["data"]["id"] == job.name
    assert (body["data"]["state"], body["data"]["labels"]) == ("COMPLETED", {"l": "1"})
    reader = Reader(stage.database.path)
    assert reader.letter(letter.id) == letter  # though the job is forgotten
    reader.close()


def test_jobs_that_are_loaded_call_nobody(stage: Stage) -> None:
    stage.store.replace_finished([make_job("x", state=JobState.LOST, callback="http://h/")])
    stop(stage.writer)
    assert stage.letters == []


def test_of_one_change_the_events_of_each_user_stand_together(stage: Stage) -> None:
    jobs = [stage.submit(f"j{n}", auid=auid) for n, auid in enumerate("abab")]
    stage.store.remove([job.name for job in jobs])
    stop(stage.writer)
    ends = [event for event in stage.published if event.kind == "deleted"]
    assert [event.jid for event in ends] == ["j0", "j2", "j1", "j3"]
    assert ends[1].seq == ends[0].seq + 1


def test_who_begins_during_a_commit_misses_none_of_it(stage: Stage) -> None:
    stage.submit("other", auid="other")
    stage.database.entered = threading.Semaphore(0)
    stage.database.gate.clear()
    thread = threading.Thread(target=stage.submit, args=("a",), kwargs={"auid": "me"})
    thread.start()
    assert stage.database.entered.acquire(timeout=DEADLINE_S)
    numbering = stage.writer.numbering
    begin, mine, other = (numbering.now(owner) for owner in (None, "me", "other"))
    stage.database.gate.set()
    thread.join()
    stage.submit("b", auid="other")
    stop(stage.writer)
    first, second, third = (event.seq for event in stage.published)
    assert begin == mine == second - 1 > first
    assert second <= other < third


def test_numbers_of_a_commit_that_failed_are_not_given_again(stage: Stage) -> None:
    stage.database.error = SnapshotError("no space left")
    with pytest.raises(SnapshotError):
        stage.submit()
    number = stage.writer.numbering.now("tester")
    stage.database.error = None
    stage.submit("b")
    stop(stage.writer)
    assert stage.published[0].seq > number
