"""`OrderIndex`: jobs in the order of acceptance, to be walked from any place. Has no lock."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator

#: Places without a job that may be left before the others move together.
MIN_STALE = 1000


class OrderIndex:
    """Names by number. `JobStore` calls it under its lock; who walks needs none.

    A job that goes leaves a hole, so that it costs nothing; more holes than jobs are closed.
    Lists are only appended to, or replaced as a whole: who walks one is not disturbed.
    """

    def __init__(self, has: Callable[[str, int], bool]) -> None:
        """Prepare.

        Args:
            has: Tells whether the job of that name still has that number.
        """
        self._has = has
        self._numbers: list[int] = []
        self._names: list[str] = []
        self._stale = 0
        self._last = 0

    def take_number(self, wanted: int = 0) -> int:
        """Return `wanted`, if that is above all numbers so far, or the next number."""
        self._last = max(self._last + 1, wanted)
        return self._last

    def add(self, number: int, name: str) -> None:
        """Put a job in its place, which is nearly always the last one."""
        if self._numbers and number < self._numbers[-1]:
            at = bisect.bisect(self._numbers, number)
            self._numbers = [*self._numbers[:at], number, *self._numbers[at:]]
            self._names = [*self._names[:at], name, *self._names[at:]]
            return
        self._names.append(name)  # first, as a walk goes by the numbers
        self._numbers.append(number)

    def discard(self) -> None:
        """Learn that a job has gone, and so has left a hole."""
        self._stale += 1
        if self._stale > MIN_STALE and 2 * self._stale > len(self._numbers):
            self._close_holes()

    def at(self, index: int) -> str | None:
        """Return the n-th name, negative from the newest; None out of range."""
        if self._stale:
            self._close_holes()
        return self._names[index] if -len(self._names) <= index < len(self._names) else None

    def newest_first(self, below: int | None = None) -> Iterator[str]:
        """Give the names of all numbers below one, holes included.

        Only the call needs the lock, as it takes two lists that belong together; the walk does not.
        """
        numbers, names = self._numbers, self._names
        end = len(numbers) if below is None else bisect.bisect_left(numbers, below)
        return (names[index] for index in range(end - 1, -1, -1))

    def _close_holes(self) -> None:
        kept = [
            (number, name)
            for number, name in zip(self._numbers, self._names, strict=True)
            if self._has(name, number)
        ]
        self._numbers = [number for number, _ in kept]
        self._names = [name for _, name in kept]
        self._stale = 0
