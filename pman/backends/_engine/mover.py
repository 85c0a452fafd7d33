"""`Mover`: one thread that runs functions one after the other, at once or later.

What only these functions touch needs no lock, and what they report comes out in order. They must
not block.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

_log = logging.getLogger(__name__)

Step = Callable[[], object]
T = TypeVar("T")

#: How often who waits for an answer looks whether one may still come, seconds.
ALIVE_S = 0.5


class Timer:
    """A step that is to be run later. Made by `Mover.after`."""

    __slots__ = ("at", "step")

    def __init__(self, at: float, step: Step) -> None:
        self.at = at
        self.step: Step | None = step

    def cancel(self) -> None:
        """Have it not run; too late is not an error."""
        self.step = None


class Mover:
    """Runs steps; all methods may be called from any thread."""

    def __init__(self, name: str) -> None:
        self._wake = threading.Condition()
        self._steps: collections.deque[Step] = collections.deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with what has been posted so far."""
        self._thread.start()

    def post(self, step: Step) -> bool:
        """Have a step run behind those that wait; False, and dropped, once the mover is closed."""
        with self._wake:
            if not self._is_closed:
                self._steps.append(step)
                self._wake.notify()
            return not self._is_closed

    def after(self, delay_s: float, step: Step) -> Timer:
        """Have a step run later, unless the timer is canceled or the mover closed."""
        timer = Timer(time.monotonic() + delay_s, step)
        with self._wake:
            heapq.heappush(self._timers, (timer.at, next(self._count), timer))
            self._wake.notify()
        return timer

    def ask(self, question: Callable[[], T], closed: T) -> T:
        """Return what a step returns; `closed` once the mover is closed."""
        if threading.current_thread() is self._thread:
            return question()
        answer = [closed]
        answered = threading.Event()

        def step() -> None:
            try:
                answer[0] = question()
            finally:
                answered.set()

        is_taken = self.post(step)
        while is_taken and not answered.wait(ALIVE_S):
            is_taken = self._thread.is_alive()
        return answer[0]

    def close(self, timeout_s: float) -> None:
        """End after the step that runs now; the others are dropped."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (step := self._next()) is not None:
            try:
                step()
            except Exception:  # noqa: BLE001  as for a service: nobody else would learn of it
                _log.exception("%s failed", step)

    def _next(self) -> Step | None:
        """Wait for the next step; None once closed."""
        with self._wake:
            while not self._is_closed:
                step = self._due_timer()
                if step is not None:
                    return step
                if self._steps:
                    return self._steps.popleft()
                self._wake.wait(self._timers[0][0] - time.monotonic() if self._timers else None)
            return None

    def _due_timer(self) -> Step | None:
        while self._timers:
            at, _, timer = self._timers[0]
            if timer.step is not None and at > time.monotonic():
                return None
            heapq.heappop(self._timers)
            if timer.step is not None:
                return timer.step
        return None
