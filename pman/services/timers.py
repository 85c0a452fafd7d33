"""`Timers`: one thread that calls back later."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

from pman.services.base import Service

_log = logging.getLogger(__name__)

#: Cancelled timers that are left in the heap, at least, before it is made anew without them.
SPARE = 100


class _Timer:
    """One callback; None once it was cancelled or called."""

    __slots__ = ("callback", "due", "number")

    def __init__(self, due: float, number: int, callback: Callable[[], None]) -> None:
        self.due = due
        self.number = number
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: _Timer) -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Timers(Service):
    """Calls back after a while, in the order of the moments. Thread-safe.

    A callback returns soon: it holds up the others. What is still to come at the stop is dropped.
    """

    def __init__(self) -> None:
        super().__init__("timers")
        self._news = threading.Condition()
        self._heap: list[_Timer] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._is_hurried = False

    def after(self, delay_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called once, in `delay_s` seconds, by the thread of the timers.

        Returns:
            What cancels it: at once, from any thread, any number of times. A callback that is
            being called meanwhile is not waited for.
        """
        timer = _Timer(time.monotonic() + delay_s, next(self._numbers), callback)
        with self._news:
            heapq.heappush(self._heap, timer)
            if self._heap[0] is timer:
                self._news.notify()
        return lambda: self._cancel(timer)

    def hurry(self) -> None:
        """Have all that is waited for happen now, and all that comes at once: pman stops.

        Who waits for something that takes long is so told how far it is, instead of being cut off.
        """
        with self._news:
            self._is_hurried = True
            self._news.notify()

    def request_stop(self) -> None:
        """Ask for the end; nothing is called any more."""
        super().request_stop()
        with self._news:
            self._news.notify()

    def serve(self) -> None:
        """Call back what is due until `stopping` is set."""
        while (callback := self._next()) is not None:
            try:
                callback()
            except Exception:  # noqa: BLE001  as for a service: the other timers go on
                _log.exception("what was to be done later failed")

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next callback that is due; None at the stop."""
        with self._news:
            while not self.stopping.is_set():
                left_s = self._heap[0].due - time.monotonic() if self._heap else None
                if left_s is not None and (left_s <= 0 or self._is_hurried):
                    timer = heapq.heappop(self._heap)
                    callback, timer.callback = timer.callback, None
                    if callback is not None:
                        return callback
                    self._cancelled -= 1
                else:
                    self._news.wait(left_s)
        return None

    def _cancel(self, timer: _Timer) -> None:
        with self._news:
            if timer.callback is None:
                return
            timer.callback = None
            self._cancelled += 1
            if self._cancelled > SPARE + len(self._heap) // 2:
                # Most are cancelled long before they are due: they must not pile up until then.
                self._heap = [timer for timer in self._heap if timer.callback is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0
