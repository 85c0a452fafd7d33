"""How a job is shown as JSON, everywhere but in 2.2's own replies."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pman.job.record import Job
from pman.jobdb.recordtree import status_word

State = Literal["NEW", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELED", "LOST"]


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class PartView(msgspec.Struct, frozen=True, rename="camel"):
    """One command of a host job."""

    cmd: Annotated[str, _about("piece of the command line")]
    exit_code: Annotated[int | None, _about("negative for the signal that ended it")] = None
    started_at: Annotated[float | None, _about("UTC epoch seconds; null before")] = None
    ended_at: Annotated[float | None, _about("UTC epoch seconds; null before")] = None


class WorkerView(msgspec.Struct, frozen=True, rename="camel"):
    """One container of a container job."""

    name: Annotated[str, _about("the engine's name of it: task, pod")]
    state: Annotated[str, _about("the engine's own word")] = ""
    exit_code: Annotated[int | None, _about("null while it is not known")] = None
    reason: Annotated[str, _about("why, as a word of pman; empty: there is nothing to say")] = ""
    message: Annotated[str, _about("why, in the engine's words")] = ""


class JobView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a client is shown of a job."""

    id: Annotated[str, _about("unique name of the job, made by pman")]
    jid: Annotated[str, _about("the client's own id; several jobs may have it")]
    auid: Annotated[str, _about("apparent user")]
    cmd: Annotated[str, _about("command line, or one that stands for `argv`")]
    backend: Annotated[str, _about("where it runs")]
    state: Annotated[
        State,
        _about("where it stands; COMPLETED, FAILED, CANCELED and LOST are final, none other is"),
    ]
    status: Annotated[str, _about("the state as a word of 2.2")]
    reason: Annotated[str, _about("why, as a word: `ok`, `error`, ...")]
    message: Annotated[str, _about("why, as a sentence for people")]
    exit_code: Annotated[
        int | None,
        _about("of several parts the last, of several containers the first that is not 0"),
    ]
    signal: Annotated[int | None, _about("number of the signal that ended it")]
    attempt: Annotated[int, _about("which try it is, from 1")]
    retries: Annotated[int, _about("how many further tries it may have")]
    priority: Annotated[int, _about("who waits with a higher one is started first")]
    labels: Annotated[dict[str, str], _about("what the client calls it by")]
    after: Annotated[list[str], _about("ids of jobs that must end well first and have not")]
    hold: Annotated[
        Literal["", "limit", "after", "retry"],
        _about("why it has not been given to its backend; empty if it has"),
    ]
    progress: Annotated[float | None, _about("share of the work that is done, 0 to 1")]
    progress_text: Annotated[str, _about("what the job says of its progress")]
    created_at: Annotated[float, _about("when it was accepted, UTC epoch seconds")]
    started_at: Annotated[
        float | None, _about("when the newest try began, UTC epoch seconds; null before")
    ]
    ended_at: Annotated[
        float | None, _about("when the newest try ended, UTC epoch seconds; null before")
    ]
    parts: Annotated[
        list[PartView], _about("commands of a host job, also those that have not begun")
    ]
    workers: Annotated[list[WorkerView], _about("containers of a container job")]


def job_view(job: Job) -> JobView:
    """Return what a client is shown of a job."""
    return JobView(
        id=job.name,
        jid=job.jid,
        auid=job.auid,
        cmd=job.cmd,
        backend=job.backend,
        state=job.state.value,
        status=status_word(job),
        reason=job.reason,
        message=job.message,
        exit_code=job.exit_code,
        signal=job.signal,
        attempt=job.attempt,
        retries=job.retries,
        priority=job.priority,
        labels=job.labels or {},
        after=job.after or [],
        hold="" if job.hold == "released" else job.hold,
        progress=job.progress,
        progress_text=job.progress_text,
        created_at=job.accepted_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        parts=[
            PartView(part.cmd, part.returncode, part.started_at, part.ended_at)
            for part in job.parts
        ],
        workers=[
            WorkerView(each.name, each.state, each.returncode, each.reason, each.message)
            for each in job.workers
        ],
    )
