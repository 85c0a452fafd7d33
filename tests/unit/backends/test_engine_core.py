"""`EngineBackend`: what is taken, what is refused, and how a job is followed to its end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from engine_harness import Rig
from fakes.engine import AWAY
from jobdb_builders import make_job

from pman.backends._engine.port import Phase
from pman.errors import BackendUnavailable, JobConflict, RequestError, SubmitFailed
from pman.job.record import Job, Worker
from pman.job.spec import spec_from_meta
from pman.job.state import JobState

MakeRig = Callable[..., Rig]


def states(rig: Rig, job: Job) -> list[JobState]:
    return rig.recorder.states[job.name]


# --- the way of a job ---------------------------------------------------------------------


def test_each_state_is_reported_with_what_is_known(rig: Rig) -> None:
    job = rig.submitted()
    assert job.handle == rig.thing(job).handle
    rig.world.run(job.name)
    rig.recorder.wait(job, JobState.RUNNING)
    assert job.started_at == rig.thing(job).started_at
    assert [worker.state for worker in job.workers] == ["running"]
    rig.thing(job).output += [(0, "stdout", b"out\n"), (0, "stderr", b"err\n")]
    rig.world.end(job.name, 7)
    rig.recorder.wait(job)
    assert (job.state, job.exit_code, job.reason) == (JobState.FAILED, 7, "error")
    assert states(rig, job) == [JobState.QUEUED, JobState.RUNNING, JobState.FAILED]
    assert (rig.text(job), rig.text(job, "stderr")) == ("out\n", "err\n")


def test_containers_are_counted_before_there_are_any(rig: Rig) -> None:
    meta = {"container": {"target": {"image": "x"}}, "number_of_workers": "3"}
    assert rig.backend.part_count(make_job(meta=json.dumps(meta))) == 3
    assert rig.backend.part_count(make_job(meta=json.dumps(meta | {"env": 5}))) == 1
    assert rig.backend.part_count(make_job(workers=[Worker("a"), Worker("b")])) == 2


def test_the_same_is_reported_once(rig: Rig) -> None:
    job = rig.running()
    count = len(rig.recorder.seen)
    for _ in range(3):
        rig.world.event(job.name)
        rig.world.event(None)
    rig.marked()
    assert [seen.name for seen in rig.recorder.seen[count:]].count(job.name) == 0


def test_a_signal_is_reported(rig: Rig) -> None:
    job = rig.ended(-9)
    assert (job.state, job.exit_code, job.signal) == (JobState.FAILED, None, 9)


def test_the_object_stays_until_the_end_is_durable(rig: Rig) -> None:
    job = rig.ended()
    rig.marked()
    assert job.name in rig.world.things
    rig.backend.settled(job)
    rig.wait_removed(job)


def test_the_object_stays_as_long_as_wanted(make_rig: MakeRig) -> None:
    rig = make_rig(keep_finished_s=1000.0)
    job = rig.ended()
    rig.backend.settled(job)
    rig.marked()
    assert job.name in rig.world.things
    rig.backend.remove(job)
    assert job.name not in rig.world.things


def test_a_removal_is_tried_until_it_works(rig: Rig) -> None:
    job = rig.ended()
    rig.world.fail("remove", BackendUnavailable("no"), BackendUnavailable("no"))
    rig.backend.settled(job)
    rig.wait_removed(job)
    assert rig.world.calls.count(("remove", job.name)) == 3


def test_nothing_is_kept_of_jobs_that_are_gone(rig: Rig) -> None:
    for _ in range(5):
        job = rig.ended()
        rig.backend.settled(job)
        rig.wait_removed(job)
    mark = rig.marked()
    assert list(rig.backend._jobs._entries) == [mark.name]


def test_submitted_twice_is_created_once(rig: Rig) -> None:
    job = rig.submitted()
    rig.backend.submit(job)
    rig.world.end(job.name)
    rig.recorder.wait(job, JobState.COMPLETED)
    rig.backend.submit(job)
    rig.marked()
    assert rig.world.creates[job.name] == 1


def test_a_job_that_somebody_else_removes_is_lost(rig: Rig) -> None:
    job = rig.running()
    rig.world.drop(job.name)
    rig.recorder.wait(job, JobState.LOST)
    assert job.reason == "lost"
    assert "thing" in job.message


def test_a_look_at_all_that_shows_too_little_loses_no_job(rig: Rig) -> None:
    """Only the engine's own word that it is gone counts, and it must be asked for that very job."""
    job = rig.submitted()
    thing = rig.world.things.pop(job.name)
    came, free = rig.world.hold("look")
    rig.world.event(None)
    assert came.wait(30)
    rig.world.things[job.name] = thing
    free.set()
    rig.marked()
    assert job.state is JobState.QUEUED


