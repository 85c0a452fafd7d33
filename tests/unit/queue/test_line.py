"""`Line` and `Alarms`: who comes next, and when."""

from __future__ import annotations

import random

import pytest
from jobdb_builders import make_job

from pman.job.record import Job
from pman.queue.alarms import SPARE, Alarms
from pman.queue.line import Line


def of(auid: str = "a", priority: int = 0, backend: str = "host") -> Job:
    return make_job(auid=auid, priority=priority, backend=backend)


def test_without_limits_nobody_waits() -> None:
    line = Line({}, 0)
    assert all(line.pass_by(of()) for _ in range(100))
    job = of()
    assert line.add(job)
    assert line.take_chosen() == [job.name]
    assert line.take_chosen() == []


def test_high_priority_first_then_in_order() -> None:
    line = Line({"": 1}, 0)
    first = of()
    assert line.pass_by(first)
    jobs = [of(priority=priority) for priority in (0, 5, 0, 5, -1)]
    assert not any(line.pass_by(job) for job in jobs)
    for job in jobs:
        assert not line.add(job)
    order = []
    line.leave(first.name)
    while chosen := line.take_chosen():
        order += chosen
        line.leave(chosen[0])
    assert order == [jobs[n].name for n in (1, 3, 0, 2, 4)]
    assert line.waiting == 0


def test_an_auid_that_is_full_does_not_hold_up_others() -> None:
    line = Line({"": 3}, 2)
    ours = [of("a") for _ in range(5)]
    assert [line.pass_by(job) for job in ours] == [True, True, False, False, False]
    for job in ours[2:]:
        line.add(job)
    other = of("b", priority=-5)
    assert line.pass_by(other)
    late = of("b")
    assert not line.pass_by(late)  # the backend is full
    line.add(late)
    line.leave(ours[0].name)
    assert line.take_chosen() == [ours[2].name]
    line.leave(other.name)
    assert line.take_chosen() == [late.name]


def test_an_auid_counts_on_all_backends() -> None:
    line = Line({}, 1)
    first, second = of(backend="host"), of(backend="swarm")
    assert line.pass_by(first)
    assert not line.pass_by(second)
    line.add(second)
    line.leave(first.name)
    assert line.take_chosen() == [second.name]


def test_a_job_that_is_not_durable_keeps_its_place() -> None:
    line = Line({"host": 1}, 0)
    first, second, third = of(), of(), of()
    assert line.pass_by(first)
    line.add(second, is_ready=False)
    line.leave(first.name)
    assert line.take_chosen() == []
    assert not line.pass_by(third)
    line.ready(second.name)
    assert line.take_chosen() == [second.name]


def test_one_that_leaves_before_it_is_told_gives_its_place_back() -> None:
    line = Line({"": 1}, 0)
    first, second, third = of(), of(), of()
    assert line.pass_by(first)
    line.add(second)
    line.add(third)
    line.leave(first.name)
    line.leave(second.name)
    assert line.take_chosen() == [third.name]


def test_one_that_leaves_while_it_waits_is_passed_over() -> None:
    line = Line({"": 1}, 1)
    first, second, third = of("x"), of("a"), of("a")
    assert line.pass_by(first)
    line.add(second)
    line.add(third)
    line.leave(second.name)
    line.leave(first.name)
    assert line.take_chosen() == [third.name]


def test_a_pause_holds_all_but_who_would_overtake_nobody() -> None:
    line = Line({}, 0)
    line.pause("host")
    waiting = of()
    assert not line.add(waiting)
    assert not line.pass_by(of())
    assert line.pass_by(of(backend="swarm"))
    line.resume("host")
    assert line.take_chosen() == [waiting.name]


