"""What `list` and `events` look for: as it may be sent, and as it is compared."""

from __future__ import annotations

from collections.abc import Mapping

from pman.actions._named import JobId


def as_text(given: JobId | None) -> str | None:
    """Return a job id or a user as jobs have it, None for any."""
    return None if given is None else str(given)


def as_labels(given: Mapping[str, JobId] | None) -> dict[str, str] | None:
    """Return labels to look for as jobs have them, None for any."""
    return None if not given else {key: str(value) for key, value in given.items()}
