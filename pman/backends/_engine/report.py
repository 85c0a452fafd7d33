"""What a `View` means in the words of jobs; pure."""

from __future__ import annotations

from pman.backends._engine.port import Phase, View
from pman.job.observation import Observation
from pman.job.state import JobState


def progress(view: View, *, has_started: bool) -> Observation:
    """Say how an unfinished job stands.

    Args:
        has_started: Whether it has been reported as RUNNING; it never goes back.
    """
    is_running = view.phase is not Phase.WAITING
    state = JobState.RUNNING if is_running else None if has_started else JobState.QUEUED
    return Observation(
        name=view.job_name,
        state=state,
        reason=view.reason,
        message=view.message,
        started_at=view.started_at,
        workers=list(view.workers),
        handle=view.handle,
        extra=view.extra,
    )


def end(view: View, now_s: float, note: str = "") -> Observation:
    """Say how a job has ended.

    Args:
        view: Of the phase ENDED.
        now_s: UTC epoch seconds, for an engine that does not say when it ended.
        note: What went wrong with its output.
    """
    state = view.outcome or JobState.LOST
    reason = view.reason or ("lost" if state is JobState.LOST else "error")
    seen = _end(view, state, reason, _join(view.message, note), now_s)
    if state is JobState.COMPLETED:
        seen.reason = view.reason or "ok"
    return seen


def forced_end(
    view: View | None,
    name: str,
    state: JobState,
    reason: str,
    message: str,
    now_s: float,
    note: str = "",
) -> Observation:
    """Say that a job was ended by us, with what was last seen of it."""
    message = _join(message, note)
    if view is None:
        return Observation(name=name, state=state, reason=reason, message=message, ended_at=now_s)
    return _end(view, state, reason, message, now_s)


def _end(view: View, state: JobState, reason: str, message: str, now_s: float) -> Observation:
    return Observation(
        name=view.job_name,
        state=state,
        reason=reason,
        message=message,
        exit_code=view.exit_code,
        signal=view.signal,
        started_at=view.started_at,
        ended_at=now_s if view.ended_at is None else view.ended_at,
        workers=list(view.workers),
        handle=view.handle,
        extra=view.extra,
    )


def _join(message: str, note: str) -> str:
    return f"{message}; {note}" if message and note else message or note
