"""What the shepherd's record of a job means in the words of jobs; pure."""

from __future__ import annotations

import signal

from pman.job.observation import Observation
from pman.job.record import HostFacts, Part
from pman.job.state import JobState
from pman.shepherd.protocol import JobRecord


def observation(record: JobRecord, facts: HostFacts, shepherd_pid: int) -> Observation:
    """Say how a job stands.

    The exit code or signal of the job is that of the last part that failed, as a shell that is
    asked what went wrong last would answer. `ended_at` stays None when a part has no known end.
    """
    started = [part.started_at for part in record.parts if part.started_at is not None]
    ended = [part.ended_at for part in record.parts if part.ended_at is not None]
    current = next((part for part in reversed(record.parts) if part.pid is not None), None)
    seen = Observation(
        name=record.name,
        state=JobState.RUNNING,
        started_at=started[0] if started else None,
        parts=[
            Part(
                cmd=part.cmd,
                pid=part.pid,
                started_at=part.started_at,
                ended_at=part.ended_at,
                returncode=part.returncode,
            )
            for part in record.parts
        ],
        handle={
            "shepherd": shepherd_pid,
            "boot": record.boot,
            "pid": current.pid if current else None,
            "start_ticks": current.start_ticks if current else None,
        },
        facts=facts,
    )
    if record.is_ended:
        # A log of which not even the first line was written leaves a record without parts.
        seen.ended_at = ended[-1] if ended and len(ended) == len(record.parts) else None
        _judge(record, seen)
    return seen


def _judge(record: JobRecord, seen: Observation) -> None:
    """Fill in how a job has ended."""
    failed = [(n, part.returncode) for n, part in enumerate(record.parts, 1) if part.returncode]
    if failed and not record.lost:
        code = failed[-1][1] or 0
        seen.exit_code, seen.signal = (code, None) if code > 0 else (None, -code)
    if record.lost:
        seen.state, seen.reason, seen.message = JobState.LOST, "lost", record.lost
    elif record.is_canceled:
        seen.state, seen.reason, seen.message = JobState.CANCELED, "canceled", "canceled"
    elif record.failure:
        seen.state, seen.reason, seen.message = JobState.FAILED, "error", record.failure
    elif failed:
        seen.state, seen.reason = JobState.FAILED, "error"
        seen.message = _failure(failed[-1][0], len(record.parts), failed[-1][1] or 0)
    else:
        seen.state, seen.reason, seen.message = JobState.COMPLETED, "ok", ""
        seen.exit_code = 0


def _failure(number: int, count: int, code: int) -> str:
    how = f"ended with exit code {code}" if code > 0 else f"was ended by {_signal_name(-code)}"
    return f"part {number} of {count} {how}" if count > 1 else f"the command {how}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
