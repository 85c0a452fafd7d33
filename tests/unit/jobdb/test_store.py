"""`JobStore`: order, durability before visibility, indexes, subscriptions."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from jobdb_builders import DEADLINE_S, MemoryJournal, finished_job, make_job

from pman.errors import JobConflict, PmanError, RequestError, SnapshotError, UnknownJob
from pman.job.observation import Observation
from pman.job.record import HostFacts, Job, Part
from pman.job.state import TRANSITIONS, JobState
from pman.jobdb.store import JobStore

NOW = 5000.0


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def store(journal: MemoryJournal) -> JobStore:
    return JobStore(journal, now=lambda: NOW)


def in_thread(call: Any) -> tuple[threading.Thread, list[Any]]:
    """Run `call` in a thread; its result, or its error, will be in the list."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except PmanError as exc:
            results.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def wait_queued(journal: MemoryJournal, count: int) -> None:
    """Wait until `count` writes are queued."""
    ticker = threading.Event()
    for _ in range(int(DEADLINE_S / 0.005)):
        if len(journal.queue) >= count:
            return
        ticker.wait(0.005)
    raise AssertionError(f"{len(journal.queue)} writes, expected {count}")


# --- submit -------------------------------------------------------------------------------


def test_job_is_visible_only_once_it_is_durable(store: JobStore, journal: MemoryJournal) -> None:
    job = make_job()
    thread, results = in_thread(lambda: store.submit(job, timeout_s=DEADLINE_S))
    wait_queued(journal, 1)
    assert store.get(job.name) is None
    assert store.find("jid", "job-1") == []
    journal.settle()
    thread.join(DEADLINE_S)
    assert results == [(store.get(job.name), True)]
    assert store.find("jid", "job-1") == [job]
    assert store.unfinished() == [job]
    assert store.count == 1


def test_refused_job_leaves_nothing(store: JobStore, journal: MemoryJournal) -> None:
    job = make_job()
    thread, results = in_thread(lambda: store.submit(job, timeout_s=DEADLINE_S))
    wait_queued(journal, 1)
    journal.settle(SnapshotError("no space left"))
    thread.join(DEADLINE_S)
    assert isinstance(results[0], SnapshotError)
    assert results[0].message == "no space left"
    assert results[0].hint == 503
    assert store.names() == []
    thread, results = in_thread(lambda: store.submit(job, timeout_s=DEADLINE_S))
    wait_queued(journal, 1)
    journal.settle()
    thread.join(DEADLINE_S)
    assert results[0][1] is True


def test_job_that_came_too_late_is_taken_back(store: JobStore, journal: MemoryJournal) -> None:
    job = make_job()
    with pytest.raises(SnapshotError):
        store.submit(job, timeout_s=0.0)
    journal.settle()
    assert store.names() == []
    assert journal.log[-1] == ("delete", (job.name,))


def test_name_is_taken_once(store: JobStore) -> None:
    job = make_job()
    store.load([job])
    with pytest.raises(JobConflict):
        store.submit(job, timeout_s=0.0)


def test_block_that_is_too_deep_is_refused(store: JobStore, journal: MemoryJournal) -> None:
    block: dict[str, Any] = {}
    for _ in range(100_000):
        block = {"a": block}
    job = make_job(container=block)
    with pytest.raises(RequestError):
        store.submit(job, timeout_s=DEADLINE_S)
    assert journal.log == []
    while block:
        block = block.pop("a")  # or the interpreter recurses when it frees it


def test_idempotent_returns_the_first(store: JobStore, journal: MemoryJournal) -> None:
    first, second = make_job("j"), make_job("j")
    store.load([first, second])
    job, is_new = store.submit(make_job("j"), idempotent=True, timeout_s=0.0)
    assert (job, is_new) == (first, False)
    assert journal.log == []


def test_idempotent_holds_for_a_job_with_a_key_as_well(store: JobStore) -> None:
    first = make_job("j")
    store.load([first])
    keyed = make_job("j")
    keyed.idempotency = "key:body"
    assert store.submit(keyed, idempotent=True, timeout_s=0.0) == (first, False)
    assert store.submit(keyed, idempotent=True, auid=first.auid, timeout_s=0.0) == (first, False)


