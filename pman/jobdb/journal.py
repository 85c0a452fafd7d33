"""`Journal`: what `JobStore` needs of the disk. `Commit`: one promise of it.

Knows nothing of threads that write and of SQLite.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from pman.errors import SnapshotError
from pman.job.event import Event
from pman.job.record import Job

#: Called once with None when the change is durable, or with the reason why it will never be.
Done = Callable[[SnapshotError | None], None]


class Commit:
    """One change on its way to the disk. Thread-safe."""

    __slots__ = ("_callbacks", "_error", "_event", "_is_done", "_lock")

    def __init__(self, on_done: Done | None = None) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._callbacks: list[Done] = [] if on_done is None else [on_done]
        self._error: SnapshotError | None = None
        self._is_done = False

    def wait(self, timeout_s: float) -> None:
        """Wait until the change is durable.

        Raises:
            SnapshotError: It is not, because the disk would not take it or took too long.
        """
        if not self._event.wait(timeout_s):
            raise SnapshotError(f"the job DB took longer than {timeout_s} s to write")
        error = self._error
        if error is not None:
            raise SnapshotError(error.message) from error

    def on_done(self, callback: Done) -> None:
        """Have `callback` called by the thread that writes, or at once when that is over.

        It is called before any `wait` returns; it must neither block nor raise.
        """
        with self._lock:
            if not self._is_done:
                self._callbacks.append(callback)
                return
        callback(self._error)

    def settle(self, error: SnapshotError | None = None) -> None:
        """Say how it ended; called once, by the journal."""
        self.call_back(error)
        self.release()

    def call_back(self, error: SnapshotError | None = None) -> None:
        """As `settle`, but let nobody go on who waits; `release` does."""
        with self._lock:
            self._is_done = True
            self._error = error
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(error)

    def release(self) -> None:
        """Let those go on who wait; called once, after `call_back`."""
        self._event.set()

    def postpone(self, error: SnapshotError) -> None:
        """Say that it failed for now and will be tried again: who waits gets the error."""
        with self._lock:
            self._error = error
        self._event.set()


class Journal(Protocol):
    """Makes changes durable, in the order in which they were handed over. Never blocks.

    The events of a change are durable with it, in this order, or never come to be.
    """

    def write(
        self,
        job: Job,
        *,
        fresh: bytes | None = None,
        on_done: Done | None = None,
        events: Sequence[Event] = (),
    ) -> Commit:
        """Have the state of one job written.

        Args:
            job: Immutable; of several states of one job the newest may be written alone.
            fresh: Encoded record of a job that is new. Such a write fails at once when the disk
                does not take it; the state of a known job is kept and tried again instead.
            on_done: As in `Commit.on_done`; called in the order of the writes, never from within
                `write`.
            events: What has happened to the job. If this is its end, and somebody is to be called
                back, the letter is durable with it.
        Raises:
            SnapshotError: `fresh` was given, and the journal takes nothing any more.
        """

    def delete(self, names: Sequence[str], events: Sequence[Event] = ()) -> Commit:
        """Have jobs removed; tried again until it works."""

    def replace(
        self, names: Sequence[str], jobs: Sequence[Job], events: Sequence[Event] = ()
    ) -> Commit:
        """Have jobs removed and others put behind all that are left, in one transaction."""

    def barrier(self) -> Commit:
        """Return the promise of all that was handed over until now; fails as a new job does."""
