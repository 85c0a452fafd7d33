"""`Numbering`: gives events their numbers, by the clock, so that these tell nobody of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pman.job.event import Event

#: The clock is believed up to here, in 2219: JavaScript, and so JSON, is exact below 2**53 only.
LATEST_US = 2**53 - 2**50

#: Within how much time the numbers of one commit lie, microseconds, however old its events are.
SPREAD_US = 1_000_000

#: A clock, in nanoseconds.
ReadClock = Callable[[], int]


class Numbering:
    """Numbers are microseconds since the epoch, and grow. Thread-safe.

    They are given before the commit. Until its events are published, they are `under way`: who
    wants "all from now on" begins before those of them that it may see.
    """

    def __init__(
        self, last_seq: int, wall: ReadClock = time.time_ns, steady: ReadClock = time.monotonic_ns
    ) -> None:
        """Go on behind a number.

        Args:
            last_seq: Highest number that was ever given.
            wall: Since the epoch.
            steady: Never goes back; tells the time while `wall` is behind the numbers.
        """
        self._lock = threading.Lock()
        self._wall = wall
        self._steady = steady
        self._steady_ns = steady()
        self._now_ns = last_seq * 1000
        self._top = last_seq  # all that come exceed it
        self._under_way: dict[str, int] = {}  # user -> the first of its numbers
        self._safe_top = last_seq  # what `_top` falls back to if the commit fails

    def give(self, events: Sequence[Event]) -> None:
        """Number events, in order, for one commit; by one thread, `settle` comes before the next.

        They lie as far from each other as their moments do: from its own events a client learns
        nothing of those between them.
        """
        if not events:
            return
        newest_us = int(events[-1].at * 1e6)
        oldest_us = max(int(events[0].at * 1e6), newest_us - SPREAD_US)
        with self._lock:
            self._safe_top = self._top
            begin = self._read_us() - max(0, newest_us - oldest_us)
            begin = max(begin, self._top + 1)
            seq = begin - 1
            for event in events:
                wanted = begin + min(int(event.at * 1e6) - oldest_us, SPREAD_US)
                seq = event.seq = wanted if wanted > seq else seq + 1
                if event.auid not in self._under_way:
                    self._under_way[event.auid] = seq
            self._top = seq

    def settle(self) -> None:
        """Say that the events are published."""
        with self._lock:
            self._under_way.clear()

    def take_back(self, forgotten: int = 0) -> None:
        """Say that the commit has failed: its events are given other numbers later.

        Else numbers would run ahead of the time, by up to `SPREAD_US` with each try.

        Args:
            forgotten: Highest number of which it was said that it has gone; all exceed that.
        """
        with self._lock:
            if self._under_way:
                self._under_way.clear()
                self._top = max(self._safe_top, forgotten)

    def now(self, owner: str | None = None) -> int:
        """Return a number which exceeds what is published, and which all that comes exceeds.

        Args:
            owner: Only events of this user count, None for all.
        """
        with self._lock:
            if owner is None:
                first = next(iter(self._under_way.values()), None)
            else:
                first = self._under_way.get(owner)
            if first is not None:
                number = first - 1
            else:
                number = self._top = max(self._top, self._read_us())
            self._safe_top = max(self._safe_top, number)
            return number

    def latest(self) -> int:
        """Return a number that none exceeds which was given out until now."""
        with self._lock:
            return max(self._top, self._read_us())

    def _read_us(self) -> int:
        """Return the time: that of the wall clock, unless that was set back."""
        steady_ns = self._steady()
        self._now_ns = max(
            min(self._wall(), LATEST_US * 1000), self._now_ns + steady_ns - self._steady_ns
        )
        self._steady_ns = steady_ns
        return self._now_ns // 1000
