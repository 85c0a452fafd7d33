"""The counts of jobs against a walk over all of them, whatever happens to these."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobdb_builders import DEADLINE_S, finished_job, make_job, running_writer

from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb.ledger import MAX_REASONS, OTHER, Ledger
from pman.jobdb.store import JobStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with running_writer(tmp_path) as writer:
        yield JobStore(writer)


def assert_counts_are_right(store: JobStore) -> None:
    walked = collections.Counter((job.backend, job.state, job.hold) for job in store.jobs())
    assert dict(store.ledger.jobs()) == dict(walked)


def accept(store: JobStore, job: Job) -> Job:
    return store.submit(job, timeout_s=DEADLINE_S)[0]


def test_counts_follow_jobs(store: JobStore) -> None:
    store.load([finished_job("old"), make_job("older", backend="swarm")])
    assert_counts_are_right(store)
    assert store.ledger.all_accepted() == []
    jobs = [accept(store, make_job(f"j{n}")) for n in range(4)]
    accept(store, make_job("away", backend="swarm", hold="limit"))
    assert_counts_are_right(store)
    assert dict(store.ledger.all_accepted()) == {"host": 4, "swarm": 1}
    store.observe(Observation(name=jobs[0].name, state=JobState.RUNNING))
    store.observe(Observation(name=jobs[1].name, hold="after"))
    assert_counts_are_right(store)
    for job, reason in ((jobs[0], "ok"), (jobs[2], "ok"), (jobs[3], "error")):
        store.observe(Observation(name=job.name, state=JobState.FAILED, reason=reason))
        store.observe(Observation(name=job.name, state=JobState.LOST, reason="lost"))
    assert_counts_are_right(store)
    assert dict(store.ledger.all_ended()) == {("host", "ok"): 2, ("host", "error"): 1}
    store.remove([jobs[0].name, jobs[1].name, "unknown"])
    assert_counts_are_right(store)
    store.replace_finished([finished_job("put")])
    assert_counts_are_right(store)
    store.clear()
    assert_counts_are_right(store)
    assert len(store.ledger.jobs()) == 2  # of what runs


def test_an_idempotent_run_is_accepted_once(store: JobStore) -> None:
    accept(store, make_job("same"))
    store.submit(make_job("same"), idempotent=True, timeout_s=DEADLINE_S)
    assert store.ledger.all_accepted() == [("host", 1)]


def test_reasons_are_few() -> None:
    ledger = Ledger()
    words = ["Not a word", "x" * 60, *(f"reason_{'a' * (n + 1)}" for n in range(26))]
    words += [f"other_reason_{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(200)]
    for word in words:
        ledger.ended(make_job(state=JobState.FAILED, reason=word))
    ended = dict(ledger.all_ended())
    assert len(ended) == MAX_REASONS + 1
    assert ended["host", OTHER] == len(words) - MAX_REASONS
    assert ("host", "Not a word") not in ended


def test_an_end_without_a_reason_is_counted_by_its_state() -> None:
    ledger = Ledger()
    ledger.ended(make_job(state=JobState.CANCELED))
    assert ledger.all_ended() == [(("host", "canceled"), 1)]


def test_who_watches_states_hears_of_each_once_and_in_order(store: JobStore) -> None:
    heard: list[tuple[str, int]] = []
    store.on_state(lambda job: heard.append((job.state.value, job.attempt)))
    job = accept(store, make_job())
    for state in (JobState.QUEUED, JobState.RUNNING, JobState.RUNNING, JobState.COMPLETED):
        store.observe(Observation(name=job.name, state=state, message=state.value))
    store.observe(Observation(name=job.name, state=JobState.FAILED))
    assert heard == [("NEW", 1), ("QUEUED", 1), ("RUNNING", 1), ("COMPLETED", 1)]
