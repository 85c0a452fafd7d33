"""`Shares`: waits for folders of jobs to appear, in a thread of its own: a file system may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path


class Shares:
    """Looks for folders every so often. All methods may be called from any thread."""

    def __init__(
        self,
        name: str,
        period_s: float,
        found: Callable[[str], object],
        missing: Callable[[str], object],
    ) -> None:
        """Prepare.

        Args:
            period_s: Between looks, seconds.
            found: Takes the name of a job whose folder is there; once.
            missing: Takes the name of a job whose folder is not there at the first look.
        """
        self._period_s = period_s
        self._found = found
        self._missing = missing
        self._lock = threading.Lock()
        self._new: dict[str, Path] = {}
        self._waiting: dict[str, Path] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-shares", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, name: str, folder: Path) -> None:
        """Wait for the folder of a job; the first look comes at once."""
        with self._lock:
            self._new[name] = folder
        self._wake.set()

    def discard(self, name: str) -> None:
        """Wait for it no more."""
        with self._lock:
            self._new.pop(name, None)
            self._waiting.pop(name, None)

    def request_stop(self) -> None:
        """Ask for the end."""
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, so long."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._period_s if self._waiting else None)
            self._wake.clear()
            self._look()

    def _look(self) -> None:
        with self._lock:
            fresh = set(self._new)
            self._waiting |= self._new
            self._new.clear()
            wanted = dict(self._waiting)
        for name, folder in wanted.items():
            if self._stop.is_set():
                return
            if is_there(folder):
                with self._lock:
                    is_wanted = self._waiting.pop(name, None) is not None
                if is_wanted:
                    self._found(name)
            elif name in fresh:
                self._missing(name)


def is_there(folder: Path) -> bool:
    """Return whether the folder of a job can be mounted; one that can't be looked at can't."""
    try:
        return folder.is_dir()
    except OSError:
        return False
