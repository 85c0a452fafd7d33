"""What `list` and `events` look for: as it may be sent, and as it is compared."""

from __future__ import annotations

from collections.abc import Mapping

from pman.actions._named import JobId
from pman.job.state import JobState
from pman.jobdb.jobview import State

#: One state, or several, one of which it is to be.
States = list[State] | State | None


def as_states(given: States) -> frozenset[JobState] | None:
    """Return the states to look for, None for any."""
    if given is None:
        return None
    return frozenset(map(JobState, [given] if isinstance(given, str) else given))


def as_text(given: JobId | None) -> str | None:
    """Return a job id or a user as jobs have it, None for any."""
    return None if given is None else str(given)


def as_labels(given: Mapping[str, JobId] | None) -> dict[str, str] | None:
    """Return labels to look for as jobs have them, None for any."""
    return None if not given else {key: str(value) for key, value in given.items()}
