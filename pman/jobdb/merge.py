"""An `Observation` applied to a `Job`: pure, gives a new job."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec

from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState


def merge(job: Job, observation: Observation, now: Callable[[], float]) -> Job:
    """Return the job as it was seen, or `job` itself when nothing is new.

    Args:
        observation: Its state may follow the job's.
        now: UTC epoch seconds; for the moments of start and end that nobody reported.
    """
    seen = {
        name: _own(value)
        for name, value in msgspec.structs.asdict(observation).items()
        if value is not None and value != getattr(job, name)
    }
    if not seen:
        return job
    state = seen.get("state")
    if state is JobState.RUNNING and job.started_at is None:
        seen.setdefault("started_at", now())
    if state is not None and state.is_final and job.ended_at is None:
        seen.setdefault("ended_at", now())
    return msgspec.structs.replace(job, **seen, revision=job.revision + 1)


def _own(value: Any) -> Any:
    """Copy what the backend may go on changing; text within is shared."""
    if isinstance(value, list):
        return [copy.copy(item) for item in value]
    return copy.deepcopy(value) if isinstance(value, dict) else value
