"""`Orphans`: objects that carry our label and belong to no job of ours. The mover's alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from typing import Any

from pman.backends._engine.port import View


class Orphans:
    """Tells which objects have been without a job for so long that they may go."""

    def __init__(self, grace_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._now = now
        self._first_seen: dict[str, float] = {}

    def judge(
        self, views: Mapping[str, View], known: Container[str]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Take what is there; return names and handles of what is to be removed now."""
        now = self._now()
        self._first_seen = {
            name: self._first_seen.get(name, now) for name in views if name not in known
        }
        due = [name for name, since in self._first_seen.items() if now - since >= self._grace_s]
        for name in due:
            self._first_seen[name] = now  # should it stay nevertheless
        return [(name, views[name].handle) for name in due]

    def next_s(self) -> float | None:
        """Return how long until the oldest may go, seconds; None when there is none."""
        if not self._first_seen:
            return None
        return max(0.0, min(self._first_seen.values()) + self._grace_s - self._now())
