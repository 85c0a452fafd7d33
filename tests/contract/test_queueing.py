"""What `JobQueue` promises, on every backend alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from daemon_process import wait_until
from kits import Kit
from queue_on import QueueOn

from pman.errors import RequestError
from pman.job.state import JobState

NewQueue = Callable[..., QueueOn]


@pytest.fixture
def new_queue(kit: Kit) -> Iterator[NewQueue]:
    """Make a queue with settings, on each backend in turn."""
    made: list[QueueOn] = []

    def make(**settings: object) -> QueueOn:
        made.append(QueueOn(kit, **settings))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


def test_one_at_a_time_over_a_restart(kit: Kit, new_queue: NewQueue) -> None:
    pman = new_queue(max_jobs=(("", 1),))
    first = pman.submit(kit.lasts)
    low, high = pman.submit(kit.ok), pman.submit(kit.ok, priority=1)
    pman.wait(first, JobState.RUNNING)
    pman.restart()
    assert [pman.job(job).hold for job in (low, high)] == ["limit", "limit"]
    pman.queue.cancel(pman.job(first), 1.0)
    assert pman.wait(first).state is JobState.CANCELED
    ends = [pman.wait(job) for job in (high, low)]
    assert [job.state for job in ends] == [JobState.COMPLETED] * 2
    assert (ends[0].ended_at or 0) <= (ends[1].started_at or 0) + 1.0


def test_tried_again_and_nothing_left(kit: Kit, new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit(kit.fails, retries=2, backoff=0)
    now = pman.wait(job)
    assert (now.state, now.reason, now.exit_code, now.attempt) == (JobState.FAILED, "error", 7, 3)
    wait_until(lambda: not kit.leftovers(), "all tries are settled", kit.deadline_s)


def test_tried_again_over_a_restart(kit: Kit, new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit(kit.fails, retries=1, backoff=1)
    wait_until(lambda: pman.job(job).hold == "retry", "it waits for its next try", kit.deadline_s)
    pman.restart()
    now = pman.wait(job)
    assert (now.state, now.exit_code, now.attempt) == (JobState.FAILED, 7, 2)


def test_one_after_the_other(kit: Kit, new_queue: NewQueue) -> None:
    pman = new_queue()
    first = pman.submit(kit.prints)
    second = pman.submit(kit.prints, after=[first])
    third = pman.submit(kit.fails, after=[second])
    fourth = pman.submit(kit.ok, after=[third])
    assert pman.wait(fourth).reason == "dependency_failed"
    ends = [pman.job(job) for job in (first, second, third)]
    assert [job.state.value for job in ends] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert all(
        (one.ended_at or 0) <= (other.started_at or 0) + 1.0
        for one, other in itertools.pairwise(ends)
    )


@pytest.mark.parametrize("is_restarted", [False, True])
def test_longer_than_its_timeout(kit: Kit, new_queue: NewQueue, is_restarted: bool) -> None:
    pman = new_queue()
    job = pman.submit(kit.lasts, timeout=1)
    if is_restarted:
        pman.wait(job, JobState.RUNNING)
        pman.restart()
    now = pman.wait(job)
    assert (now.state, now.reason) == (JobState.FAILED, "deadline_exceeded")


def test_a_canceled_job_is_not_tried_again(kit: Kit, new_queue: NewQueue) -> None:
    pman = new_queue()
    job = pman.submit(kit.lasts, retries=3, backoff=0)
    pman.wait(job, JobState.RUNNING)
    pman.queue.cancel(pman.job(job), 1.0)
    assert pman.wait(job).state is JobState.CANCELED


def test_everything_that_a_command_can_be_given(kit: Kit, new_queue: NewQueue) -> None:
    if not kit.runs_programs:
        pytest.skip("it only pretends to run programs")
    pman = new_queue()
    script = 'printf "%s|" "$0" "$1" "$A" "$(pwd)"; cat'
    given: dict[str, Any] = {
        "argv": ["/bin/sh", "-c", script, "a  b", "c'd;"],
        "env": {"A": "x y", "N": 5},
        "cwd": "/tmp",
    }
    text = "line 1\nline 2" if kit.takes_stdin else ""
    if kit.takes_stdin:
        given["stdin"] = text
    else:
        with pytest.raises(RequestError) as refused:
            pman.submit(**given, stdin="line 1")
        assert refused.value.field == "stdin"
    job = pman.submit(**given)
    assert pman.wait(job).state is JobState.COMPLETED
    assert pman.printed(job) == f"a  b|c'd;|x y|/tmp|{text}"


def test_a_working_directory_that_is_not_there(kit: Kit, new_queue: NewQueue) -> None:
    if not kit.runs_programs:
        pytest.skip("it only pretends to run programs")
    pman = new_queue()
    job = pman.submit(argv=["/bin/true"], cwd="/is/not/there")
    now = pman.wait(job)
    if kit.makes_cwd:
        assert now.state is JobState.COMPLETED
    else:
        assert now.state is JobState.FAILED
        assert "/is/not/there" in now.message
