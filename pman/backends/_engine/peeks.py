"""`Peeks`: what running jobs have printed last, for `status`. Thread-safe, memory only."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable

#: Kept of one job, bytes.
MAX_BYTES = 64 * 1024
#: Jobs of which something is kept; the one that was not asked for longest goes.
MAX_JOBS = 256
#: Looks that are under way at the same time; who asks for more has to ask again.
MAX_UNDER_WAY = 32


class _Peek:
    __slots__ = ("asked_at", "text")

    def __init__(self) -> None:
        self.text = ""
        self.asked_at = float("-inf")


class Peeks:
    """Texts by job name, and when each is to be looked at again."""

    def __init__(self, period_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._period_s = period_s
        self._now = now
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._peeks: collections.OrderedDict[str, _Peek] = collections.OrderedDict()

    def text(self, name: str, period_s: float | None = None) -> tuple[str, bool]:
        """Return what is known, and whether it is time to look again; that counts as asked.

        Args:
            period_s: Between two looks, for one who needs them less often than others.
        """
        with self._lock:
            peek = self._peeks.setdefault(name, _Peek())
            self._peeks.move_to_end(name)
            if len(self._peeks) > MAX_JOBS:
                self._peeks.popitem(last=False)
            now = self._now()
            period_s = self._period_s if period_s is None else period_s
            is_due = name not in self._under_way and now - peek.asked_at >= period_s
            is_due = is_due and len(self._under_way) < MAX_UNDER_WAY
            if is_due:
                peek.asked_at = now
            return peek.text, is_due

    def begin(self, name: str) -> None:
        """Learn that a look has begun: there is no other until `put`, however long it takes."""
        with self._lock:
            self._under_way.add(name)

    def put(self, name: str, raw: bytes | None) -> None:
        """Keep what a job has printed, if anybody still asks for it; None: it can't be had now."""
        with self._lock:
            self._under_way.discard(name)
            peek = self._peeks.get(name)
            if peek is not None and raw is not None:
                peek.text = raw[-MAX_BYTES:].decode("utf-8", "replace")

    def drop(self, name: str) -> None:
        """Forget a job."""
        with self._lock:
            self._peeks.pop(name, None)
