"""How a job is shown as JSON, everywhere but in 2.2's own replies."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pman.job.record import Job
from pman.jobdb.recordtree import status_word

State = Literal["NEW", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELED", "LOST"]

Seconds = Annotated[float, msgspec.Meta(description="UTC epoch seconds")]


class PartView(msgspec.Struct, frozen=True, rename="camel"):
    """One command of a host job."""

    cmd: str
    exit_code: Annotated[
        int | None, msgspec.Meta(description="negative for the signal that ended it")
    ] = None
    started_at: Seconds | None = None
    ended_at: Seconds | None = None


class WorkerView(msgspec.Struct, frozen=True, rename="camel"):
    """One container of a container job."""

    name: str
    state: Annotated[str, msgspec.Meta(description="the engine's own word")] = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""


class JobView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a client is shown of a job."""

    id: Annotated[str, msgspec.Meta(description="unique name of the job, made by pman")]
    jid: Annotated[str, msgspec.Meta(description="the client's own id; several jobs may have it")]
    auid: Annotated[str, msgspec.Meta(description="apparent user")]
    cmd: str
    backend: Annotated[str, msgspec.Meta(description="where it runs")]
    state: State
    status: Annotated[str, msgspec.Meta(description="the state as a word of 2.2")]
    reason: Annotated[str, msgspec.Meta(description="why, as a word: `ok`, `error`, ...")]
    message: Annotated[str, msgspec.Meta(description="why, as a sentence for people")]
    exit_code: int | None
    signal: Annotated[int | None, msgspec.Meta(description="number of the signal that ended it")]
    attempt: Annotated[int, msgspec.Meta(description="which try it is, from 1")]
    retries: Annotated[int, msgspec.Meta(description="how many further tries it may have")]
    priority: int
    labels: dict[str, str]
    after: Annotated[
        list[str], msgspec.Meta(description="ids of jobs that must end well first and have not")
    ]
    hold: Annotated[
        Literal["", "limit", "after", "retry"],
        msgspec.Meta(description="why it has not been given to its backend; empty if it has"),
    ]
    progress: Annotated[
        float | None, msgspec.Meta(description="share of the work that is done, 0 to 1")
    ]
    progress_text: Annotated[str, msgspec.Meta(description="what the job says of its progress")]
    created_at: Seconds
    started_at: Seconds | None
    ended_at: Seconds | None
    parts: Annotated[list[PartView], msgspec.Meta(description="commands of a host job")]
    workers: Annotated[list[WorkerView], msgspec.Meta(description="containers of a container job")]


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
