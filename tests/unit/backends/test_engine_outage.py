"""An engine that is away, does not answer, and comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import pytest
from daemon_process import wait_until
from engine_harness import FAST, Rig, reread
from fakes.engine import AWAY

from pman.backends._engine.port import Unanswered
from pman.errors import BackendUnavailable, JobConflict
from pman.job.state import JobState

MakeRig = Callable[..., Rig]

NO_ANSWER = Unanswered("no answer within 10 s")


def gone(rig: Rig) -> None:
    """Have the engine go away, and be noticed."""
    rig.world.go_away()
    rig.world.wait_call("connect", count=rig.world.calls.count(("connect", "")) + 2)


def test_an_engine_that_is_away_at_the_start(rig: Rig) -> None:
    rig.backend.close()
    rig.world.go_away()
    backend = rig.opened()
    backend.start  # noqa: B018  it has not raised
    with pytest.raises(BackendUnavailable, match=AWAY):
        backend.check(rig.spec())
    rig.world.come_back()
    count = rig.world.calls.count(("watch", ""))
    rig.world.wait_call("watch", count=count + 1)
    rig.submitted()


def test_the_answer_of_a_moment_ago_is_good_enough(rig: Rig) -> None:
    gone(rig)
    rig.world.calls.clear()
    with pytest.raises(BackendUnavailable, match=AWAY):
        rig.backend.check(rig.spec())
    assert ("check", "") not in rig.world.calls
    assert rig.backend.state() == AWAY
    assert rig.backend.outages == 1  # however often it was asked


def test_an_older_answer_is_asked_for_again(make_rig: MakeRig) -> None:
    slow = msgspec.structs.replace(FAST, fresh_s=0.0, connect_s=1000.0, connect_max_s=1000.0)
    rig = make_rig(timing=slow)
    rig.world.go_away()
    wait_until(lambda: rig.backend.state() != "ok", "the outage is noticed")
    with pytest.raises(BackendUnavailable, match=AWAY):
        rig.backend.check(rig.spec())
    rig.world.come_back()
    watches = rig.world.calls.count(("watch", ""))
    rig.backend.check(rig.spec())
    rig.world.wait_call("watch", count=watches + 1)


def test_jobs_keep_their_state_and_are_found_again(rig: Rig) -> None:
    running, ended, removed = rig.running(), rig.running(), rig.running()
    gone(rig)
    rig.world.end(ended.name, 5)
    rig.world.drop(removed.name)
    with pytest.raises(BackendUnavailable):
        rig.backend.cancel(running, 0.0)
    assert {job.state for job in (running, ended, removed)} == {JobState.RUNNING}
    rig.world.come_back()
    rig.recorder.wait(ended, JobState.FAILED)
    rig.recorder.wait(removed, JobState.LOST)
    assert running.state is JobState.RUNNING
    assert ended.exit_code == 5


def test_a_job_does_not_time_out_while_the_engine_is_away(make_rig: MakeRig) -> None:
    rig = make_rig(pending_timeout_s=0.05)
    job = rig.submitted()
    rig.world.change(job.name, reason="image_pull_failed")
    rig.recorder.wait_reason(job, "image_pull_failed")
    rig.world.go_away()
    rig.world.wait_call("connect", count=10)
    assert job.state is JobState.QUEUED
    rig.world.change(job.name, reason="")
    rig.world.come_back()
    rig.recorder.wait_reason(job, "")


def test_trouble_is_logged_when_it_begins_and_ends(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pman.backends._engine.outage")
    for _ in range(2):
        gone(rig)
        rig.world.wait_call("connect", count=rig.world.calls.count(("connect", "")) + 3)
        watches = rig.world.calls.count(("watch", ""))
        rig.world.come_back()
        rig.world.wait_call("watch", count=watches + 1)
        rig.marked()
    said = [record.levelname for record in caplog.records]
    assert said == ["WARNING", "INFO"] * 2
    assert AWAY in caplog.text
    assert rig.backend.state() == "ok"


@pytest.mark.parametrize("is_done", [False, True])
def test_a_create_without_answer_is_made_once(rig: Rig, is_done: bool) -> None:
    job = rig.job()
    rig.world.fail("create", NO_ANSWER, NO_ANSWER)
    if is_done:
        rig.world.after_fault["create"] = lambda: None
    rig.backend.submit(job)
    rig.recorder.wait_handle(job)
    assert job.state is JobState.QUEUED
    rig.world.run(job.name)
    rig.recorder.wait(job, JobState.RUNNING)
    assert rig.world.creates[job.name] == 1


def test_a_create_without_answer_is_found_by_its_label(rig: Rig) -> None:
    job = rig.job()
    rig.world.fail("create", *[NO_ANSWER] * 10_000)
    rig.world.after_fault["create"] = lambda: None
    rig.backend.submit(job)
    rig.world.event(None)
    rig.recorder.wait(job, JobState.QUEUED)


def test_a_create_without_answer_that_is_refused_in_the_end(rig: Rig) -> None:
    job = rig.job()
    rig.world.fail("create", NO_ANSWER, JobConflict("taken"))
    rig.backend.submit(job)
    rig.recorder.wait(job, JobState.FAILED)
    assert job.reason == "name_taken"


@pytest.mark.parametrize("is_done", [False, True])
def test_cancel_of_a_create_without_answer(rig: Rig, is_done: bool) -> None:
    job = rig.job()
    rig.world.fail("create", *[NO_ANSWER] * 10_000)
    if is_done:
        rig.world.after_fault["create"] = lambda: None
    rig.backend.submit(job)
    rig.backend.cancel(job, 0.0)
    rig.recorder.wait(job, JobState.CANCELED)
    assert rig.world.calls.count(("stop", job.name)) == int(is_done)


def test_a_look_that_fails_is_tried_again(rig: Rig) -> None:
    job = rig.running()
    rig.world.fail("look", *[BackendUnavailable("busy")] * 3)
    rig.world.end(job.name)
    rig.recorder.wait(job, JobState.COMPLETED)


def test_a_watch_that_breaks_is_begun_again(rig: Rig) -> None:
    rig.world.fail("watch", KeyError("oops"), BackendUnavailable("broken"))
    rig.world.go_away()
    rig.world.wait_call("connect", count=3)
    rig.world.come_back()
    rig.world.wait_call("watch", count=4)
    rig.running()


def test_remove_with_the_engine_away(rig: Rig) -> None:
    held, clean = rig.ended(), rig.ended()
    rig.backend.settled(clean)
    rig.wait_removed(clean)
    gone(rig)
    with pytest.raises(BackendUnavailable, match=AWAY):
        rig.backend.remove(held)
    rig.backend.remove(clean)


def test_close_does_not_wait_for_a_dead_engine(make_rig: MakeRig) -> None:
    rig = make_rig(timing=msgspec.structs.replace(FAST, close_s=0.05))
    job = rig.running()
    came, _ = rig.world.hold("collect")
    rig.world.end(job.name)
    assert came.wait(30)
    rig.backend.close()
    second = rig.opened()
    del rig.world.gates["collect"]
    second.reconcile([reread(job)])
    rig.recorder.wait(job, JobState.COMPLETED)
