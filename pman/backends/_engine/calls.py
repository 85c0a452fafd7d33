"""`Calls`: threads for what may block, which hand their results to the mover."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from pman.backends._engine.mover import Mover, Step
from pman.errors import PmanError

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Takes what went wrong.
Failed = Callable[[Exception], object]


class Calls:
    """Up to `most` threads, made when they are needed.

    They are daemon threads, unlike those of `concurrent.futures`: one that waits for a dead engine
    must not hold up the end of the program.
    """

    def __init__(self, name: str, most: int, mover: Mover) -> None:
        self._name = name
        self._most = most
        self._mover = mover
        self._wake = threading.Condition()
        self._steps: collections.deque[Step] = collections.deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_closed = False

    def run(self, call: Callable[[], T], done: Callable[[T], object], failed: Failed) -> None:
        """Have `call()` run; the mover gets `done(result)`, or `failed(error)` if it raised."""

        def step() -> None:
            try:
                result = call()
            except Exception as exc:  # noqa: BLE001  whoever asked must hear of it, whatever it is
                error = exc
                if not isinstance(exc, (PmanError, OSError)):
                    _log.exception("%s failed in an unexpected way", self._name)
                self._mover.post(lambda: failed(error))
            else:
                self._mover.post(lambda: done(result))

        with self._wake:
            if self._is_closed:
                return
            self._steps.append(step)
            if len(self._steps) > self._idle and len(self._threads) < self._most:
                self._add_thread()
            self._wake.notify()

    def close(self) -> None:
        """Begin nothing more; what runs is left to itself."""
        with self._wake:
            self._is_closed = True
            self._steps.clear()
            self._wake.notify_all()

    def _add_thread(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._idle += 1
                self._wake.wait_for(lambda: self._steps or self._is_closed)
                self._idle -= 1
                if self._is_closed:
                    return
                step = self._steps.popleft()
            step()
