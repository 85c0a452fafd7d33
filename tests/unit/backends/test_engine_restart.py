"""A new daemon over the same engine: all kinds of jobs, and what belongs to none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_harness import Rig, reread

from pman.backends._engine.port import Phase
from pman.errors import BackendUnavailable
from pman.job.record import Job
from pman.job.state import JobState

MakeRig = Callable[..., Rig]


def restarted(rig: Rig, *jobs: Job, is_away: bool = False) -> None:
    """Close the backend, open another, and tell it of `jobs`."""
    rig.backend.close()
    if is_away:
        rig.world.go_away()
    rig.opened().reconcile([reread(job) for job in jobs])


@pytest.mark.parametrize("is_away", [False, True])
def test_each_kind_of_job_is_taken_over(rig: Rig, is_away: bool) -> None:
    (rig.folder / "there").mkdir()
    running, failed, gone = rig.running(), rig.running(), rig.running()
    waiting = rig.submitted()
    fresh = rig.job()
    share = rig.job(share_dir=str(rig.folder / "share"))
    placed = rig.job(share_dir=str(rig.folder / "there"))
    rig.backend.submit(share)
    rig.recorder.wait_reason(share, "share_missing")
    rig.backend.close()
    rig.thing(failed).output.append((0, "stdout", b"whole\n"))
    rig.world.end(failed.name, 9)
    rig.world.drop(gone.name)
    restarted(rig, running, failed, gone, waiting, fresh, share, placed, is_away=is_away)
    if is_away:
        rig.world.wait_call("connect", count=4)
        assert {job.state for job in (running, failed, gone)} == {JobState.RUNNING}
        assert fresh.state is JobState.NEW
        rig.world.come_back()
    rig.recorder.wait(failed, JobState.FAILED)
    assert failed.exit_code == 9
    assert rig.text(failed) == "whole\n"
    rig.recorder.wait(gone, JobState.LOST)
    rig.recorder.wait(fresh, JobState.QUEUED)
    rig.recorder.wait(placed, JobState.QUEUED)
    assert rig.thing(placed).share_path == str(rig.folder / "there")
    assert share.name not in rig.world.things
    (rig.folder / "share").mkdir()
    rig.world.wait(lambda: share.name in rig.world.things)
    for job in (running, waiting):
        rig.world.end(job.name)
        rig.recorder.wait(job, JobState.COMPLETED)
    assert set(rig.world.creates.values()) == {1}


def test_a_job_that_was_created_unseen_is_followed(rig: Rig) -> None:
    """The daemon died between the create and the record of it."""
    job = rig.submitted()
    rig.backend.close()
    job.state, job.handle = JobState.NEW, None
    restarted(rig, job)
    rig.recorder.wait(job, JobState.QUEUED)
    assert rig.world.creates[job.name] == 1


def test_a_running_job_that_shows_as_waiting_stays_running(rig: Rig) -> None:
    job = rig.running()
    rig.backend.close()
    rig.world.change(job.name, phase=Phase.WAITING, reason="unschedulable")
    restarted(rig, job)
    rig.recorder.wait_reason(job, "unschedulable")
    assert job.state is JobState.RUNNING


def test_what_was_canceled_before_it_is_taken_over(rig: Rig) -> None:
    running, fresh = rig.running(), rig.job()
    rig.backend.close()
    backend = rig.opened()
    backend.cancel(running, 0.0)
    backend.cancel(fresh, 0.0)
    backend.reconcile([reread(running), fresh])
    rig.recorder.wait(running, JobState.CANCELED)
    rig.recorder.wait(fresh, JobState.CANCELED)
    rig.marked()
    assert not rig.world.creates[fresh.name]


def test_what_is_canceled_while_the_engine_has_not_been_asked(rig: Rig) -> None:
    running, fresh = rig.running(), rig.job()
    rig.backend.close()
    came, free = rig.world.hold("look_all")
    backend = rig.opened()
    backend.reconcile([reread(running), reread(fresh)])
    assert came.wait(30)
    backend.cancel(running, 0.0)
    backend.cancel(fresh, 0.0)
    free.set()
    rig.recorder.wait(running, JobState.CANCELED)
    rig.recorder.wait(fresh, JobState.CANCELED)
    assert not rig.world.creates[fresh.name]


def test_an_order_that_is_not_understood_any_more(rig: Rig) -> None:
    job = rig.job()
    job.meta = '{"cmd": "true", "container": {}}'
    restarted(rig, job)
    rig.recorder.wait(job, JobState.FAILED)
    assert job.reason == "rejected"


def test_the_time_that_a_job_may_wait_goes_on(make_rig: MakeRig) -> None:
    rig = make_rig(pending_timeout_s=1000.0)
    job = rig.submitted()
    rig.world.change(job.name, reason="image_pull_failed")
    rig.recorder.wait_reason(job, "image_pull_failed")
    job.accepted_at -= 1000.0
    restarted(rig, job)
    rig.recorder.wait(job, JobState.FAILED)
    assert job.reason == "image_pull_failed"


# --- orphans ------------------------------------------------------------------------------


def test_an_object_without_a_job_is_removed(make_rig: MakeRig) -> None:
    rig = make_rig(orphan_grace_s=0.02)
    orphan, kept = rig.running(), rig.running()
    rig.world.fail("remove", BackendUnavailable("no"))
    restarted(rig, kept)
    rig.wait_removed(orphan)
    rig.marked()
    assert kept.name in rig.world.things


def test_an_object_without_a_job_stays_for_a_while(rig: Rig) -> None:
    orphan = rig.running()
    restarted(rig)
    rig.world.wait_call("look_all", count=2)
    rig.marked()
    assert orphan.name in rig.world.things


def test_no_object_is_judged_before_the_jobs_are_known(make_rig: MakeRig) -> None:
    rig = make_rig(orphan_grace_s=0.0)
    job = rig.running()
    rig.backend.close()
    rig.opened()
    rig.world.event(None)
    rig.marked()
    assert job.name in rig.world.things


def test_a_job_that_is_being_submitted_is_no_orphan(make_rig: MakeRig) -> None:
    rig = make_rig(orphan_grace_s=0.0)
    rig.backend.reconcile([])
    jobs = [rig.submitted() for _ in range(5)]
    rig.world.event(None)
    jobs.append(rig.marked())
    assert set(rig.world.things) == {job.name for job in jobs}


def test_the_object_of_a_final_job_goes_with_the_orphans(make_rig: MakeRig) -> None:
    rig = make_rig(orphan_grace_s=0.0)
    job = rig.ended()
    restarted(rig)
    rig.wait_removed(job)
    rig.backend.settled(job)
    rig.backend.remove(job)
