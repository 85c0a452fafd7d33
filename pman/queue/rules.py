"""What becomes of one job: its next try, its deadlines, and what an end means. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from pman.job.observation import Observation
from pman.job.record import ENDINGS, Cancellation, Job
from pman.job.state import JobState
from pman.jobdb.merge import merge
from pman.queue.alarms import Kind

#: Longest wait before another try, seconds.
MAX_BACKOFF_S = 3600.0

TIMEOUT, PENDING, CANCELING = ENDINGS

#: Fields of a try, as they are before it begins. Its parts and workers are shown until then.
_FRESH: dict[str, Any] = {
    "exit_code": None,
    "signal": None,
    "started_at": None,
    "ended_at": None,
    "handle": None,
    "progress": None,
    "progress_text": "",
}


def canceled(job: Job, grace_s: float, signal: int | None, now: float) -> Job | None:
    """Return an unfinished job as somebody cancels it; None when that asks for nothing new.

    Asked again, the earlier deadline counts, and the newer signal.
    """
    wish = Cancellation(now, grace_s, signal)
    known = job.cancel if job.ending == CANCELING else None
    if known is not None and known.left_s(now) <= grace_s:
        wish = msgspec.structs.replace(known, signal=signal)
    if wish == known:
        return None
    return msgspec.structs.replace(job, reason=CANCELING, message="it is to end", cancel=wish)


def judged(job: Job, seen: Observation) -> Observation:
    """Return what a backend saw, with what we know of why it ends the job.

    A job that was ended because its time was up has FAILED, whatever its backend calls that; one
    that has ended well before it could be told has ended well.
    """
    if job.hold == "released":
        seen.hold = ""
    ending = job.ending
    if not ending:
        return seen
    if seen.state is None or not seen.state.is_final:
        seen.reason = seen.message = None
    elif ending != CANCELING and seen.state in (JobState.CANCELED, JobState.FAILED):
        seen.state, seen.reason, seen.message = JobState.FAILED, ending, job.message
    return seen


def has_another_try(job: Job, seen: Observation) -> bool:
    """Tell whether the end that was seen is followed by another try.

    Only ends that a backend reports are. One that waited too long for its start has no time left,
    and one that somebody wants to end must not begin again.
    """
    return (
        seen.state is JobState.FAILED
        and job.attempt <= job.retries
        and job.ending not in (PENDING, CANCELING)
    )


def next_try(job: Job, seen: Observation, now: float) -> Job:
    """Return a job that has failed as it waits for its next try."""
    wait_s = min(job.backoff_s * 2.0 ** (job.attempt - 1), MAX_BACKOFF_S)
    why = f": {seen.message}" if seen.message else ""
    message = f"try {job.attempt} of {job.retries + 1} has failed{why}; the next follows"
    shown = Observation(name=job.name, parts=seen.parts, workers=seen.workers, facts=seen.facts)
    return msgspec.structs.replace(
        merge(job, shown, lambda: now),
        **_FRESH,
        state=JobState.QUEUED,
        hold="retry",
        attempt=job.attempt + 1,
        shown_attempt=job.attempt,
        not_before=now + wait_s,
        reason="retry",
        message=message,
    )


def start_deadline(job: Job) -> float | None:
    """Return when a job that has not started is given up, UTC epoch seconds.

    The time of a later try counts from when it might be tried.
    """
    if job.pending_timeout_s is None:
        return None
    since = job.accepted_at if job.attempt == 1 else job.not_before or job.accepted_at
    return since + job.pending_timeout_s


def end_deadline(job: Job) -> float | None:
    """Return when a job that has started is ended, UTC epoch seconds."""
    if job.timeout_s is None or job.started_at is None:
        return None
    return job.started_at + job.timeout_s


def is_due(job: Job, kind: Kind, now: float) -> bool:
    """Tell whether the alarm of an unfinished job is about how the job is now.

    The alarm may be of its last try: between the two that ended, and this one has time left.
    """
    if kind == "cancel":
        return True
    if kind == "retry":
        return job.hold == "retry" and (job.not_before is None or job.not_before <= now)
    if kind == "timeout":
        deadline = end_deadline(job)
        return deadline is not None and (deadline <= now or bool(job.ending))
    if job.ending == PENDING:
        return True
    deadline = start_deadline(job)
    return job.started_at is None and deadline is not None and deadline <= now


def timeout_message(job: Job) -> str:
    """Say that a job ran for too long."""
    return f"it ran longer than the {job.timeout_s:g} s of its timeout"


def pending_message(job: Job) -> str:
    """Say that a job waited for too long, and for what."""
    why = f": {job.message}" if job.message else ""
    return f"it did not start within the {job.pending_timeout_s:g} s of its pendingTimeout{why}"
