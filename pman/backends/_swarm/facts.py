"""What only events and containers tell of a task: when it ran, and whether memory ran out."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import msgspec

#: Tasks that are remembered; the oldest are dropped, and asked for again if need be.
MAX_TASKS = 10_000


class Fact(msgspec.Struct, frozen=True):
    """Of one container. Attributes: moments in UTC epoch seconds or None; whether it met OOM.

    exit_code: Where the engine does not know it any more.
    """

    started_at: float | None = None
    ended_at: float | None = None
    is_oom: bool | None = None
    exit_code: int | None = None


class Facts:
    """{task id: `Fact`}; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: dict[str, Fact] = {}

    def get(self, task_id: str) -> Fact:
        """Return what is known of a task."""
        return self._facts.get(task_id) or Fact()

    def note(
        self,
        task_id: str,
        *,
        started_at: float | None = None,
        ended_at: float | None = None,
        is_oom: bool | None = None,
        exit_code: int | None = None,
    ) -> None:
        """Add to what is known; what was known stays where a value is None."""
        with self._lock:
            old = self.get(task_id)
            self._facts[task_id] = Fact(
                old.started_at if started_at is None else started_at,
                old.ended_at if ended_at is None else ended_at,
                old.is_oom if is_oom is None else is_oom,
                old.exit_code if exit_code is None else exit_code,
            )
            if len(self._facts) > MAX_TASKS:
                del self._facts[next(iter(self._facts))]


def epoch_s(text: str | None) -> float | None:
    """Return a moment as Docker spells it in UTC epoch seconds; None for none.

    Source: RFC 3339 with nanoseconds; the year 1 stands for "never".
    """
    if not text or text.startswith("0001-"):
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        moment = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
        return moment + (float(f"0.{fraction}") if fraction else 0.0)
    except ValueError:
        return None
