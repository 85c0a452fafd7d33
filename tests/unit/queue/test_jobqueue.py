"""`JobQueue`: limits, dependencies, retries, deadlines, cancels, and restarts in between."""

from __future__ import annotations

import msgspec
import pytest
from queue_harness import THEN, NewQueue, QueueHarness, QueueStub

from pman.errors import BackendUnavailable, RequestError, SnapshotError, SubmitFailed
from pman.job.observation import Observation
from pman.job.record import Job, new_job
from pman.job.spec import spec_from_meta
from pman.job.state import FINAL_STATES, JobState
from pman.jobdb.database import Database


def ends(job: Job) -> tuple[JobState, str, str]:
    return job.state, job.reason, job.hold


# --- limits -----------------------------------------------------------------------------------


def test_a_job_that_nothing_holds_back_is_started_by_who_submits_it(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("a")
    assert job.state is JobState.RUNNING
    assert pman.backend.given[0].state is JobState.NEW
    assert pman.backend.given[0].accepted_at == job.accepted_at


def test_what_is_over_the_limit_waits_its_turn(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("host", 1),))
    first = pman.submit("first")
    low, high = pman.submit("low"), pman.submit("high", priority=9)
    last = pman.submit("last")
    for job in (low, high, last):
        assert (job.state, job.hold, job.reason) == (JobState.QUEUED, "limit", "limit")
        assert "--maxJobs" in job.message
    assert pman.queue.waiting == 3
    for job in (first, high, low, last):
        pman.wait_running(job)
        assert ends(pman.job(job)) == (JobState.RUNNING, "", "")
        pman.end(job)
    pman.wait_state(last, JobState.COMPLETED)
    assert pman.given() == ["first", "high", "low", "last"]


def test_a_released_job_was_accepted_by_its_backend_when_it_was_released(
    new_queue: NewQueue,
) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first, second = pman.submit("first"), pman.submit("second")
    pman.time += 1000
    pman.end(first)
    pman.wait_running(second)
    given = pman.backend.given[-1]
    assert (given.name, given.accepted_at, given.state) == (second.name, pman.time, JobState.NEW)
    assert pman.job(second).accepted_at == second.accepted_at


