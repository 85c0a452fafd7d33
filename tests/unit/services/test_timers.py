"""`Timers`: order, cancelling, failures, the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from jobdb_builders import DEADLINE_S, stop

from pman.services.timers import SPARE, Timers

#: A delay that no test waits for, seconds.
LONG_S = 1000.0


@pytest.fixture
def timers() -> Iterator[Timers]:
    made = Timers()
    made.start()
    made.wait_ready()
    yield made
    stop(made)


def test_callbacks_come_in_the_order_of_their_moments(timers: Timers) -> None:
    called: list[str] = []
    done = threading.Event()
    timers.after(LONG_S, lambda: called.append("late"))
    timers.after(0.02, done.set)
    timers.after(0.01, lambda: called.append("second"))
    timers.after(0.0, lambda: called.append("first"))
    assert done.wait(DEADLINE_S)
    assert called == ["first", "second"]


def test_cancelled_is_not_called(timers: Timers) -> None:
    called: list[str] = []
    done = threading.Event()
    cancel = timers.after(0.01, lambda: called.append("cancelled"))
    timers.after(0.02, done.set)
    cancel()
    cancel()
    assert done.wait(DEADLINE_S)
    assert called == []


def test_cancelling_what_was_called_changes_nothing(timers: Timers) -> None:
    done = threading.Event()
    cancel = timers.after(0.0, done.set)
    assert done.wait(DEADLINE_S)
    cancel()
    again = threading.Event()
    timers.after(0.0, again.set)
    assert again.wait(DEADLINE_S)


def test_one_that_fails_costs_no_other(timers: Timers, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    timers.after(0.0, lambda: 1 // 0)
    timers.after(0.0, done.set)
    assert done.wait(DEADLINE_S)
    assert "ZeroDivisionError" in caplog.text


def test_cancelled_ones_do_not_pile_up(timers: Timers) -> None:
    kept = [timers.after(LONG_S, lambda: None) for _ in range(10)]
    for _ in range(10 * SPARE):
        timers.after(LONG_S, lambda: None)()
    assert len(timers._heap) < 2 * SPARE + 2 * len(kept)


def test_a_callback_may_ask_for_the_next(timers: Timers) -> None:
    done = threading.Event()
    timers.after(0.0, lambda: timers.after(0.0, done.set) and None)
    assert done.wait(DEADLINE_S)


def test_stop_drops_what_is_to_come() -> None:
    timers = Timers()
    timers.start()
    timers.after(LONG_S, lambda: None)
    stop(timers)


def test_hurried_all_is_called_at_once(timers: Timers) -> None:
    called: list[str] = []
    done = threading.Event()
    timers.after(LONG_S, lambda: called.append("first"))
    timers.after(2 * LONG_S, lambda: called.append("second"))
    timers.hurry()
    timers.after(3 * LONG_S, done.set)
    assert done.wait(DEADLINE_S)
    assert called == ["first", "second"]
