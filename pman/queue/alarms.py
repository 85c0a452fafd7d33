"""`Alarms`: what is to happen at which moment. No lock and no thread; `JobQueue` has both."""

from __future__ import annotations

import heapq
from typing import Literal

Kind = Literal["retry", "pending", "timeout", "cancel", "resume"]

#: What an alarm is about, and whom: a job, or for `resume` a backend.
Alarm = tuple[Kind, str]

#: Entries of alarms that were set anew or dropped, beyond those that count, before they go.
SPARE = 64


class Alarms:
    """Moments in UTC epoch seconds, one per alarm."""

    def __init__(self) -> None:
        self._moments: dict[Alarm, float] = {}
        self._heap: list[tuple[float, Alarm]] = []  # also holds moments that do not count any more

    def set(self, alarm: Alarm, at: float) -> bool:
        """Set an alarm, or set it anew; return whether it is the next one."""
        if self._moments.get(alarm) == at:
            return False
        self._moments[alarm] = at
        heapq.heappush(self._heap, (at, alarm))
        if len(self._heap) > 2 * len(self._moments) + SPARE:
            self._heap = [(at, alarm) for alarm, at in self._moments.items()]
            heapq.heapify(self._heap)
        return self.next_at() == at

    def drop(self, alarm: Alarm) -> None:
        """Drop an alarm; not set is fine."""
        self._moments.pop(alarm, None)

    def next_at(self) -> float | None:
        """Return the moment of the next alarm."""
        while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Alarm]:
        """Return, in order, the alarms whose moment has come; they are dropped."""
        found: list[Alarm] = []
        while (at := self.next_at()) is not None and at <= now:
            alarm = heapq.heappop(self._heap)[1]
            del self._moments[alarm]
            found.append(alarm)
        return found
