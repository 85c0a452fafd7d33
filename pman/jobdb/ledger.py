"""`Ledger`: how many jobs there are, were accepted and have ended. No lock; `JobStore` has it."""

from __future__ import annotations

import re

from pman.job.record import Hold, Job
from pman.job.state import JobState
from pman.meters import OTHER

#: Reasons that are counted by name; what comes beyond them is one.
MAX_REASONS = 64

_REASON = re.compile(r"[a-z][a-z_]{0,39}", re.ASCII)

#: What tells jobs apart: backend, state, why pman keeps it to itself.
Kind = tuple[str, JobState, Hold]


class Ledger:
    """Counts kept up to date with each change, so that nobody walks all jobs to count them."""

    __slots__ = ("_accepted", "_ended", "_kinds", "_reasons")

    def __init__(self) -> None:
        self._kinds: dict[Kind, int] = {}
        self._accepted: dict[str, int] = {}
        self._ended: dict[tuple[str, str], int] = {}
        self._reasons: set[str] = set()

    # --- by the store, with its lock held -------------------------------------------------

    def put(self, former: Job | None, job: Job) -> None:
        """Count a job that is new, or stands in the place of what it was before."""
        kind = _kind(job)
        if former is not None:
            before = _kind(former)
            if before == kind:
                return
            self._less(before)
        self._kinds[kind] = self._kinds.get(kind, 0) + 1

    def take_out(self, job: Job) -> None:
        """Stop counting a job."""
        self._less(_kind(job))

    def accepted(self, job: Job) -> None:
        """Count a job that a client has sent."""
        self._accepted[job.backend] = self._accepted.get(job.backend, 0) + 1

    def ended(self, job: Job) -> None:
        """Count the end of a job."""
        reason = job.reason or job.state.value.lower()
        if reason not in self._reasons:
            if len(self._reasons) < MAX_REASONS and _REASON.fullmatch(reason):
                self._reasons.add(reason)
            else:
                reason = OTHER
        key = job.backend, reason
        self._ended[key] = self._ended.get(key, 0) + 1

    def _less(self, kind: Kind) -> None:
        self._kinds[kind] -= 1
        if not self._kinds[kind]:
            del self._kinds[kind]

    # --- by anybody -----------------------------------------------------------------------

    def jobs(self) -> list[tuple[Kind, int]]:
        """Return how many jobs there are of each kind."""
        return list(self._kinds.items())

    def all_accepted(self) -> list[tuple[str, int]]:
        """Return (backend, jobs accepted since the start)."""
        return list(self._accepted.items())

    def all_ended(self) -> list[tuple[tuple[str, str], int]]:
        """Return ((backend, reason), jobs that have ended since the start)."""
        return list(self._ended.items())


def _kind(job: Job) -> Kind:
    return job.backend, job.state, job.hold
