"""Which finished jobs are too many, too old, or too large to be kept. Pure: no clock, no files."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """How much is kept of finished jobs; 0 stands for no limit.

    Attributes:
        jobs: Number of them.
        age_s: Seconds since they ended.
        output_bytes: Size of what all of them printed.
    """

    jobs: int = 0
    age_s: float = 0.0
    output_bytes: int = 0

    def is_much(self, jobs: int, output_bytes: int) -> bool:
        """Tell whether jobs of this number and size are too many."""
        return 0 < self.jobs < jobs or 0 < self.output_bytes < output_bytes

    def is_old(self, age_s: float) -> bool:
        """Tell whether a job that ended so long ago is too old."""
        return 0 < self.age_s < age_s


class Ledger:
    """Finished jobs in the order in which they ended, and the size of their output.

    A name and a number a job: there may be very many. No lock; one thread has it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sizes: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._total_bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, name: str) -> bool:
        return name in self._sizes or name in self._held

    def add(self, name: str, size_bytes: int = 0) -> None:
        """Add a job behind all others, or correct the size of one that is here."""
        if name in self._held:
            self._held[name] = size_bytes
            return
        self._total_bytes += size_bytes - self._sizes.get(name, 0)
        self._sizes[name] = size_bytes

    def discard(self, name: str) -> None:
        """Forget a job; not there is fine."""
        self._total_bytes -= self._sizes.pop(name, 0)
        self._held.pop(name, None)

    def hold(self, name: str) -> None:
        """Leave a job out of account: it was to go, and cannot go now."""
        if name in self._sizes:
            size_bytes = self._sizes[name]
            self.discard(name)
            self._held[name] = size_bytes

    def release(self) -> None:
        """Put the jobs that were held back in front of all others."""
        if self._held:
            self._total_bytes += sum(self._held.values())
            self._sizes = self._held | self._sizes
            self._held = {}

    def surplus(self, now_s: float, ended_at: Callable[[str], float], most: int) -> list[str]:
        """Return jobs that are to go, those that ended first in front.

        Args:
            now_s: UTC epoch seconds.
            ended_at: Tells when a job ended, UTC epoch seconds.
            most: Length of the list.
        """
        found: list[str] = []
        left, left_bytes = len(self._sizes), self._total_bytes
        for name, size_bytes in itertools.islice(self._sizes.items(), most):
            if not self._limits.is_much(left, left_bytes) and not self._limits.is_old(
                now_s - ended_at(name)
            ):
                break
            found.append(name)
            left -= 1
            left_bytes -= size_bytes
        return found