def test_a_look_that_began_before_a_job_was_created_does_not_lose_it(rig: Rig) -> None:
    came, free = rig.world.hold("look_all.answer")
    rig.world.event(None)
    assert came.wait(30)
    job = rig.submitted()
    free.set()
    rig.world.run(job.name)
    rig.recorder.wait(job, JobState.RUNNING)


def test_a_change_is_found_without_a_further_event(rig: Rig) -> None:
    """An event may come before the engine itself knows what it leads to."""
    job = rig.running()
    rig.world.event(job.name, is_hot=True)
    count = rig.world.calls.count(("look", job.name))
    rig.world.wait_call("look", job.name, count + 2)
    rig.world.end(job.name, is_told=False)
    rig.recorder.wait(job, JobState.COMPLETED)


def test_a_phase_does_not_go_back(rig: Rig) -> None:
    job = rig.running()
    rig.world.change(job.name, phase=Phase.WAITING, reason="unschedulable")
    rig.marked()
    assert (job.state, job.reason) == (JobState.RUNNING, "")


def test_many_changes_cost_few_looks(rig: Rig) -> None:
    jobs = [rig.submitted() for _ in range(50)]
    came, free = rig.world.hold("look_all.answer")
    rig.world.event(None)
    assert came.wait(30)
    rig.world.calls.clear()
    for job in jobs:
        rig.world.end(job.name)
    free.set()
    rig.recorder.wait_all(jobs)
    looks = [method for method, _ in rig.world.calls if method.startswith("look")]
    assert len(looks) < len(jobs) / 5


# --- refused ------------------------------------------------------------------------------


def test_check_asks_the_order_and_the_engine(rig: Rig) -> None:
    rig.backend.check(rig.spec())
    with pytest.raises(RequestError, match="cmd is"):
        rig.backend.check(rig.spec("echo 'open"))
    with pytest.raises(RequestError, match=r"container\.target\.image"):
        rig.backend.check(spec_from_meta({"cmd": "true", "auid": "", "jid": ""}))
    with pytest.raises(RequestError, match="gpu_limit"):
        rig.backend.check(rig.spec(gpu_limit=2))


@pytest.mark.parametrize(
    "error",
    [
        JobConflict("the name is taken"),
        SubmitFailed("no such thing"),
        RequestError("not so"),
        BackendUnavailable(AWAY),
    ],
)
def test_a_job_that_is_refused_is_forgotten(rig: Rig, error: Exception) -> None:
    job = rig.job()
    rig.world.fail("create", error)
    with pytest.raises(type(error)):
        rig.backend.submit(job)
    assert job.state is JobState.NEW
    mark = rig.marked()
    assert list(rig.backend._jobs._entries) == [mark.name]


def test_a_fault_of_an_engine_class_is_a_refusal(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.world.fail("create", KeyError("oops"))
    with pytest.raises(SubmitFailed, match="oops"):
        rig.backend.submit(rig.job())
    assert "Traceback" in caplog.text


# --- names --------------------------------------------------------------------------------


def test_a_name_is_free_again_once_the_end_is_durable(rig: Rig) -> None:
    first = rig.running(service_name="same")
    with pytest.raises(JobConflict):
        rig.backend.submit(rig.job(service_name="same"))
    rig.world.end(first.name)
    rig.recorder.wait(first)
    rig.world.fail("remove", *[BackendUnavailable("no")] * 1000)
    settle = threading.Timer(0.02, rig.backend.settled, (first,))
    settle.start()
    rig.submitted(service_name="same")  # waits for it
    assert first.name not in rig.world.things
    settle.join()


def test_a_name_stays_taken_while_the_end_is_not_durable(rig: Rig) -> None:
    rig.ended(service_name="same")
    with pytest.raises(JobConflict):
        rig.backend.submit(rig.job(service_name="same"))


def test_a_name_of_an_unknown_job_is_not_free_before_the_jobs_are_known(rig: Rig) -> None:
    assert not rig.engine.may_replace("unknown")
    rig.backend.reconcile([])
    rig.marked()
    assert rig.engine.may_replace("unknown")


# --- the share ----------------------------------------------------------------------------


def test_a_job_waits_for_its_folder(rig: Rig) -> None:
    folder = rig.folder / "share"
    job = rig.job(share_dir=f"{folder}/")
    rig.backend.submit(job)
    rig.recorder.wait(job, JobState.QUEUED)
    assert (job.reason, job.handle) == ("share_missing", None)
    assert str(folder) in job.message
    assert job.name not in rig.world.things
    folder.mkdir()
    rig.world.wait(lambda: job.name in rig.world.things)
    rig.world.run(job.name)
    rig.recorder.wait(job, JobState.RUNNING)
    assert (job.reason, job.message) == ("", "")
    assert rig.thing(job).share_path == str(folder)


def test_a_folder_that_is_there_costs_no_wait(rig: Rig) -> None:
    (rig.folder / "share").mkdir()
    job = rig.job(share_dir=str(rig.folder / "share"))
    rig.backend.submit(job)
    assert job.name in rig.world.things


def test_a_job_may_say_itself_how_long_it_waits(rig: Rig) -> None:
    job = rig.job(share_dir=str(rig.folder / "never"), pendingTimeout=0.05)
    rig.backend.submit(job)
    rig.recorder.wait(job, JobState.FAILED)
    assert job.message.endswith("within 0.05 s (pendingTimeout)")


def test_a_folder_that_never_comes_ends_the_job(make_rig: MakeRig) -> None:
    rig = make_rig(pending_timeout_s=0.05)
    job = rig.job(share_dir=str(rig.folder / "never"))
    rig.backend.submit(job)
    rig.recorder.wait(job, JobState.FAILED)
    assert job.reason == "share_missing"
    assert "never" in job.message
    assert not rig.world.creates


@pytest.mark.parametrize(("base", "path"), [("/base", "/base/share"), (None, "{}/share")])
def test_the_engine_may_have_the_folder_elsewhere(
    make_rig: MakeRig, base: str | None, path: str
) -> None:
    rig = make_rig(store_base=base)
    (rig.folder / "share").mkdir()
    job = rig.job(share_dir=str(rig.folder / "share"))
    rig.backend.submit(job)
    assert rig.thing(job).share_path == path.format(rig.folder)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(JobConflict("taken"), "name_taken"), (SubmitFailed("no"), "rejected")],
)
def test_a_refusal_after_the_wait_ends_the_job(rig: Rig, error: Exception, reason: str) -> None:
    rig.world.fail("create", error)
    job = rig.job(share_dir=str(rig.folder / "share"))
    rig.backend.submit(job)
    (rig.folder / "share").mkdir()
    rig.recorder.wait(job, JobState.FAILED)
    assert (job.reason, job.message) == (reason, str(error))


