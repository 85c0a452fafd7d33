"""The states of a job and the moves between them, as data."""

from __future__ import annotations

import enum

from pman.errors import InvalidTransition


class JobState(enum.Enum):
    """Where a job stands; COMPLETED, FAILED, CANCELED and LOST are final."""

    # The docstring is shown to clients. The values are the spelling on the wire and on disk.
    NEW = "NEW"  #: durable, not yet given to its backend
    QUEUED = "QUEUED"  #: waits: pman holds it, or its backend has it and has not started it
    RUNNING = "RUNNING"  #: at least one part or worker runs
    COMPLETED = "COMPLETED"  #: every part and worker returned 0
    FAILED = "FAILED"  #: ended with another code, or could not be started
    CANCELED = "CANCELED"  #: ended because somebody asked for it
    LOST = "LOST"  #: gone, and how it ended can't be known

    #: True for the states that a job never leaves. An attribute, because each `status` reads it.
    is_final: bool

    def __init__(self, spelling: str) -> None:
        self.is_final = spelling in ("COMPLETED", "FAILED", "CANCELED", "LOST")


FINAL_STATES = frozenset(state for state in JobState if state.is_final)

#: state -> states that may follow; steps may be skipped, nothing goes back, a final state is final.
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.NEW: frozenset({JobState.QUEUED, JobState.RUNNING}) | FINAL_STATES,
    JobState.QUEUED: frozenset({JobState.RUNNING}) | FINAL_STATES,
    JobState.RUNNING: FINAL_STATES,
    **{state: frozenset() for state in FINAL_STATES},
}

#: The moves of a job that has failed and is tried again: the next try begins where others wait.
RETRY_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    state: frozenset({JobState.QUEUED}) for state in JobState if not state.is_final
}


def check_transition(old: JobState, new: JobState, *, is_retry: bool = False) -> None:
    """Raise unless `new` may follow `old`; staying in a state is allowed.

    Args:
        is_retry: The job begins its next try with it.
    Raises:
        InvalidTransition: The table does not hold the move.
    """
    after = RETRY_TRANSITIONS.get(old, frozenset()) if is_retry else TRANSITIONS[old]
    if new is not old and new not in after:
        raise InvalidTransition(f"a job in state {old.value} cannot become {new.value}")
