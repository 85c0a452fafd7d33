"""Counting: what falls where, and what is read back."""

from __future__ import annotations

import threading

import pytest

from pman.meters import (
    REFUSED,
    REQUEST_BOUNDS_S,
    UNANSWERED,
    ErrorMeter,
    Histogram,
    RequestMeter,
    SharedRequestMeter,
)


@pytest.mark.parametrize(
    ("value", "counts"),
    [(0.0, [1, 0, 0]), (1.0, [1, 0, 0]), (1.5, [0, 1, 0]), (2.0, [0, 1, 0]), (9.0, [0, 0, 1])],
)
def test_a_bound_belongs_to_what_is_below_it(value: float, counts: list[int]) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.add(value)
    assert histogram.counts == counts
    assert histogram.total == value


def test_requests_are_kept_apart_by_kind() -> None:
    meter = RequestMeter()
    for seconds in (0.0001, 0.0001, 1e9):
        meter.add(("hello", "POST", 200), seconds)
    meter.add(("hello", "POST", 401), 0.01)
    kinds = dict(meter.kinds())
    assert {kind: sum(times.counts) for kind, times in kinds.items()} == {
        ("hello", "POST", 200): 3,
        ("hello", "POST", 401): 1,
    }
    times = kinds["hello", "POST", 200]
    assert times.counts[0] == 2
    assert times.counts[-1] == 1
    assert times.bounds is REQUEST_BOUNDS_S


def test_threads_do_not_take_each_others_counts() -> None:
    meter = SharedRequestMeter()
    threads = [
        threading.Thread(
            target=lambda: [meter.add(("run", "POST", 200), 0.001) for _ in range(2000)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((_, times),) = meter.kinds()
    assert sum(times.counts) == 8000


def test_each_failure_has_its_count_from_the_start() -> None:
    meter = ErrorMeter(("create", "look"))
    assert len(meter.counts()) == 8
    assert {count for _, count in meter.counts()} == {0}
    meter.add("create", REFUSED)
    meter.add("create", REFUSED)
    meter.add("look", UNANSWERED)
    assert {which: count for which, count in meter.counts() if count} == {
        ("create", "refused"): 2,
        ("look", "unanswered"): 1,
    }


def test_what_no_call_is_has_no_count() -> None:
    with pytest.raises(KeyError):
        ErrorMeter(("create",)).add("made up", REFUSED)
