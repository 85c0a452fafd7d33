"""`Outage`: whether the engine can be used, and if not, since when and why."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from pman.backends._engine.port import Engine
from pman.errors import BackendUnavailable

_log = logging.getLogger(__name__)

NOT_YET = "the engine has not been reached yet; try again in a moment"


class Outage:
    """Gathers what those say who talk to the engine; logs only when it goes and comes. Thread-safe.

    There are two of them, as one may fail where the other does not: `watch`, `call`.

    Attributes:
        count: How often the engine has gone.
    """

    def __init__(self, name: str, on_up: Callable[[], object]) -> None:
        """Begin as not connected.

        Args:
            name: Of the backend.
            on_up: Called when the engine can be used (again), from any thread.
        """
        self.count = 0
        self._name = name
        self._on_up = on_up
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._failures: dict[str, str] = {}
        self._failed_at = float("-inf")
        self._was_up = False
        self._miss, self._missed_at = "", float("-inf")  # of the try to connect that failed last

    def connect(self, engine: Engine) -> None:
        """Have the engine connect, for one thread at a time.

        An SDK that two threads import at once is half there for one of them. Who waits for another
        thread's try takes its failure: a silent engine would hold up one after the other.

        Raises:
            BackendUnavailable: See `Engine.connect`.
        """
        asked_at = time.monotonic()
        with self._connecting:
            if self._missed_at > asked_at:
                raise BackendUnavailable(self._miss)
            try:
                engine.connect()
            except BackendUnavailable as exc:
                self._miss, self._missed_at = exc.message, time.monotonic()
                raise

    @property
    def problem(self) -> str | None:
        """What is wrong, or None."""
        with self._lock:
            for message in self._failures.values():
                return message
            return None if self._was_up else NOT_YET

    @property
    def is_up(self) -> bool:
        """Whether the engine can be used, as far as is known."""
        return self.problem is None

    def age_s(self) -> float:
        """Return how long ago a failure was last reported, seconds."""
        return time.monotonic() - self._failed_at

    def down(self, source: str, error: Exception) -> None:
        """Report that something failed."""
        message = error.message if isinstance(error, BackendUnavailable) else repr(error)
        with self._lock:
            was_down = bool(self._failures)
            self.count += not was_down
            self._failures[source] = message
            self._failed_at = time.monotonic()
        if not was_down:
            _log.warning("%s can't be used now, its jobs keep their state: %s", self._name, message)

    def up(self, source: str) -> None:
        """Report that something worked."""
        with self._lock:
            if self._was_up and source not in self._failures:
                return
            was_down = bool(self._failures)
            self._failures.pop(source, None)
            if self._failures:
                return
            self._was_up = True
        if was_down:
            _log.info("%s can be used again", self._name)
        self._on_up()