def test_who_waits_survives_a_restart_in_order(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first = pman.submit("first")
    waiting = [pman.submit(f"w{n}", priority=n % 2) for n in range(4)]
    pman.restart()
    pman.settle()
    assert pman.given() == []
    assert pman.job(first).state is JobState.RUNNING
    assert [pman.job(job).hold for job in waiting] == ["limit"] * 4
    for job in (first, *(waiting[n] for n in (1, 3, 0, 2))):
        pman.wait_running(job)
        pman.end(job)
    pman.wait_state(waiting[2], JobState.COMPLETED)
    assert pman.given() == ["w1", "w3", "w0", "w2"]


def test_the_highest_priority_is_first_after_a_restart_too(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first = pman.submit("first")
    low, high = pman.submit("low"), pman.submit("high", priority=5)
    pman.backend.close()  # its end is not seen: as if killed before
    pman.end(first)
    pman.restart()
    pman.wait_running(high)
    assert pman.job(low).hold == "limit"


def test_a_job_that_was_released_is_started_once_over_a_crash(new_queue: NewQueue) -> None:
    """Killed between the record and the backend, and between the backend and its report."""
    pman = new_queue(max_jobs=(("", 1),))
    first, second = pman.submit("first"), pman.submit("second")
    pman.queue.attach(lambda: None, lambda *_: None)  # nothing gets to the backend
    pman.end(first)
    pman.until(lambda: pman.job(second).hold == "released", "it is released")
    pman.settle()
    pman.restart()
    pman.wait_running(second)
    assert pman.backend._engine.starts[second.name] == 1
    assert pman.job(second).hold == ""
    pman.restart()
    pman.settle()
    assert pman.backend.given == []
    assert pman.job(second).state is JobState.RUNNING


def test_a_backend_that_is_away_gets_held_jobs_later(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first, second, third = (pman.submit(jid) for jid in ("first", "second", "third"))
    pman.backend.is_away = True
    pman.end(first)
    pman.until(
        lambda: pman.job(second).reason == "backend_unavailable", "the backend was asked in vain"
    )
    assert ends(pman.job(second)) == (JobState.QUEUED, "backend_unavailable", "limit")
    assert pman.job(second).message == "the stub is away"
    assert pman.job(third).reason == "limit"
    pman.time += 0.5
    pman.settle()
    assert pman.given() == ["first"]
    pman.backend.is_away = False
    pman.time += 0.5
    pman.wait_running(second)
    assert pman.job(third).hold == "limit"
    assert pman.job(second).reason == ""


def test_a_released_job_that_is_not_taken_has_failed(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first, second, third = pman.submit("1"), pman.submit("2", "refuse"), pman.submit("3")
    pman.end(first)
    pman.wait_state(second, JobState.FAILED)
    assert pman.job(second).reason == "submit_failed"
    pman.wait_running(third)


def test_a_new_job_that_is_not_taken_gives_its_place_back(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    with pytest.raises(SubmitFailed):
        pman.submit("1", "refuse")
    assert pman.submit("2").state is JobState.RUNNING


def test_nobody_hears_that_a_job_was_not_taken_before_the_disk_knows(
    new_queue: NewQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be submitted elsewhere, and the next daemon would start it here."""

    def no_space(*_: object) -> None:
        raise SnapshotError("no space left")

    def submit(_: Job) -> None:
        monkeypatch.setattr(Database, "apply", no_space)
        raise SubmitFailed("no such image")

    pman = new_queue()
    monkeypatch.setattr(pman.backend, "submit", submit)
    with pytest.raises(SnapshotError, match="no space left"):
        pman.submit("1")
    monkeypatch.undo()


def test_an_idempotent_request_takes_no_place(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first = pman.submit("1")
    assert pman.submit("1", idempotent=True).name == first.name
    waiting = pman.submit("2")
    assert pman.submit("2", idempotent=True).name == waiting.name
    assert pman.queue.waiting == 1
    pman.end(first)
    pman.wait_running(waiting)


# --- after ------------------------------------------------------------------------------------


def test_a_job_follows_others(new_queue: NewQueue) -> None:
    pman = new_queue()
    one, two = pman.submit("one"), pman.submit("two")
    job = pman.submit("job", after=[one, two, one])
    assert (job.hold, job.reason, job.after) == ("after", "after", [one.name, two.name])
    pman.end(one)
    assert pman.job(job).after == [two.name]
    pman.restart()
    pman.settle()
    assert pman.job(job).hold == "after"
    pman.end(two)
    pman.wait_running(job)
    assert pman.job(job).after == []


def test_others_that_have_ended_well_hold_nothing_back(new_queue: NewQueue) -> None:
    pman = new_queue()
    done = pman.submit("done", "true")
    job = pman.submit("job", after=[done])
    assert job.state is JobState.RUNNING
    assert job.after is None


@pytest.mark.parametrize("how", ["fails", "is canceled", "is gone", "has failed before"])
def test_a_job_fails_with_what_it_follows(new_queue: NewQueue, how: str) -> None:
    pman = new_queue()
    first = pman.submit("first", "false" if how == "has failed before" else "wait")
    job = pman.submit("job", after=[first])
    next_one = pman.submit("next", after=[job])
    if how == "fails":
        pman.end(first, 3)
    elif how == "is canceled":
        pman.queue.cancel(first, 1.0)
    elif how == "is gone":
        pman.store.remove([first.name])
    for follower, followed in ((job, "first"), (next_one, "job")):
        pman.wait_state(follower, JobState.FAILED)
        now = pman.job(follower)
        assert ends(now) == (JobState.FAILED, "dependency_failed", "")
        assert repr(followed) in now.message or how == "is gone"


def test_a_long_chain_fails_without_a_deep_stack(new_queue: NewQueue) -> None:
    pman = new_queue()
    first = last = pman.submit("0")
    for n in range(1, 1500):
        last = pman.submit(str(n), after=[last])
    pman.end(first, 1)
    pman.wait_state(last, JobState.FAILED)


def test_what_is_gone_over_a_restart_counts_as_not_ended_well(new_queue: NewQueue) -> None:
    pman = new_queue()
    first = pman.submit("first")
    job = pman.submit("job", after=[first])
    pman.queue.__dict__["_dependents"].clear()  # killed before the queue could react
    pman.store.remove([first.name])
    pman.restart()
    pman.wait_state(job, JobState.FAILED)
    assert pman.job(job).reason == "dependency_failed"


def test_a_job_that_follows_waits_for_a_place_then(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first = pman.submit("first")
    job, other = pman.submit("job", after=[first]), pman.submit("other", priority=1)
    pman.end(first)
    pman.wait_running(other)
    assert ends(pman.job(job)) == (JobState.QUEUED, "limit", "limit")
    pman.end(other)
    pman.wait_running(job)


# --- retries ----------------------------------------------------------------------------------


def test_a_job_that_fails_is_tried_again(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", retries=2, backoff=10)
    for attempt, wait_s in ((2, 10.0), (3, 20.0)):
        pman.end(job, 7)
        now = pman.job(job)
        assert ends(now) == (JobState.QUEUED, "retry", "retry")
        assert (now.attempt, now.not_before) == (attempt, pman.time + wait_s)
        assert (now.started_at, now.ended_at, now.exit_code, now.handle) == (None,) * 4
        assert ([part.returncode for part in now.parts], now.shown_attempt) == ([7], attempt - 1)
        why = "the command ended with exit code 7"
        assert now.message == f"try {attempt - 1} of 3 has failed: {why}; the next follows"
        pman.time += wait_s - 0.1
        pman.settle()
        assert pman.job(job).hold == "retry"
        pman.time += 0.1
        pman.wait_running(job)
        assert pman.backend.given[-1].name == f"{job.name}_r{attempt}"
        assert (pman.backend.given[-1].parts, pman.job(job).shown_attempt) == ([], 0)
    pman.end(job, 8)
    now = pman.wait_state(job, JobState.FAILED)
    assert (now.reason, now.exit_code, now.attempt) == ("error", 8, 3)
    pman.settle()
    assert pman.backend.settled_names == [f"{job.name}{end}" for end in ("", "_r2", "_r3")]


def test_a_later_try_may_end_well(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", retries=1, backoff=0)
    follower = pman.submit("follower", after=[job])
    pman.end(job, 1)
    pman.wait_running(job)
    pman.end(job)
    assert pman.job(job).state is JobState.COMPLETED
    pman.wait_running(follower)


def test_tries_survive_a_restart(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", retries=1, backoff=5)
    pman.end(job, 1)
    pman.settle()
    pman.restart()
    pman.settle()
    assert pman.job(job).hold == "retry"
    pman.time += 5
    pman.wait_running(job)
    pman.restart()
    assert pman.job(job).state is JobState.RUNNING
    pman.end(job, 2)
    assert (pman.job(job).state, pman.job(job).exit_code) == (JobState.FAILED, 2)


def test_the_end_of_an_older_try_is_settled_and_changes_nothing(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", retries=1, backoff=0)
    pman.end(job, 1)
    pman.wait_running(job)
    pman.settle()
    pman.backend.settled_names.clear()
    pman.queue.observe(Observation(name=job.name, state=JobState.FAILED, exit_code=1))
    pman.queue.observe(Observation(name=job.name, state=JobState.RUNNING))
    assert pman.job(job).state is JobState.RUNNING
    assert pman.backend.settled_names == [job.name]
    pman.end(job)
    pman.queue.observe(Observation(name=job.name, state=JobState.FAILED, exit_code=1))
    assert pman.job(job).state is JobState.COMPLETED


@pytest.mark.parametrize("state", [JobState.CANCELED, JobState.LOST, JobState.COMPLETED])
def test_only_what_has_failed_is_tried_again(new_queue: NewQueue, state: JobState) -> None:
    pman = new_queue()
    job = pman.submit("job", retries=5)
    pman.queue.observe(Observation(name=job.name, state=state))
    assert pman.job(job).state is state


def test_a_try_gives_its_place_back_while_it_waits(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    job, other = pman.submit("job", retries=1, backoff=5), pman.submit("other")
    pman.end(job, 1)
    pman.wait_running(other)
    pman.time += 5
    pman.until(lambda: pman.job(job).hold == "limit", "the try waits for a place")
    pman.end(other)
    pman.wait_running(job)


def test_a_job_that_is_to_end_is_not_tried_again(new_queue: NewQueue) -> None:
    """It fails by itself at the moment of the cancel."""
    pman = new_queue()
    job = pman.submit("job", retries=5)
    pman.backend.cancel = lambda *_: None  # type: ignore[method-assign]
    pman.queue.cancel(job, 1.0)
    pman.end(job, 1)
    assert pman.job(job).state is JobState.FAILED


# --- deadlines --------------------------------------------------------------------------------


def test_a_job_that_runs_too_long_has_failed(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", timeout=30)
    started_at = pman.job(job).started_at
    assert started_at is not None
    pman.time = started_at + 29.9
    pman.settle()
    assert pman.job(job).state is JobState.RUNNING
    pman.time = started_at + 30
    now = pman.wait_state(job, JobState.FAILED)
    assert (now.reason, now.message) == (
        "deadline_exceeded",
        "it ran longer than the 30 s of its timeout",
    )


def test_a_deadline_holds_over_a_restart(new_queue: NewQueue) -> None:
    """Killed when it was durable that the time was up, before its backend was told."""
    pman = new_queue()
    job = pman.submit("job", timeout=30)
    pman.queue.attach(lambda: None, lambda *_: None)
    pman.time = (pman.job(job).started_at or 0.0) + 30
    pman.until(lambda: pman.job(job).reason == "deadline_exceeded", "it is to end")
    pman.settle()
    pman.backend.close()
    pman.backend.cancel(pman.job(job), 1.0)
    pman.restart()
    now = pman.wait_state(job, *FINAL_STATES)
    assert (now.state, now.reason) == (JobState.FAILED, "deadline_exceeded")


def test_a_try_that_runs_too_long_is_followed_by_another(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", timeout=30, retries=1, backoff=0)
    pman.time = (pman.job(job).started_at or 0.0) + 30
    pman.until(lambda: pman.job(job).attempt == 2, "it is tried again")
    pman.wait_running(job)


def test_a_backend_that_cannot_be_told_is_told_again(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", timeout=30)
    cancel = pman.backend.cancel

    def is_away(*_: object) -> None:
        raise BackendUnavailable("away")

    pman.backend.cancel = is_away  # type: ignore[method-assign]
    pman.time = (pman.job(job).started_at or 0.0) + 30
    pman.until(lambda: pman.job(job).reason == "deadline_exceeded", "it is to end")
    pman.settle()
    pman.queue.observe(Observation(name=job.name, reason="node_lost", message="x"))
    assert pman.job(job).reason == "deadline_exceeded"
    pman.backend.cancel = cancel  # type: ignore[method-assign]
    pman.settle()
    assert pman.job(job).state is JobState.RUNNING
    pman.time += 20.0
    pman.wait_state(job, JobState.FAILED)


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("kind", ["limit", "after"])
def test_a_held_job_that_waits_too_long_has_failed(
    new_queue: NewQueue, kind: str, is_restarted: bool
) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first = pman.submit("first")
    job = pman.submit("job", pendingTimeout=60, after=[first] if kind == "after" else [])
    if is_restarted:
        pman.restart()
    pman.time = job.accepted_at + 60
    now = pman.wait_state(job, JobState.FAILED)
    assert (now.reason, now.hold) == ("pending_timeout", "")
    assert "within the 60 s of its pendingTimeout: waits" in now.message
    pman.end(first)
    pman.settle()
    assert pman.given() in (["first"], [])


def test_a_job_that_its_backend_does_not_start_in_time_has_failed(new_queue: NewQueue) -> None:
    pman = new_queue()
    pman.backend._engine.report = lambda seen: None  # type: ignore[method-assign]
    job = pman.submit("job", pendingTimeout=60, retries=3)
    pman.queue.observe(Observation(name=job.name, state=JobState.QUEUED, message="no node"))
    del pman.backend._engine.__dict__["report"]
    pman.time = job.accepted_at + 60
    now = pman.wait_state(job, JobState.FAILED)
    assert now.reason == "pending_timeout"
    assert now.message.endswith("pendingTimeout: no node")


def test_a_job_that_has_started_waits_no_more(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", pendingTimeout=60)
    pman.time += 100
    pman.settle()
    assert pman.job(job).state is JobState.RUNNING


def test_a_later_try_that_its_backend_is_not_there_for_waits_no_longer_than_the_first(
    new_queue: NewQueue,
) -> None:
    pman = new_queue()
    job = pman.submit("job", pendingTimeout=60, retries=1, backoff=10)
    pman.end(job, 1)
    pman.backend.is_away = True
    pman.time += 10
    pman.until(lambda: pman.job(job).reason == "backend_unavailable", "it was tried in vain")
    for _ in range(60):
        pman.time += 1
        pman.settle()
    assert ends(pman.wait_state(job, JobState.FAILED)) == (JobState.FAILED, "pending_timeout", "")


def test_a_job_that_starts_after_its_time_is_ended_over_a_restart_too(new_queue: NewQueue) -> None:
    pman = new_queue()
    seen: list[Observation] = []
    pman.backend._engine.report = seen.append  # type: ignore[method-assign]
    job = pman.submit("job", pendingTimeout=60)

    def away(*_: object) -> None:
        raise BackendUnavailable("the stub is away")

    pman.backend.cancel = away  # type: ignore[method-assign]
    pman.time = job.accepted_at + 60
    pman.until(lambda: pman.job(job).reason == "pending_timeout", "its time is over")
    pman.settle()
    del pman.backend._engine.__dict__["report"]
    pman.backend._engine.report(seen[-1])
    pman.settle()
    assert ends(pman.job(job)) == (JobState.RUNNING, "pending_timeout", "")
    pman.restart()
    assert ends(pman.wait_state(job, JobState.FAILED)) == (JobState.FAILED, "pending_timeout", "")


# --- cancel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", ["limit", "after", "retry"])
def test_a_held_job_is_canceled_at_once(new_queue: NewQueue, hold: str) -> None:
    pman = new_queue(max_jobs=(("", 1),) if hold == "limit" else ())
    first = pman.submit("first")
    job = pman.submit("job", retries=1, after=[first] if hold == "after" else [])
    if hold == "retry":
        pman.end(job, 1)
    assert pman.job(job).hold == hold
    count = len(pman.backend.given)
    pman.queue.cancel(job, 1.0)
    assert ends(pman.job(job)) == (JobState.CANCELED, "canceled", "")
    what = "its next try" if hold == "retry" else "it was started"
    assert pman.job(job).message == f"canceled before {what}"
    pman.store.barrier(20.0)
    pman.queue.cancel(job, 1.0)
    assert pman.job(job).state is JobState.CANCELED
    pman.end(first)
    pman.time += 100
    pman.settle()
    pman.restart()
    pman.settle()
    assert len(pman.backend.given) in (0, count)


def test_a_released_job_can_be_canceled_before_its_backend_has_it(new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first, second = pman.submit("first"), pman.submit("second")
    errands: list[tuple[object, ...]] = []
    pman.queue.attach(lambda: None, lambda *errand: errands.append(errand))
    pman.end(first)
    pman.until(lambda: errands, "it is to be given to its backend")
    pman.queue.cancel(second, 1.0)
    assert pman.job(second).state is JobState.CANCELED
    ((_, give, *arguments),) = errands
    give(*arguments)  # type: ignore[operator]
    assert pman.given() == ["first"]


def test_a_cancel_is_not_forgotten_over_a_restart(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job")
    pman.backend.cancel = lambda *_: None  # type: ignore[method-assign]  # killed before
    pman.queue.cancel(job, 1.0)
    pman.store.barrier(20.0)
    assert pman.job(job).reason == "canceling"
    pman.restart()
    pman.wait_state(job, JobState.CANCELED)


def told(pman: QueueHarness) -> list[tuple[float, int | None]]:
    """Return with what grace and signal the backend is told to end jobs from now on."""
    calls: list[tuple[float, int | None]] = []

    def cancel(_: Job, grace_s: float, signal: int | None = None) -> None:
        calls.append((round(grace_s), signal))

    pman.backend.cancel = cancel  # type: ignore[method-assign]
    return calls


def restart(pman: QueueHarness) -> list[tuple[float, int | None]]:
    """Begin anew; return with what grace and signal the backend is told to end jobs."""
    calls: list[tuple[float, int | None]] = []

    def cancel(_: object, job: Job, grace_s: float, signal: int | None = None) -> None:
        calls.append((round(grace_s), signal))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QueueStub, "cancel", cancel)
        pman.restart()
    return calls


def test_a_cancel_keeps_its_grace_and_its_signal_over_a_restart(new_queue: NewQueue) -> None:
    """Each later daemon goes on with what is left of it, however the clock is set."""
    pman = new_queue(kill_grace_s=1.0)
    job = pman.submit("job")
    assert told(pman) == []
    pman.queue.cancel(job, 3600.0, 2)
    pman.store.barrier(20.0)
    for later_s, left_s in ((600, 3000), (-1200, 3600), (10_000, 0)):
        pman.time += later_s
        assert restart(pman) == [(left_s, 2)]


def test_of_two_cancels_the_earlier_deadline_and_the_newer_signal_are_kept(
    new_queue: NewQueue,
) -> None:
    pman = new_queue()
    job = pman.submit("job")
    calls = told(pman)
    for grace_s, signal in ((3600.0, 2), (7200.0, 2), (60.0, 15), (600.0, None)):
        pman.queue.cancel(job, grace_s, signal)
    assert calls == [(3600, 2), (7200, 2), (60, 15), (600, None)]
    pman.settle()
    pman.time += 20
    assert restart(pman) == [(40, None)]


def test_a_second_cancel_that_is_refused_leaves_the_first(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job")
    told(pman)
    pman.queue.cancel(job, 60.0)

    def refuse(*_: object) -> None:
        raise RequestError("it can't send that")

    pman.backend.cancel = refuse  # type: ignore[method-assign]
    with pytest.raises(RequestError):
        pman.queue.cancel(job, 1.0, 2)
    pman.settle()
    assert restart(pman) == [(60, None)]


def test_a_cancel_by_a_pman_that_did_not_keep_how_has_the_usual_grace(new_queue: NewQueue) -> None:
    pman = new_queue(kill_grace_s=7.0)
    job = pman.submit("job")
    told(pman)
    pman.queue.cancel(job, 60.0, 2)
    pman.store.change(job.name, lambda job: msgspec.structs.replace(job, cancel=None))
    pman.settle()
    assert restart(pman) == [(7, None)]


def test_a_cancel_that_is_refused_leaves_the_job_as_it_was(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", retries=1, backoff=0)

    def is_away(*_: object) -> None:
        raise BackendUnavailable("away")

    pman.backend.cancel = is_away  # type: ignore[method-assign]
    with pytest.raises(BackendUnavailable):
        pman.queue.cancel(job, 1.0)
    assert pman.job(job).reason == ""
    pman.end(job, 1)
    assert pman.job(job).attempt == 2


@pytest.mark.parametrize("is_answered", ["before", "after"])
def test_a_cancel_that_was_answered_is_not_taken_back_by_one_that_failed(
    new_queue: NewQueue, is_answered: str
) -> None:
    """The backend goes away between the two, or comes back: one is answered, the other is not."""
    pman = new_queue()
    job = pman.submit("job")
    calls = told(pman)
    ends_it = pman.backend.cancel

    def is_away(*_: object) -> None:
        pman.backend.cancel = ends_it  # type: ignore[method-assign]
        if is_answered == "before":
            pman.queue.cancel(job, 60.0)
        raise BackendUnavailable("away")

    pman.backend.cancel = is_away  # type: ignore[method-assign]
    with pytest.raises(BackendUnavailable):
        pman.queue.cancel(job, 60.0)
    if is_answered == "after":
        assert pman.job(job).reason == ""
        pman.queue.cancel(job, 60.0)
    assert calls == [(60, None)]
    assert pman.job(job).reason == "canceling"
    pman.end(job)
    pman.settle()
    assert not pman.queue._told


def test_a_signal_is_looked_at_before_anything_is_recorded(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job")

    def refuse(_: int) -> None:
        assert pman.job(job).reason == ""
        raise RequestError("it can't send that", field="signal")

    pman.backend.check_signal = refuse  # type: ignore[method-assign]
    with pytest.raises(RequestError, match="can't send"):
        pman.queue.cancel(job, 1.0, 2)
    assert pman.job(job).reason == ""


def test_a_cancel_of_a_later_try_names_that_try(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", retries=1, backoff=0)
    pman.end(job, 1)
    pman.wait_running(job)
    pman.queue.cancel(job, 1.0)
    assert pman.job(job).state is JobState.CANCELED
    assert pman.job(job).attempt == 2


# --- idempotency ------------------------------------------------------------------------------


def test_the_same_key_finds_the_first_job(new_queue: NewQueue) -> None:
    pman = new_queue()

    def submit(key: str) -> tuple[Job, bool]:
        spec = spec_from_meta({"cmd": "wait", "auid": "", "jid": ""})
        job = new_job(spec, "host", THEN)
        job.idempotency = key
        return pman.queue.submit(job)

    first, is_new = submit("key:body")
    assert is_new
    assert submit("other:body")[1]
    again, is_new = submit("key:another body")
    assert (again.name, is_new, again.idempotency) == (first.name, False, "key:body")
    pman.restart()
    assert submit("key:body")[0].name == first.name
    found = pman.store.with_idempotency("key")
    assert found is not None
    assert found.name == first.name
    pman.store.remove([first.name])
    assert pman.store.with_idempotency("key") is None


# --- of two that race -------------------------------------------------------------------------


def test_a_cancel_that_got_lost_is_told_again(new_queue: NewQueue) -> None:
    pman = new_queue(kill_grace_s=1.0)
    job = pman.submit("job")
    cancel = pman.backend.cancel
    pman.backend.cancel = lambda *_: None  # type: ignore[method-assign]
    pman.queue.cancel(job, 5.0)
    for wait_s in (14.0, 1.0, 9.0):
        pman.time += wait_s
        pman.settle()
        assert pman.job(job).reason == "canceling"
    pman.backend.cancel = cancel  # type: ignore[method-assign]
    pman.time += 1.0
    pman.wait_state(job, JobState.CANCELED)
    assert pman.queue._alarms.next_at() is None


@pytest.mark.parametrize("ending", ["cancel", "pending"])
def test_an_end_during_a_release_in_vain_is_not_lost(new_queue: NewQueue, ending: str) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first, second = pman.submit("first"), pman.submit("second", pendingTimeout=50)
    follower = pman.submit("third", after=[second])

    def ends_meanwhile(job: Job) -> None:
        assert pman.job(second).hold == "released"
        pman.backend.cancel = lambda *_: None  # type: ignore[method-assign]
        if ending == "cancel":
            pman.queue.cancel(second, 1.0)
        else:
            pman.time += 60
            pman.queue.step()
        raise BackendUnavailable("away")

    pman.backend.submit = ends_meanwhile  # type: ignore[method-assign]
    pman.end(first)
    pman.wait_state(second, *FINAL_STATES)
    end = {
        "cancel": (JobState.CANCELED, "canceled", ""),
        "pending": (JobState.FAILED, "pending_timeout", ""),
    }
    assert ends(pman.job(second)) == end[ending]
    assert pman.job(follower).reason == "dependency_failed"


def test_a_signal_that_cannot_be_sent_leaves_the_job_as_it_was(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job")
    pman.queue.observe(Observation(name=job.name, reason="pulling", message="an image"))

    def refuse(*_: object) -> None:
        raise RequestError("it can't send that")

    pman.backend.cancel = refuse  # type: ignore[method-assign]
    with pytest.raises(RequestError):
        pman.queue.cancel(job, 1.0, 2)
    assert (pman.job(job).reason, pman.job(job).message) == ("pulling", "an image")
    assert pman.queue._alarms.next_at() is None


def test_a_deadline_of_the_last_try_does_not_end_the_next(new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit("job", timeout=10, retries=1, backoff=0)
    started_at = pman.job(job).started_at
    assert started_at is not None
    pman.time = started_at
    with pman.queue._lock:
        (alarm,) = pman.queue._alarms.due(started_at + 11)
    pman.end(job, 1)
    pman.wait_running(job)
    pman.queue._ring(alarm)
    pman.settle()
    now = pman.job(job)
    assert now.started_at is not None
    assert (now.attempt, now.state, now.reason) == (2, JobState.RUNNING, "")
    assert pman.queue._alarms.next_at() == now.started_at + 10


def test_what_is_seen_while_a_cancel_is_recorded_does_not_undo_it(
    new_queue: NewQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    pman = new_queue()
    job = pman.submit("job", retries=0)
    pman.backend.cancel = lambda *_: None  # type: ignore[method-assign]
    before = pman.job(job)
    pman.queue.cancel(job, 1.0)
    get = pman.store.get
    stale = [before]
    monkeypatch.setattr(pman.store, "get", lambda name: stale.pop() if stale else get(name))
    pman.queue.observe(Observation(name=job.name, reason="pulling", exit_code=4))
    assert (pman.job(job).reason, pman.job(job).exit_code) == ("canceling", 4)


def test_nothing_is_kept_of_who_waits_no_more(new_queue: NewQueue) -> None:
    pman = new_queue()
    failed, first = pman.submit("failed", "false"), pman.submit("first")
    pman.submit("a", after=[failed])
    waiting = pman.submit("b", after=[first])
    pman.submit("b", after=[first], idempotent=True)
    assert list(pman.queue._dependents) == [first.name]
    pman.queue.cancel(waiting, 1.0)
    assert not pman.queue._dependents