def test_idempotent_waits_for_the_one_under_way(store: JobStore, journal: MemoryJournal) -> None:
    calls = [
        in_thread(lambda: store.submit(make_job("j"), idempotent=True, timeout_s=DEADLINE_S))
        for _ in range(8)
    ]
    wait_queued(journal, 1)
    journal.settle()
    for thread, _ in calls:
        thread.join(DEADLINE_S)
    answers = [results[0] for _, results in calls]
    assert len({job.name for job, _ in answers}) == 1
    assert sorted(is_new for _, is_new in answers) == [False] * 7 + [True]
    assert store.count == 1


def test_empty_jid_is_never_the_same_job(store: JobStore, journal: MemoryJournal) -> None:
    store.load([make_job("")])
    thread, results = in_thread(
        lambda: store.submit(make_job(""), idempotent=True, timeout_s=DEADLINE_S)
    )
    wait_queued(journal, 1)
    journal.settle()
    thread.join(DEADLINE_S)
    assert results[0][1] is True
    assert store.find("jid", "") == []


def test_order_is_that_of_the_disk(store: JobStore, journal: MemoryJournal) -> None:
    calls = [
        in_thread(lambda n=n: store.submit(make_job(f"j{n}"), timeout_s=DEADLINE_S))
        for n in range(20)
    ]
    wait_queued(journal, 20)
    journal.settle()
    for thread, _ in calls:
        thread.join(DEADLINE_S)
    assert store.names() == [job.name for kind, job in journal.log if kind == "fresh"]


# --- observe ------------------------------------------------------------------------------


@pytest.mark.parametrize("old", JobState)
@pytest.mark.parametrize("new", JobState)
def test_moves(store: JobStore, old: JobState, new: JobState) -> None:
    job = make_job(state=old)
    store.load([job])
    seen = store.observe(Observation(name=job.name, state=new, message="seen"))
    if old.is_final:
        assert seen is None
        assert store.get(job.name) == job
    else:
        assert seen is not None
        assert seen.state is (new if new in TRANSITIONS[old] else old)
        assert seen.message == "seen"


def test_observation_makes_a_new_object(store: JobStore, journal: MemoryJournal) -> None:
    job = make_job()
    store.load([job])
    held = store.get(job.name)
    parts = [Part("true", 12, 1.0)]
    handle = {"pid": 12}
    new = store.observe(
        Observation(name=job.name, state=JobState.RUNNING, parts=parts, handle=handle)
    )
    assert held == job
    assert new is store.get(job.name)
    assert new is not None
    assert (new.revision, new.started_at, new.ended_at) == (1, NOW, None)
    parts[0].returncode = 5
    handle["pid"] = 13
    assert (new.parts[0].returncode, new.handle) == (None, {"pid": 12})
    assert journal.log == [("write", new)]


def test_nothing_new_is_not_written(store: JobStore, journal: MemoryJournal) -> None:
    job = make_job(state=JobState.RUNNING)
    store.load([job])
    assert store.observe(Observation(name=job.name, state=JobState.RUNNING)) == job
    assert journal.log == []


def test_unknown_job_is_ignored(store: JobStore) -> None:
    assert store.observe(Observation(name="nosuch", state=JobState.FAILED)) is None


def test_end_gets_its_moment(store: JobStore) -> None:
    job = make_job()
    store.load([job])
    seen = store.observe(Observation(name=job.name, state=JobState.FAILED))
    assert seen is not None
    assert (seen.started_at, seen.ended_at) == (None, NOW)
    assert store.unfinished() == []


# --- reading ------------------------------------------------------------------------------


def test_find_compares_value_and_type(store: JobStore) -> None:
    one, two = finished_job("77"), finished_job("b", (0, 0))
    store.load([one, two])
    assert store.find("jid", "77") == [one]
    assert store.find("auid", "tester") == [one, two]
    assert store.find("jobCount", 1) == [one]
    assert store.find("endInfo", {"allJobsDone": True}) == [one, two]
    for key, value in [
        ("jid", 77),
        ("jid", None),
        ("jid", ["77"]),
        ("jobCount", True),
        ("jobCount", 1.0),
        ("nosuch", False),
        ("nosuch", None),
        ("end", {}),
        ("name", one.name),
    ]:
        assert store.find(key, value) == [], (key, value)


def test_at_follows_removals(store: JobStore) -> None:
    jobs = [make_job(f"j{n}") for n in range(4)]
    store.load(jobs)
    assert store.at(0) == jobs[0]
    assert store.at(-1) == jobs[3]
    store.remove([jobs[1].name, "nosuch"])
    assert [store.at(n) for n in range(-4, 4)] == [
        None,
        *(jobs[n] for n in (0, 2, 3, 0, 2, 3)),
        None,
    ]
    assert store.find("jid", "j1") == []
    assert [job.jid for job in store.find("auid", "tester")] == ["j0", "j2", "j3"]


