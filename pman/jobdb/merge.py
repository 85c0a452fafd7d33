"""An `Observation` applied to a `Job`: pure, gives a new job."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from pman.errors import InvalidTransition
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState, check_transition

_log = logging.getLogger(__name__)


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


def allowed(job: Job, observation: Observation) -> Observation:
    """Return the observation without its state if that can't follow the job's."""
    if observation.state is None:
        return observation
    try:
        check_transition(job.state, observation.state)
    except InvalidTransition as exc:
        _log.warning("job %s: %s; the state is ignored", job.name, exc)
        return msgspec.structs.replace(observation, state=None)
    return observation


def _own(value: Any) -> Any:
    """Copy what the backend may go on changing; text within is shared."""
    if isinstance(value, list):
        return [copy.copy(item) for item in value]
    return copy.deepcopy(value) if isinstance(value, dict) else value
