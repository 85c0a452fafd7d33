"""`Numbering`: numbers by the clock, however it goes, and what "from now on" is."""

from __future__ import annotations

import random

import pytest
from jobdb_builders import make_job

from pman.job.event import Event, accepted
from pman.jobdb.numbering import LATEST_US, SPREAD_US, Numbering

#: When it is, microseconds since the epoch.
NOW_US = 1_795_423_317_670_218


class Time:
    """Clocks that are set by hand."""

    def __init__(self, now_us: int = NOW_US) -> None:
        self.wall_us = now_us
        self.steady_us = 77

    def numbering(self, last_seq: int = 0) -> Numbering:
        return Numbering(last_seq, lambda: self.wall_us * 1000, lambda: self.steady_us * 1000)

    def go_on(self, us: int) -> None:
        self.wall_us += us
        self.steady_us += us


def make_events(*moments_us: int, auid: str = "me") -> list[Event]:
    return [accepted(make_job(auid=auid), us / 1e6) for us in moments_us]


def seqs(events: list[Event]) -> list[int]:
    return [event.seq for event in events]


def give(numbering: Numbering, *moments_us: int) -> list[int]:
    events = make_events(*moments_us)
    numbering.give(events)
    numbering.settle()
    return seqs(events)


def test_numbers_are_the_time() -> None:
    time = Time()
    numbering = time.numbering()
    assert give(numbering, NOW_US - 500) == [NOW_US]
    time.go_on(1000)
    assert give(numbering, NOW_US) == [NOW_US + 1000]
    assert give(numbering, NOW_US) == [NOW_US + 1001]


def test_numbers_of_one_commit_lie_as_far_apart_as_the_moments() -> None:
    time = Time()
    moments = (NOW_US - 5000, NOW_US - 4000, NOW_US - 4000, NOW_US - 100)
    expected = [NOW_US - 4900, NOW_US - 3900, NOW_US - 3899, NOW_US]
    assert give(time.numbering(), *moments) == pytest.approx(expected, abs=1)


def test_own_numbers_are_the_same_whatever_is_between_them() -> None:
    mine = make_events(NOW_US - 9000, NOW_US - 5000, NOW_US - 1000)
    Time().numbering().give(mine)
    alone = seqs(mine)
    others = make_events(*range(NOW_US - 8990, NOW_US - 1010, 10), auid="other")
    Time().numbering().give(sorted([*mine, *others], key=lambda event: event.at))
    assert seqs(mine) == alone


@pytest.mark.parametrize("moments", [(0, NOW_US), (NOW_US, 0), (NOW_US, NOW_US * 2, NOW_US)])
def test_moments_far_apart_do_not_take_numbers_away_from_the_time(moments: tuple[int, ...]) -> None:
    given = give(Time().numbering(), *moments)
    assert given == sorted(set(given))
    assert all(abs(seq - NOW_US) <= SPREAD_US + 1 for seq in given)


def test_clock_that_is_set_back_does_not_make_numbers_count() -> None:
    time = Time()
    numbering = time.numbering()
    assert give(numbering, 0) == [NOW_US]
    time.go_on(50)
    time.wall_us -= 10**9
    assert give(numbering, 0) == [NOW_US + 50]
    time.go_on(500)
    assert give(numbering, 0) == [NOW_US + 550]
    time.wall_us += 2 * 10**9
    assert give(numbering, 0) == [NOW_US + 550 + 10**9]


def test_numbers_go_on_above_the_last_and_at_the_pace_of_time() -> None:
    time = Time()
    numbering = time.numbering(last_seq=NOW_US + 10**9)
    assert give(numbering, 0) == [NOW_US + 10**9 + 1]
    time.go_on(500)
    assert give(numbering, 0) == [NOW_US + 10**9 + 500]


def test_numbers_are_exact_in_json() -> None:
    time = Time(10**18)
    numbering = time.numbering()
    assert give(numbering, 0) == [LATEST_US]
    assert numbering.now() < 2**53


def test_numbers_only_grow() -> None:
    chance = random.Random(1)
    time = Time()
    numbering = time.numbering()
    last = 0
    for _ in range(300):
        time.go_on(chance.choice((0, 1, 10, 10**7)))
        time.wall_us += chance.choice((0, 0, -(10**8), 10**6))
        begin = numbering.now()
        moments = [time.wall_us - chance.randrange(10**4) for _ in range(chance.randrange(1, 5))]
        given = give(numbering, *moments)
        assert begin >= last
        assert given == sorted(set(given))
        assert given[0] > begin
        last = given[-1]
        if chance.random() < 0.1:
            numbering = time.numbering(last)


def test_from_now_on_is_before_what_is_under_way() -> None:
    time = Time()
    numbering = time.numbering()
    other, mine = make_events(NOW_US - 100, auid="other"), make_events(NOW_US, NOW_US)
    numbering.give(other + mine)
    assert numbering.now() == other[0].seq - 1
    assert numbering.now("other") == other[0].seq - 1
    assert numbering.now("me") == mine[0].seq - 1
    time.go_on(50)
    assert numbering.now("nobody") == numbering.latest() == NOW_US + 50
    numbering.settle()
    assert numbering.now() == numbering.now("me") == NOW_US + 50


def test_numbers_of_commits_that_fail_do_not_run_ahead_of_the_time() -> None:
    time = Time()
    numbering = time.numbering()
    moments = []
    for _ in range(600):
        time.go_on(100_000)
        moments.append(time.wall_us)
        numbering.give(make_events(*moments))
        numbering.take_back()
    assert numbering.now() == time.wall_us
    given = give(numbering, *moments)
    assert given == sorted(set(given))
    assert given[0] > time.wall_us
    assert given[-1] <= time.wall_us + SPREAD_US + len(moments)


def test_what_somebody_begins_with_is_not_taken_back() -> None:
    time = Time()
    numbering = time.numbering()
    other, *mine = make_events(NOW_US - 900, NOW_US - 100, NOW_US)
    other.auid = "other"
    for owner in ("other", "me", "nobody"):
        numbering.give([other, *mine])
        begin = numbering.now(owner)
        numbering.take_back()
        assert numbering.latest() >= begin
        numbering.give([other, *mine])
        assert other.seq > begin
        numbering.settle()
        time.go_on(10_000)


def test_what_counts_as_forgotten_is_not_given_again() -> None:
    numbering = Time().numbering()
    first, second = make_events(NOW_US - 100, NOW_US)
    numbering.give([first, second])
    forgotten = first.seq
    numbering.take_back(forgotten)
    assert forgotten < second.seq
    assert give(numbering, NOW_US - 100)[0] > forgotten


def test_taking_back_twice_or_nothing_is_fine() -> None:
    time = Time()
    numbering = time.numbering()
    (seq,) = give(numbering, NOW_US)
    numbering.take_back()
    assert give(numbering, NOW_US) == [seq + 1]


def test_later_numbers_exceed_what_somebody_begins_with() -> None:
    time = Time()
    numbering = time.numbering()
    begin = numbering.now("me")
    assert give(numbering, NOW_US - 10_000, NOW_US) == [begin + 1, begin + 10_001]
    assert numbering.latest() == begin + 10_001


def test_nothing_to_number() -> None:
    numbering = Time().numbering()
    numbering.give([])
    assert numbering.now() == NOW_US
