"""Requests that come in an unlucky order, and work that never ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from engine_harness import FAST, Rig
from fakes.engine import FakeEngine, World

from pman.backends._engine import jobs as jobs_module
from pman.backends._engine.ending import MAX_FAULTS
from pman.backends._engine.outage import Outage
from pman.backends._engine.peeks import Peeks
from pman.backends._engine.port import Unanswered
from pman.errors import BackendUnavailable, JobConflict, SubmitFailed
from pman.job.state import JobState

MakeRig = Callable[..., Rig]

NO_ANSWER = Unanswered("the engine failed: message too large")


def test_a_job_that_is_deleted_before_it_is_submitted_is_not_run(rig: Rig) -> None:
    """`delete` cancels it, sees it end and removes it, before `run` goes on to submit it."""
    job = rig.job()
    rig.backend.reconcile([])
    rig.backend.cancel(job, 0.0)
    rig.recorder.wait(job, JobState.CANCELED)
    rig.backend.remove(job)
    rig.backend.submit(msgspec.structs.replace(job, state=JobState.NEW))
    rig.marked()
    assert job.name not in rig.world.creates


def test_withdrawn_jobs_are_not_remembered_without_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MAX_WITHDRAWN", 2)
    jobs = [rig.job() for _ in range(4)]
    for job in jobs:
        rig.backend.cancel(job, 0.0)
    rig.marked()
    assert list(rig.backend._jobs._withdrawn) == [job.name for job in jobs[2:]]


def test_output_that_nobody_can_read_holds_up_no_other_job(rig: Rig) -> None:
    silent, other = [rig.running() for _ in range(10)], rig.running()
    came, _ = rig.world.hold("peek")
    for _ in range(3):
        for job in silent:
            rig.backend.logs(job)
    assert came.wait(30)
    rig.world.end(other.name)
    rig.recorder.wait(other, JobState.COMPLETED)


def test_a_look_at_output_that_takes_long_is_not_begun_again() -> None:
    peeks = Peeks(0.0)
    assert peeks.text("a") == ("", True)
    peeks.begin("a")
    assert peeks.text("a") == ("", False)
    peeks.put("a", None)
    assert peeks.text("a") == ("", True)


# --- a silent engine ----------------------------------------------------------------------


class CountedLock:
    """A lock that tells how many threads have come to it."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.came.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_who_waits_while_another_fails_to_connect_does_not_try_as_well() -> None:
    world = World()
    engine, outage = FakeEngine(world), Outage("fake", on_up=lambda: None)
    counted: Any = CountedLock()
    outage._connecting = counted
    _, free = world.hold("connect")
    world.fail("connect", BackendUnavailable("silent"))
    failures: list[str] = []

    def connect() -> None:
        try:
            outage.connect(engine)
        except BackendUnavailable as exc:
            failures.append(exc.message)

    threads = [threading.Thread(target=connect) for _ in range(5)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert counted.came.acquire(timeout=30)
    free.set()
    for thread in threads:
        thread.join(30)
    assert failures == ["silent"] * 5
    assert len(world.calls) == 1
    outage.connect(engine)
    assert len(world.calls) == 2


def test_a_check_that_finds_the_engine_silent_spares_the_next_one(rig: Rig) -> None:
    _, free = rig.world.hold("look_all")
    rig.world.fail("check", BackendUnavailable("silent"))
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="silent"):
            rig.backend.check(rig.spec())
    assert rig.world.calls.count(("check", "")) == 1
    free.set()
    while rig.backend.state() != "ok":
        rig.marked()
    rig.backend.check(rig.spec())


# --- creating -----------------------------------------------------------------------------


def test_a_create_that_is_never_answered_shows_why_and_ends(make_rig: MakeRig) -> None:
    rig = make_rig(pending_timeout_s=0.05)
    job = rig.job()
    rig.world.fail("create", *[NO_ANSWER] * 10_000)
    rig.backend.submit(job)
    rig.recorder.wait(job, JobState.FAILED)
    assert job.reason == "not_created"
    assert "message too large" in job.message
    assert ("remove", job.name) in rig.world.calls


def test_a_create_without_answer_says_what_is_wrong(rig: Rig) -> None:
    job = rig.job()
    rig.world.fail("create", *[NO_ANSWER] * 3)
    rig.backend.submit(job)
    rig.recorder.wait(job, JobState.QUEUED)
    assert "message too large" in rig.recorder.seen[0].message
    rig.recorder.wait_handle(job)
    assert (job.state, job.reason, job.message) == (JobState.QUEUED, "", "")


def test_a_create_that_was_done_unseen_is_not_given_up(make_rig: MakeRig) -> None:
    rig = make_rig(pending_timeout_s=0.0)
    job = rig.job()
    rig.world.fail("create", *[NO_ANSWER] * 10_000)
    rig.world.after_fault["create"] = lambda: None
    rig.backend.submit(job)
    rig.recorder.wait_handle(job)
    assert job.state is JobState.QUEUED


def test_nobody_waits_long_for_what_is_created_slowly(make_rig: MakeRig) -> None:
    rig = make_rig(timing=msgspec.structs.replace(FAST, create_s=0.0))
    rig.backend._engine.creates_slowly = True
    came, free = rig.world.hold("create")
    job, refused = rig.job(), rig.job()
    rig.backend.submit(job)
    assert came.wait(30)
    assert job.state is JobState.NEW
    free.set()
    rig.recorder.wait_handle(job)
    came, free = rig.world.hold("create")
    rig.world.fail("create", SubmitFailed("the manager failed"))
    rig.backend.submit(refused)
    free.set()
    rig.recorder.wait(refused, JobState.FAILED)
    assert (refused.reason, refused.message) == ("rejected", "the manager failed")


def test_what_is_created_slowly_is_waited_for_a_while(rig: Rig) -> None:
    rig.backend._engine.creates_slowly = True
    job, refused = rig.job(), rig.job()
    rig.backend.submit(job)
    assert job.name in rig.world.things
    rig.world.fail("create", JobConflict("the name is taken"))
    with pytest.raises(JobConflict):
        rig.backend.submit(refused)
    assert refused.state is JobState.NEW
    rig.world.fail("create", NO_ANSWER)
    unsure = rig.job()
    rig.backend.submit(unsure)
    rig.recorder.wait_handle(unsure)


# --- ending -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("oops"), SubmitFailed("the engine refused")])
def test_an_end_that_always_fails_ends_nevertheless(make_rig: MakeRig, error: Exception) -> None:
    rig = make_rig(timing=msgspec.structs.replace(FAST, again_s=0.001, again_max_s=0.001))
    job = rig.running()
    rig.world.fail("collect", *[error] * 100)
    rig.world.end(job.name, 3)
    rig.recorder.wait(job, JobState.FAILED)
    assert (job.exit_code, job.message.startswith("ended with code 3; its output")) == (3, True)
    assert rig.world.calls.count(("collect", job.name)) >= MAX_FAULTS
