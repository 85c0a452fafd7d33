"""`Wakeup`: lets any thread interrupt the `poll()` of another one."""

from __future__ import annotations

import os
import threading


class Wakeup:
    """A file descriptor that is readable from `ring()` until `clear()`.

    An eventfd rather than a PAIR socket: it may be rung from any thread and never blocks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # keeps `ring` off a descriptor number that was closed
        self._fd: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor to poll; -1 once closed."""
        return -1 if self._fd is None else self._fd

    def ring(self) -> None:
        """Make the descriptor readable; does nothing once closed."""
        with self._lock:
            if self._fd is not None:
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Make the descriptor unreadable until the next `ring()`."""
        try:
            os.eventfd_read(self.fileno())
        except BlockingIOError:
            return  # nobody rang

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
