"""What `Backend` promises, held by every backend alike."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from daemon_process import wait_until
from kits import Kit

from pman.errors import RequestError
from pman.job.record import Job
from pman.job.state import JobState
from pman.output import LIVE_SUFFIX


def run(kit: Kit, *commands: str) -> list[Job]:
    """Submit commands to a fresh backend object, without waiting for their end."""
    backend = kit.opened()
    jobs = [kit.job(cmd) for cmd in commands]
    kit.recorder.add(*jobs)
    for job in jobs:
        backend.submit(job)
    return jobs


def one_of(kept: list[str]) -> list[str] | None:
    """Return what is kept once it is of one job only; never less."""
    assert kept
    return kept if len(kept) == 1 else None


def test_a_job_that_succeeds(kit: Kit) -> None:
    (job,) = run(kit, kit.ok)
    kit.recorder.wait(job)
    assert (job.state, job.reason, job.exit_code, job.signal) == (JobState.COMPLETED, "ok", 0, None)
    assert job.started_at is not None
    assert job.ended_at is not None
    assert job.started_at <= job.ended_at
    assert job.handle is not None


def test_a_job_that_fails_tells_its_code(kit: Kit) -> None:
    (job,) = run(kit, kit.fails)
    kit.recorder.wait(job)
    assert (job.state, job.reason, job.exit_code, job.signal) == (JobState.FAILED, "error", 7, None)
    assert "7" in job.message


def test_a_job_that_is_killed_tells_the_signal(kit: Kit) -> None:
    (job,) = run(kit, kit.killed)
    kit.recorder.wait(job)
    assert (job.state, job.exit_code, job.signal) == (JobState.FAILED, kit.killed_code, 9)


def test_streams_are_kept_apart(kit: Kit) -> None:
    (job,) = run(kit, kit.prints)
    kit.recorder.wait(job, JobState.COMPLETED)
    assert kit.printed(job) == kit.streams


def test_what_a_running_job_prints_can_be_followed(kit: Kit) -> None:
    job = kit.job(kit.talks())
    kit.recorder.add(job)
    backend = kit.opened()
    backend.submit(job)
    kit.recorder.wait(job, JobState.RUNNING)
    backend.follow(job)
    wait_until(lambda: kit.said(job) == b"one\n", "the first word")
    backend.close()
    kit.let_go()
    other = kit.opened()
    other.reconcile([job])
    other.follow(job)
    kit.recorder.wait(job, JobState.COMPLETED)
    wait_until(lambda: kit.said(job) == b"one\ntwo\n", "the last word")
    left = [path.name for path in kit.output.folder(job.name).iterdir()]
    assert [name for name in left if name.endswith(LIVE_SUFFIX)] == []


def test_a_later_try_is_a_job_of_its_own(kit: Kit) -> None:
    backend = kit.opened()
    first = kit.job(kit.fails)
    again = msgspec.structs.replace(first, name=f"{first.name}_r2")
    again.cmd, again.meta = kit.prints, json.dumps(json.loads(first.meta) | {"cmd": kit.prints})
    kit.recorder.add(first, again)
    backend.submit(first)
    kit.recorder.wait(first)
    backend.settled(first)
    backend.submit(again)
    kit.recorder.wait(again, JobState.COMPLETED)
    assert first.state is JobState.FAILED
    assert kit.printed(again) == kit.streams
    backend.settled(again)
    for job in (first, again):
        backend.remove(job)
    wait_until(lambda: not kit.leftovers(), "the removal of both", kit.deadline_s)


def test_many_jobs_at_once_run_once_each(kit: Kit) -> None:
    backend = kit.opened()
    jobs = [kit.job(kit.counting(f"key{n}")) for n in range(50)]
    kit.recorder.add(*jobs)
    threads = [threading.Thread(target=backend.submit, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kit.recorder.wait_all(jobs)
    assert {job.state for job in jobs} == {JobState.COMPLETED}
    assert [kit.count(f"key{n}", job) for n, job in enumerate(jobs)] == [1] * 50


def test_submitted_twice_runs_once(kit: Kit) -> None:
    backend = kit.opened()
    job = kit.job(kit.counting("key"))
    kit.recorder.add(job)
    backend.submit(job)
    backend.submit(job)
    kit.recorder.wait(job, JobState.COMPLETED)
    backend.submit(job)
    kit.recorder.wait_all(run(kit, kit.ok))
    assert kit.count("key", job) == 1


def test_cancel_a_running_job(kit: Kit) -> None:
    backend = kit.opened()
    job = kit.job(kit.lasts)
    kit.recorder.add(job)
    backend.submit(job)
    kit.recorder.wait(job, JobState.RUNNING)
    backend.cancel(job, 10.0)
    backend.cancel(job, 10.0)
    kit.recorder.wait(job)
    assert (job.state, job.reason) == (JobState.CANCELED, "canceled")
    assert job.ended_at is not None


def test_cancel_leaves_an_ended_job_as_it_is(kit: Kit) -> None:
    (job,) = run(kit, kit.fails)
    kit.recorder.wait(job)
    backend = kit.opened()
    backend.cancel(job, 0.0)
    backend.submit(after := kit.job(kit.ok))
    kit.recorder.add(after)
    assert job.state is JobState.FAILED


def test_cancel_before_submit_starts_nothing(kit: Kit) -> None:
    backend = kit.opened()
    job, other = kit.job(kit.lasts), kit.job(kit.ok)
    kit.recorder.add(job, other)
    backend.cancel(job, 0.0)
    kit.recorder.wait(job, JobState.CANCELED)
    backend.submit(job)
    backend.submit(other)
    kit.recorder.wait(other, JobState.COMPLETED)
    assert job.started_at is None


def test_cancel_while_it_is_submitted_ends_the_job(kit: Kit) -> None:
    """Whichever comes first, nothing goes on running; also while the backend is just opened."""
    backend = kit.opened()
    jobs = [kit.job(kit.lasts) for _ in range(20)]
    kit.recorder.add(*jobs)
    with ThreadPoolExecutor(8) as pool:
        for job in jobs:
            pool.submit(backend.submit, job)
            pool.submit(backend.cancel, job, 5.0)
    for job in jobs:
        kit.recorder.wait(job)
    assert {job.state for job in jobs} == {JobState.CANCELED}


def test_a_withdrawn_job_is_not_started_when_its_end_is_durable_already(kit: Kit) -> None:
    backend = kit.opened()
    job, other = kit.job(kit.counting("withdrawn")), kit.job(kit.ok)
    kit.recorder.add(job, other)
    backend.cancel(job, 0.0)
    kit.recorder.wait(job, JobState.CANCELED)
    backend.settled(job)
    backend.submit(job)
    backend.submit(other)
    kit.recorder.wait(other, JobState.COMPLETED)
    assert kit.count("withdrawn", job) == 0


def test_a_new_daemon_takes_over(kit: Kit) -> None:
    """Jobs that run, that ended meanwhile, that never arrived, and that nobody knows."""
    first = kit.opened()
    failed, lasting = kit.job(kit.fails), kit.job(kit.lasts)
    first.submit(lasting)
    first.submit(failed)
    first.close()  # nothing of these jobs was seen, as when a daemon is killed
    fresh, unknown = kit.job(kit.ok), kit.job(kit.ok)
    for job in (lasting, unknown):
        job.state = JobState.RUNNING

    kit.recorder.add(lasting, failed, fresh, unknown)
    second = kit.opened()
    second.reconcile([lasting, failed, fresh, unknown])
    kit.recorder.wait(failed)
    kit.recorder.wait(fresh)
    kit.recorder.wait(unknown)
    assert (failed.state, failed.exit_code) == (JobState.FAILED, 7)
    assert fresh.state is JobState.COMPLETED
    assert (unknown.state, unknown.reason) == (JobState.LOST, "lost")
    assert unknown.message
    assert lasting.state is JobState.RUNNING

    second.cancel(lasting, 10.0)
    kit.recorder.wait(lasting, JobState.CANCELED)


def test_output_survives_a_new_daemon(kit: Kit) -> None:
    first = kit.opened()
    job = kit.job(kit.prints)
    first.submit(job)
    first.close()
    kit.recorder.add(job)
    second = kit.opened()
    second.reconcile([job])
    kit.recorder.wait(job, JobState.COMPLETED)
    assert kit.printed(job) == kit.streams


def test_settled_and_remove_leave_nothing(kit: Kit) -> None:
    backend = kit.opened()
    settled, removed = kit.job(kit.prints), kit.job(kit.prints)
    kit.recorder.add(settled, removed)
    for job in (settled, removed):
        backend.submit(job)
        kit.recorder.wait(job, JobState.COMPLETED)
    backend.settled(settled)
    backend.remove(removed)
    last = kit.job(kit.ok)  # what is said after them is done after them
    kit.recorder.add(last)
    backend.submit(last)
    kit.recorder.wait(last)
    (kept,) = wait_until(lambda: one_of(kit.leftovers()), "one job is left", kit.deadline_s)
    assert kept.startswith(last.name)
    assert kit.printed(settled) == kit.streams
    assert not kit.output.folder(removed.name).exists()


def test_check_names_the_field(kit: Kit) -> None:
    backend = kit.opened()
    backend.check(kit.spec(kit.ok))
    with pytest.raises(RequestError) as caught:
        backend.check(kit.spec(kit.refused))
    assert caught.value.field == "cmd"
    assert caught.value.hint == 400


def test_closing_twice_is_safe(kit: Kit) -> None:
    backend = kit.opened()
    backend.close()
    backend.close()
