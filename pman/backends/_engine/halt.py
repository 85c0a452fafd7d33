"""`Halt`: ends a call that blocks on a connection, from another thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Halt:
    """An event that also interrupts what its owner waits for. Thread-safe."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._interrupt: Callable[[], object] | None = None

    def set(self) -> None:
        """Have the call end; twice is safe."""
        self._event.set()
        with self._lock:
            if self._interrupt is not None:
                self._interrupt()

    def is_set(self) -> bool:
        """Return whether the call is to end."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for `set`; return whether it was."""
        return self._event.wait(timeout_s)

    @contextlib.contextmanager
    def interrupts(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Have `set` call `interrupt` while this lasts, at once if it has been called."""
        with self._lock:
            self._interrupt = interrupt
            if self._event.is_set():
                interrupt()
        try:
            yield
        finally:
            with self._lock:
                self._interrupt = None