# --- removal ------------------------------------------------------------------------------


def test_clear_keeps_what_runs(store: JobStore, journal: MemoryJournal) -> None:
    done, running = finished_job("a"), make_job("b", state=JobState.RUNNING)
    store.load([done, running])
    assert store.clear() == [done]
    assert store.jobs() == [running]
    assert journal.log == [("delete", (done.name,))]


def test_clear_of_a_selection(store: JobStore) -> None:
    jobs = [finished_job("a"), finished_job("b"), make_job("c")]
    store.load(jobs)
    assert store.clear([jobs[0], jobs[2]]) == [jobs[0]]
    assert store.names() == [jobs[1].name, jobs[2].name]


def test_removed_job_does_not_come_back(store: JobStore, journal: MemoryJournal) -> None:
    job = make_job(state=JobState.RUNNING)
    store.load([job])
    ended: list[Job] = []
    store.when_final(job.name, ended.append)
    store.remove([job.name])
    assert ended == [job]
    assert store.observe(Observation(name=job.name, state=JobState.FAILED)) is None
    assert [kind for kind, _ in journal.log] == ["delete"]


def test_replace_finished(store: JobStore, journal: MemoryJournal) -> None:
    gone, kept, running = finished_job("a"), finished_job("b"), make_job("c")
    store.load([gone, kept, running])
    loaded = [finished_job("d"), kept, finished_job("c", name=running.name)]
    assert store.replace_finished(loaded) == [gone]
    assert [job.jid for job in store.jobs()] == ["c", "d", "b"]
    assert store.get(running.name) == running
    assert journal.log[0][0] == "replace"
    assert [job.jid for job in store.find("auid", "tester")] == ["c", "d", "b"]
    changed = store.get(kept.name)
    assert changed is not None
    assert changed.revision > kept.revision


# --- subscriptions ------------------------------------------------------------------------


def test_when_final(store: JobStore) -> None:
    job, done = make_job(), finished_job()
    store.load([job, done])
    ended: list[Job] = []
    store.when_final(done.name, ended.append)
    assert ended == [done]
    store.when_final(job.name, ended.append)
    store.observe(Observation(name=job.name, state=JobState.RUNNING))
    assert len(ended) == 1
    store.observe(Observation(name=job.name, state=JobState.COMPLETED, exit_code=0))
    assert ended[1] is store.get(job.name)
    with pytest.raises(UnknownJob):
        store.when_final("nosuch", ended.append)


def test_callback_may_change_jobs(store: JobStore) -> None:
    first, second = make_job(), make_job()
    store.load([first, second])
    ended: list[str] = []

    def callback(job: Job) -> None:
        ended.append(job.name)
        store.observe(Observation(name=second.name, state=JobState.COMPLETED))

    store.when_final(first.name, callback)
    store.when_final(second.name, callback)
    store.observe(Observation(name=first.name, state=JobState.COMPLETED))
    assert ended == [first.name, second.name]


def test_settled_means_durable(store: JobStore, journal: MemoryJournal) -> None:
    job = make_job()
    store.load([job])
    settled: list[Job] = []
    store.on_settled(settled.append)
    end = Observation(name=job.name, state=JobState.FAILED)
    store.observe(end)
    store.observe(end)
    assert settled == []
    assert not store.is_settled(job.name)
    journal.settle()
    assert settled == [store.get(job.name)]
    assert store.is_settled(job.name)
    store.observe(end)  # a backend that reports the end again has not heard that it is settled
    assert len(settled) == 2
    store.load([runs := make_job()])
    assert not store.is_settled(runs.name)
    assert not store.is_settled("gone")


# --- memory -------------------------------------------------------------------------------


def test_values_that_jobs_share_are_kept_once(store: JobStore) -> None:
    def facts() -> HostFacts:
        return HostFacts("Linux", "x86_64", "p", tuple("abcdef"), "v")

    jobs = [finished_job(f"{uuid.uuid4()}") for _ in range(2)]
    for job in jobs:
        job.facts = facts()
        job.auid = "".join(["a", "b"])
    store.load(jobs)
    one, two = store.jobs()
    assert one.facts is two.facts
    assert one.auid is two.auid