def test_many_at_random_keep_the_rules() -> None:
    """Whatever comes and goes: no limit is passed, and nobody waits who could run."""
    dice = random.Random(4)
    line = Line({"host": 3, "swarm": 2}, 2)
    jobs: dict[str, Job] = {}
    waiting: dict[str, Job] = {}
    running: dict[str, Job] = {}
    for _ in range(4000):
        if dice.random() < 0.5 or not jobs:
            job = of(dice.choice("abcd"), dice.randrange(3), dice.choice(["host", "swarm"]))
            jobs[job.name] = job
            if line.pass_by(job):
                running[job.name] = job
            else:
                waiting[job.name] = job
                line.add(job)
        else:
            name = dice.choice(list(jobs))
            line.leave(name)
            for table in (jobs, waiting, running):
                table.pop(name, None)
        for name in line.take_chosen():
            running[name] = waiting.pop(name)
        on = [job.backend for job in running.values()]
        of_auid = [job.auid for job in running.values()]
        assert on.count("host") <= 3
        assert on.count("swarm") <= 2
        assert all(of_auid.count(auid) <= 2 for auid in "abcd")
        for job in waiting.values():
            is_full = on.count(job.backend) >= {"host": 3, "swarm": 2}[job.backend]
            assert is_full or of_auid.count(job.auid) >= 2
        assert line.waiting == len(waiting)
        for backend in line._lines.values():
            gone = {
                auid: sum(ticket.is_gone for _, ticket in heap)
                for auid, heap in backend._by_auid.items()
            }
            assert all(2 * gone[auid] <= len(heap) for auid, heap in backend._by_auid.items())
            assert backend._gone == {auid: count for auid, count in gone.items() if count}
            assert len(backend._heads) <= 2 * len(backend._by_auid) + SPARE


def kept(line: Line) -> tuple[int, int]:
    """Return how many tickets and heads the line of the host keeps."""
    host = line._lines["host"]
    return sum(map(len, host._by_auid.values())), len(host._heads)


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("per_auid", [0, 1])
def test_jobs_that_leave_while_all_places_are_taken_take_no_memory(
    is_alone: bool, per_auid: int
) -> None:
    line = Line({"": 2}, per_auid)
    running = [of("a"), of("b")]
    assert all(line.pass_by(job) for job in running)
    stays = of("a", priority=-1)
    if not is_alone:
        line.add(stays)
    for n in range(10 * SPARE):  # each comes before all that have left
        job = of(f"user{n}" if n % 2 else "a", priority=n)
        line.add(job)
        line.leave(job.name)
    tickets, heads = kept(line)
    assert tickets <= 2 * line.waiting + 1
    assert heads <= 2 * (line.waiting + 1) + SPARE
    assert not line._lines["host"]._gone or not is_alone
    line.leave(running[0].name)
    assert line.take_chosen() == [stays.name] * (not is_alone)


def test_alarms_ring_in_order_and_once() -> None:
    alarms = Alarms()
    assert alarms.set(("timeout", "a"), 5.0)
    assert not alarms.set(("timeout", "b"), 7.0)
    assert alarms.set(("retry", "c"), 3.0)
    assert not alarms.set(("timeout", "a"), 9.0)
    alarms.drop(("timeout", "b"))
    assert alarms.next_at() == 3.0
    assert alarms.due(2.9) == []
    assert alarms.due(10.0) == [("retry", "c"), ("timeout", "a")]
    assert alarms.next_at() is None


def test_alarms_that_are_dropped_take_no_memory() -> None:
    alarms = Alarms()
    for n in range(10 * SPARE):
        alarms.set(("timeout", str(n)), float(n))
        alarms.drop(("timeout", str(n)))
    assert len(alarms._heap) <= SPARE + 1


def test_a_paused_backend_is_passed_by_only_while_nobody_waits_for_it() -> None:
    line = Line({"host": 5}, 0)
    line.pause("host")
    waiting = of()
    line.add(waiting)
    assert not line.pass_by(of())
    line.leave(waiting.name)
    line.leave(waiting.name)
    assert line.pass_by(of())
    line.add(of())
    assert not line.pass_by(of())
    line.resume("host")
    assert line.waiting == 0
    line.pause("host")
    assert line.pass_by(of())
    assert not line._waiting_for