def test_a_job_whose_folder_comes_while_the_engine_is_away(rig: Rig) -> None:
    job = rig.job(share_dir=str(rig.folder / "share"))
    rig.backend.submit(job)
    rig.recorder.wait_reason(job, "share_missing")
    rig.world.go_away()
    rig.world.wait_call("connect", count=2)
    (rig.folder / "share").mkdir()
    rig.world.wait_call("connect", count=5)
    assert job.state is JobState.QUEUED
    rig.world.come_back()
    rig.world.wait(lambda: job.name in rig.world.things)


# --- the output ---------------------------------------------------------------------------


def test_logs_of_a_final_job_come_from_its_files(rig: Rig) -> None:
    job = rig.running(number_of_workers=2)
    rig.thing(job).output += [
        (1, "stdout", b"c\n"),
        (0, "stderr", b"b\n"),
        (0, "stdout", b"a\n"),
    ]
    rig.world.end(job.name)
    rig.recorder.wait(job)
    assert rig.backend.logs(job) == ["a\nb\nc\n"]


def test_logs_of_a_running_job_come_from_what_was_seen(rig: Rig) -> None:
    job = rig.running()
    rig.thing(job).output.append((0, "stdout", b"so far\n"))
    assert rig.backend.logs(job) == [""]
    rig.world.wait_call("peek", job.name)
    rig.marked()
    assert rig.backend.logs(job) == ["so far\n"]


def test_remove_leaves_nothing(rig: Rig) -> None:
    job = rig.running()
    rig.thing(job).output.append((0, "stdout", b"out\n"))
    rig.world.end(job.name)
    rig.recorder.wait(job)
    assert rig.output.folder(job.name).exists()
    rig.backend.remove(job)
    assert not rig.output.folder(job.name).exists()
    assert job.name not in rig.world.things


def test_a_closed_backend_reports_nothing_and_takes_nothing(rig: Rig) -> None:
    job = rig.running()
    rig.backend.close()
    rig.world.end(job.name)
    rig.backend.submit(rig.job())
    rig.backend.cancel(job, 0.0)
    rig.backend.close()
    assert job.state is JobState.RUNNING
    assert list(rig.world.things) == [job.name]


# --- what would be made -------------------------------------------------------------------


def test_what_would_be_made_is_told_and_not_made(rig: Rig) -> None:
    told = rig.backend.describe(rig.spec("echo hi", share_dir="/data/x"))["thing"]
    assert (told["order"].command, told["share_path"]) == (["echo", "hi"], "/data/x")
    assert told["order"].job_name
    assert not rig.world.things
    rig.world.fail("describe", JobConflict("taken"))
    with pytest.raises(JobConflict):
        rig.backend.describe(rig.spec())
