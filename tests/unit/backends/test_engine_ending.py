"""The end of a container job: its output, cancels, and what is given up."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest
from engine_harness import Rig

from pman.backends._engine.ending import MAX_DISK_TRIES, MAX_READ_TRIES
from pman.backends._engine.port import Phase, Sink, View
from pman.backends._engine.table import STOP_THREADS
from pman.backends._engine.wish import Wish
from pman.errors import BackendUnavailable, RequestError
from pman.job.record import Job
from pman.job.state import JobState

MakeRig = Callable[..., Rig]

AWAY = BackendUnavailable("no answer")
FULL = OSError(errno.ENOSPC, "No space left on device")


def printing(rig: Rig, raw: bytes = b"first\nsecond\n") -> Job:
    """Return a job that runs and has printed, in two pieces."""
    job = rig.running()
    half = len(raw) // 2
    rig.thing(job).output += [(0, "stdout", raw[:half]), (0, "stdout", raw[half:])]
    return job


# --- the output ---------------------------------------------------------------------------


def test_the_end_is_reported_once_the_output_is_there(rig: Rig) -> None:
    job = printing(rig)
    came, free = rig.world.hold("collect")
    rig.world.end(job.name)
    assert came.wait(30)
    assert job.state is JobState.RUNNING
    free.set()
    rig.recorder.wait(job, JobState.COMPLETED)
    assert rig.text(job) == "first\nsecond\n"


def test_output_that_broke_off_is_collected_again(rig: Rig) -> None:
    job = printing(rig)
    rig.world.fail("collect", AWAY, AWAY)
    rig.world.end(job.name)
    rig.recorder.wait(job, JobState.COMPLETED)
    assert rig.text(job) == "first\nsecond\n"
    assert rig.world.calls.count(("collect", job.name)) == 3
    assert [path.name for path in rig.output.folder(job.name).iterdir()] == ["0.stdout"]


def test_an_engine_that_never_gives_the_output_does_not_keep_the_job(rig: Rig) -> None:
    job = printing(rig)
    rig.world.fail("collect", *[AWAY] * MAX_READ_TRIES)
    rig.world.end(job.name, 3)
    rig.recorder.wait(job, JobState.FAILED)
    assert job.exit_code == 3
    assert "could not be read: no answer" in job.message


def test_a_full_disk_is_tried_again(rig: Rig) -> None:
    job = printing(rig)
    rig.world.fail("collect", FULL)
    rig.world.end(job.name)
    rig.recorder.wait(job, JobState.COMPLETED)
    assert rig.text(job) == "first\nsecond\n"


def test_a_disk_that_stays_full_does_not_keep_the_job(rig: Rig) -> None:
    job = printing(rig)
    rig.world.fail("collect", *[FULL] * MAX_DISK_TRIES)
    rig.world.end(job.name)
    rig.recorder.wait(job, JobState.COMPLETED)
    assert job.message == "its output could not be kept: No space left on device"


def test_an_object_that_goes_while_it_is_collected(rig: Rig) -> None:
    job = printing(rig)
    came, free = rig.world.hold("collect")
    rig.world.fail("collect", AWAY)
    rig.world.end(job.name, 2)
    assert came.wait(30)
    rig.world.drop(job.name)
    free.set()
    rig.recorder.wait(job, JobState.FAILED)
    assert job.exit_code == 2
    assert job.message == "ended with code 2; the thing was removed before its output was read"


def test_a_fault_of_an_engine_class_does_not_keep_the_job(rig: Rig) -> None:
    job = printing(rig)
    rig.world.fail("collect", KeyError("oops"))
    rig.world.end(job.name)
    rig.recorder.wait(job, JobState.COMPLETED)


# --- cancel -------------------------------------------------------------------------------


@pytest.mark.parametrize("writes_at_stop", [False, True])
def test_cancel_keeps_the_output(rig: Rig, writes_at_stop: bool) -> None:
    rig.world.writes_at_stop = writes_at_stop
    job = printing(rig)
    rig.backend.cancel(job, 1.0)
    rig.recorder.wait(job)
    assert (job.state, job.reason, job.signal) == (JobState.CANCELED, "canceled", 15)
    assert rig.text(job) == "first\nsecond\n"
    assert [worker.returncode for worker in job.workers] == [-15]
    rig.backend.settled(job)
    rig.wait_removed(job)


def test_cancel_is_tried_until_the_engine_does_it(rig: Rig) -> None:
    job = printing(rig)
    rig.world.fail("stop", AWAY, AWAY)
    rig.backend.cancel(job, 1.0)
    rig.recorder.wait(job, JobState.CANCELED)
    assert rig.world.calls.count(("stop", job.name)) == 3


def test_cancel_that_was_carried_out_unanswered_is_a_cancel(rig: Rig) -> None:
    job = printing(rig)
    came, free = rig.world.hold("stop")
    rig.world.fail("stop", AWAY)
    rig.backend.cancel(job, 1.0)
    assert came.wait(30)
    rig.world.end(job.name, -15)
    free.set()
    rig.recorder.wait(job, JobState.CANCELED)
    assert job.signal == 15


def test_a_further_cancel_counts_while_the_first_goes_on(rig: Rig) -> None:
    """The earlier deadline, and the newer signal."""
    rig.world.is_deaf = True
    job = printing(rig)
    rig.backend.cancel(job, 3600.0)
    rig.world.wait_call("stop", job.name)
    rig.backend.cancel(job, 7200.0, 2)
    rig.world.wait(lambda: rig.world.signals[job.name] == 2)
    assert not job.state.is_final
    rig.backend.cancel(job, 0.0, 9)
    rig.recorder.wait(job)
    assert (job.state, job.reason) == (JobState.CANCELED, "canceled")
    assert rig.world.signals[job.name] == 9
    assert rig.world.calls.count(("stop", job.name)) == 1


def test_a_further_cancel_counts_before_the_first_reaches_the_engine(rig: Rig) -> None:
    rig.world.is_deaf = True
    came, free = rig.world.hold("stop")
    job = rig.running()
    rig.backend.cancel(job, 3600.0)
    assert came.wait(30)
    rig.backend.cancel(job, 0.0)
    rig.marked()
    free.set()
    rig.recorder.wait(job, JobState.CANCELED)


def test_a_further_cancel_counts_for_a_job_that_is_not_known_yet(rig: Rig) -> None:
    rig.world.is_deaf = True
    job = rig.running()
    rig.backend.close()
    backend = rig.opened()
    backend.cancel(job, 3600.0)
    backend.cancel(job, 0.0)
    backend.reconcile([job])
    rig.recorder.wait(job, JobState.CANCELED)


def test_cancel_of_a_job_that_has_ended_changes_nothing(rig: Rig) -> None:
    job = printing(rig)
    came, free = rig.world.hold("collect")
    rig.world.end(job.name, 3)
    assert came.wait(30)
    rig.backend.cancel(job, 1.0)
    free.set()
    rig.recorder.wait(job)
    assert (job.state, job.exit_code) == (JobState.FAILED, 3)
    rig.backend.cancel(job, 1.0)


def test_cancel_that_comes_after_the_end_unseen_changes_nothing(rig: Rig) -> None:
    job = printing(rig)
    rig.world.end(job.name, 3, is_told=False)
    rig.backend.cancel(job, 1.0)
    rig.recorder.wait(job)
    assert (job.state, job.exit_code) == (JobState.FAILED, 3)


def test_cancel_of_a_job_that_is_gone(rig: Rig) -> None:
    job = rig.running()
    with rig.world.lock:  # until it is canceled, lest somebody look and find it lost
        del rig.world.things[job.name]
        rig.backend.cancel(job, 1.0)
    rig.recorder.wait(job, JobState.CANCELED)


def test_cancel_of_a_job_that_waits_for_its_folder(rig: Rig) -> None:
    job = rig.job(share_dir=str(rig.folder / "share"))
    rig.backend.submit(job)
    rig.recorder.wait_reason(job, "share_missing")
    rig.backend.cancel(job, 1.0)
    rig.recorder.wait(job, JobState.CANCELED)
    (rig.folder / "share").mkdir()
    rig.backend.settled(job)
    mark = rig.marked()
    assert list(rig.world.things) == list(rig.backend._jobs._entries) == [mark.name]


def submit_held(rig: Rig, job: Job) -> tuple[threading.Thread, threading.Event, list[Exception]]:
    """Submit in another thread, up to the middle of `create`."""
    came, free = rig.world.hold("create")
    errors: list[Exception] = []

    def submit() -> None:
        try:
            rig.backend.submit(job)
        except BackendUnavailable as exc:
            errors.append(exc)

    thread = threading.Thread(target=submit)
    thread.start()
    assert came.wait(30)
    return thread, free, errors


def test_cancel_while_it_is_created(rig: Rig) -> None:
    job = rig.job()
    thread, free, errors = submit_held(rig, job)
    rig.backend.cancel(job, 1.0)
    free.set()
    thread.join()
    rig.recorder.wait(job, JobState.CANCELED)
    assert rig.world.calls.count(("stop", job.name)) == 1
    assert not errors


def test_cancel_while_it_is_refused(rig: Rig) -> None:
    job = rig.job()
    rig.world.fail("create", BackendUnavailable("no"))
    thread, free, errors = submit_held(rig, job)
    rig.backend.cancel(job, 1.0)
    free.set()
    thread.join()
    rig.recorder.wait(job, JobState.CANCELED)
    assert not errors


def test_cancel_before_submit(rig: Rig) -> None:
    job = rig.job()
    rig.backend.cancel(job, 1.0)
    rig.backend.cancel(job, 1.0)
    rig.recorder.wait(job, JobState.CANCELED)
    rig.backend.submit(job)
    rig.marked()
    assert not rig.world.creates[job.name]
    assert not rig.backend._jobs._withdrawn


# --- that can't be started ----------------------------------------------------------------


def stuck(rig: Rig, reason: str = "image_pull_failed") -> Job:
    """Return a job that shows a reason why it does not start."""
    job = rig.submitted()
    rig.world.change(job.name, reason=reason, message="no such image")
    rig.recorder.wait_reason(job, reason)
    assert (job.state, job.message) == (JobState.QUEUED, "no such image")
    return job


def test_a_job_that_never_starts_is_given_up(make_rig: MakeRig) -> None:
    rig = make_rig(pending_timeout_s=0.05)
    job = stuck(rig)
    rig.thing(job).output.append((0, "stderr", b"of a helper\n"))
    rig.recorder.wait(job, JobState.FAILED)
    assert (job.reason, job.message) == ("image_pull_failed", "no such image")
    assert ("stop", job.name) in rig.world.calls
    assert rig.text(job, "stderr") == "of a helper\n"
    rig.backend.settled(job)
    rig.wait_removed(job)


def test_a_job_may_say_itself_how_long_it_waits(rig: Rig) -> None:
    other, job = rig.submitted(), rig.submitted(pendingTimeout=0.05)
    trouble = {"reason": "image_pull_failed", "message": "no such image"}
    rig.world.change(other.name, **trouble)
    rig.world.change(job.name, **trouble)
    rig.recorder.wait(job, JobState.FAILED)
    assert other.state is JobState.QUEUED


@pytest.mark.parametrize("is_adopted", [False, True])
def test_the_signal_of_a_cancel_reaches_the_engine(rig: Rig, *, is_adopted: bool) -> None:
    job = rig.running()
    if is_adopted:  # it comes before the new daemon was given the job
        rig.backend.close()
        rig.opened().cancel(job, 1.0, signal=2)
        rig.backend.reconcile([job])
    else:
        with pytest.raises(RequestError):
            rig.backend.check_signal(16)
        rig.backend.cancel(job, 1.0, signal=2)
    rig.recorder.wait(job, JobState.CANCELED)
    assert rig.world.signals[job.name] == 2


def test_who_has_long_to_end_holds_up_nobody(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = rig.engine.stop
    goes_on = threading.Event()

    def stop_slowly(view: View, wish: Wish, sink: Sink) -> bool:
        if wish.left_s() > 60:
            assert goes_on.wait(30)
        return stop(view, wish, sink)

    monkeypatch.setattr(rig.engine, "stop", stop_slowly)
    slow = [rig.running() for _ in range(STOP_THREADS + 1)]
    for job in slow:
        rig.backend.cancel(job, 3600.0)
    quick = rig.running()
    rig.backend.cancel(quick, 1.0)
    rig.recorder.wait(quick, JobState.CANCELED)
    goes_on.set()
    for job in slow:
        rig.recorder.wait(job, JobState.CANCELED)


def test_a_job_that_only_waits_is_not_given_up(make_rig: MakeRig) -> None:
    rig = make_rig(pending_timeout_s=0.02)
    waiting = rig.submitted()
    given_up = stuck(rig)
    rig.recorder.wait(given_up, JobState.FAILED)
    assert waiting.state is JobState.QUEUED


def test_a_job_that_cannot_start_is_tried_again(rig: Rig) -> None:
    rig.world.can_retry = True
    job = stuck(rig)
    rig.world.wait_call("retry", job.name, 3)
    rig.world.run(job.name)
    rig.recorder.wait(job, JobState.RUNNING)
    assert (job.reason, job.message) == ("", "")


def test_an_engine_that_tries_by_itself_is_told_once(rig: Rig) -> None:
    job = stuck(rig)
    rig.world.wait_call("retry", job.name)
    other = stuck(rig)
    rig.world.wait_call("retry", other.name)
    assert rig.world.calls.count(("retry", job.name)) == 1


def test_a_retry_that_fails_is_tried_again(rig: Rig) -> None:
    job = stuck(rig)
    rig.world.fail("retry", AWAY)
    rig.world.wait_call("retry", job.name, 2)


def test_a_job_that_is_canceled_while_it_is_given_up(rig: Rig) -> None:
    job = stuck(rig)
    view = rig.thing(job).view()
    jobs = rig.backend._jobs
    rig.world.change(job.name, phase=Phase.RUNNING, started_at=1.0, is_told=False)

    def both() -> None:
        jobs._finishing.give_up(jobs._entries[job.name], view)
        jobs.cancel(job, 0.0)

    rig.backend._mover.post(both)
    rig.recorder.wait(job, JobState.CANCELED)


def test_a_job_that_starts_at_the_last_moment_goes_on(rig: Rig) -> None:
    job = stuck(rig)
    view = rig.thing(job).view()
    jobs = rig.backend._jobs
    rig.world.change(
        job.name, phase=Phase.RUNNING, started_at=1.0, reason="", message="", is_told=False
    )
    rig.backend._mover.post(lambda: jobs._finishing.give_up(jobs._entries[job.name], view))
    rig.recorder.wait(job, JobState.RUNNING)
    rig.world.end(job.name)
    rig.recorder.wait(job, JobState.COMPLETED)
    assert ("stop", job.name) not in rig.world.calls


def test_cancel_of_a_job_that_can_not_start(rig: Rig) -> None:
    job = stuck(rig)
    rig.backend.cancel(job, 0.0)
    rig.recorder.wait(job, JobState.CANCELED)
