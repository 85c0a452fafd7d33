"""How far a job has come, in 2.2's terms: sub-jobs started and ended, and their fields. Pure.

A part of a host job is a sub-job; the containers of a container job are one sub-job together.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pman.job.record import Job, Part, local_time
from pman.job.state import JobState
from pman.wire import HOST

#: 2.2 wrote the pid down this long after the start; it comes later in the sub-job of a part that
#: had ended by then. Seconds. Source: golden host-080 and host-203.
PID_DELAY_S = 0.1

#: Words of the engines for a container that has not started yet. Source: WIRE.md 9.2 for swarm;
#: for Kubernetes the pod phases and the waiting reasons of its containers.
_NOT_STARTED = frozenset(
    {"new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "allocated"}
    | {"rejected", "waiting", "containercreating", "podinitializing", "unschedulable"}
)


class Progress(msgspec.Struct, frozen=True):
    """Sub-jobs that started and that ended; `is_over`: no more will come, and they are equal."""

    started: int
    ended: int
    is_over: bool


def progress(job: Job) -> Progress:
    """Return how many sub-jobs started and ended; parts that never ran do not count."""
    is_over = job.state.is_final
    if job.backend == HOST:
        started = ended = 0
        for part in job.parts:
            if _has_started(part):
                started += 1
                ended += _has_ended(part)
    else:
        started = int(_container_started(job))
        ended = 0
    return Progress(started, started if is_over else ended, is_over)


def start_triggers(job: Job) -> list[bool]:
    """Return `startTrigger` of `done`: true per sub-job, the newest of several left out.

    A container job has one per container that started. Source: WIRE.md 4.4.
    """
    done = progress(job)
    if job.backend != HOST:
        return [True] * (max(1, sum(map(_worker_started, job.workers))) if done.started else 0)
    return [True] * _shown(done.started, done.is_over)


def return_codes(job: Job) -> list[int | None]:
    """Return `returncode` of `done`: one per sub-job that ended, the newest of several left out.

    A container job has one per container that ended. None stands for a code that nobody knows.
    Source: WIRE.md 4.4.
    """
    done = progress(job)
    if job.backend != HOST:
        return _worker_codes(job, done)
    codes = [part.returncode for part in started_parts(job)]
    return codes[: _shown(done.ended, done.is_over)]


def started_parts(job: Job) -> list[Part]:
    """Return the sub-jobs that started; the containers of a job as one."""
    if job.backend == HOST:
        return [part for part in job.parts if _has_started(part)]
    if not _container_started(job):
        return []
    code = job.exit_code
    if code is None and job.signal is not None:
        code = -job.signal
    return [Part(job.cmd, None, job.started_at, job.ended_at, code)]


def subjob_fields(job: Job, part: Part) -> dict[str, Any]:
    """Return the fields of one sub-job, without its output; key order as in 2.2.

    Source: WIRE.md 8.2.
    """
    is_ended = is_subjob_ended(job, part)
    fields: dict[str, Any] = {
        "cmd": part.cmd,
        "done": is_ended,
        "started": not is_ended,
        "startTrigger": True,
        "eventFunctionDone": False,
    }
    if job.facts is not None:
        fields["system"] = job.facts.system
        fields["machine"] = job.facts.machine
        fields["platform"] = job.facts.platform
        fields["uname"] = list(job.facts.uname)
        fields["version"] = job.facts.version
    if part.started_at is not None:
        fields["startstamp"] = local_time(part.started_at)
    pid = {} if part.pid is None else {"pid": part.pid}
    if not is_ended:
        return fields | pid
    end: dict[str, Any] = {}
    if part.ended_at is not None:
        end["endstamp"] = local_time(part.ended_at)
    end["doneTrigger"] = True
    fields |= end | pid if _is_brief(part) else pid | end
    if part.returncode is not None:
        fields["returncode"] = part.returncode
    return fields


def is_subjob_ended(job: Job, part: Part) -> bool:
    """Return whether a sub-job has ended, and so shows its output."""
    return job.state.is_final or _has_ended(part)


def _shown(epochs: int, is_over: bool) -> int:
    """Return how many sub-jobs count: the highest epoch does not if there are several.

    When all is over the highest epoch is the marker behind the last sub-job.
    """
    return epochs if is_over or epochs < 2 else epochs - 1


def _has_started(part: Part) -> bool:
    return part.started_at is not None or part.pid is not None or _has_ended(part)


def _has_ended(part: Part) -> bool:
    return part.ended_at is not None or part.returncode is not None


def _is_brief(part: Part) -> bool:
    return (
        part.started_at is not None
        and part.ended_at is not None
        and part.ended_at - part.started_at < PID_DELAY_S
    )


def _container_started(job: Job) -> bool:
    return (
        job.started_at is not None
        or job.state is JobState.RUNNING
        or any(worker.returncode is not None for worker in job.workers)
    )


def _worker_started(worker: Any) -> bool:
    return worker.returncode is not None or worker.state.lower() not in _NOT_STARTED


def _worker_codes(job: Job, done: Progress) -> list[int | None]:
    codes: list[int | None] = [
        worker.returncode for worker in job.workers if worker.returncode is not None
    ]
    if not codes and done.is_over and done.started and job.exit_code is not None:
        return [job.exit_code]
    return codes
