"""`Wish`: how soon a job is to have ended, and by which signal; more may be asked for meanwhile."""

from __future__ import annotations

import contextlib
import signal as signals
import threading
import time
from collections.abc import Callable, Iterator


class Wish:
    """What was asked for; asked again, the earlier deadline counts, and the newer signal.

    Thread-safe: it is added to while a call that fulfils it goes on.
    """

    def __init__(self, grace_s: float, signal: int | None = None) -> None:
        """Ask for the first time.

        Args:
            grace_s: How long the containers may take, seconds.
            signal: Number of the one that asks them, None for the engine's own.
        """
        self._lock = threading.Lock()
        self._deadline = time.monotonic() + grace_s
        self._signal = signal
        self._listener: Callable[[], object] | None = None

    def add(self, grace_s: float, signal: int | None = None) -> None:
        """Ask again, and have who listens told if that is more than what is known."""
        with self._lock:
            deadline = min(self._deadline, time.monotonic() + grace_s)
            is_more = (deadline, signal) != (self._deadline, self._signal)
            self._deadline, self._signal = deadline, signal
            if is_more and self._listener is not None:
                self._listener()

    @property
    def signal(self) -> int | None:
        """Number of the signal that is to ask them, None for the engine's own."""
        with self._lock:
            return self._signal

    def left_s(self) -> float:
        """Return how long they may still take, seconds; none once it was SIGKILL."""
        with self._lock:
            if self._signal == signals.SIGKILL:
                return 0.0
            return max(0.0, self._deadline - time.monotonic())

    @contextlib.contextmanager
    def heard_by(self, listener: Callable[[], object]) -> Iterator[None]:
        """Have `listener` called when more is asked for while this lasts.

        Args:
            listener: Called by whoever asks, who waits for it: it must neither block nor ask us.
        """
        with self._lock:
            self._listener = listener
        try:
            yield
        finally:
            with self._lock:
                self._listener = None
