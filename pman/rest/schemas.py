"""What REST reads and answers, as structs; the OpenAPI document is made of them.

What an action takes is declared here again only where a query string or a body differs from `meta`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pman.job.spec import RunOptions
from pman.jobdb.jobview import JobView, State

#: Latest moment that is taken for one, UTC epoch seconds; it also keeps infinity out.
END_OF_TIME = 1e11

Moment = Annotated[float, Meta(ge=0, le=END_OF_TIME)]


class Strict(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a client sends; a name that is not known is a mistake, and not passed over."""


# --- queries --------------------------------------------------------------------------------


class NoQuery(Strict):
    """No parameters."""


class CreateQuery(Strict):
    """Parameters of `POST /jobs`."""

    dry_run: Annotated[bool, Meta(description="say what would be made, and make nothing")] = False


class ListQuery(Strict):
    """Parameters of `GET /jobs`; all that is given must be true of a job."""

    state: Annotated[list[State], Meta(description="one of these states")] = []
    jid: Annotated[str, Meta(description="this job id")] | UnsetType = UNSET
    jid_prefix: Annotated[str, Meta(description="a job id that begins so")] | UnsetType = UNSET
    auid: Annotated[str, Meta(description="this apparent user")] | UnsetType = UNSET
    backend: Annotated[str, Meta(description="this backend")] | UnsetType = UNSET
    label: Annotated[
        list[Annotated[str, Meta(extra_json_schema={"pattern": "^[^=]+="})]],
        Meta(description="`key=value`: this label, with this value"),
    ] = []
    since: (
        Annotated[Moment, Meta(description="accepted then or later, UTC epoch seconds")] | UnsetType
    ) = UNSET
    until: (
        Annotated[Moment, Meta(description="accepted before then, UTC epoch seconds")] | UnsetType
    ) = UNSET
    limit: Annotated[int, Meta(ge=1, le=1000, description="most jobs of one page")] = 100
    cursor: Annotated[str, Meta(description="`next` of the page before")] | UnsetType = UNSET


class WaitQuery(Strict):
    """Parameters of `GET /jobs/{id}/wait`."""

    timeout: Annotated[
        float, Meta(ge=0, le=3600, description="most that the answer may take, seconds")
    ] = 60.0


class LogsQuery(Strict):
    """Parameters of `GET /jobs/{id}/logs`."""

    stream: (
        Annotated[Literal["stdout", "stderr", "both"], Meta(description="which stream")] | UnsetType
    ) = UNSET
    part: (
        Annotated[int, Meta(ge=0, le=100_000, description="which part or worker, from 0")]
        | UnsetType
    ) = UNSET
    attempt: (
        Annotated[int, Meta(ge=1, le=100_000, description="which try; the newest by default")]
        | UnsetType
    ) = UNSET
    offset: Annotated[int, Meta(ge=0, le=2**53, description="begin at this byte")] | UnsetType = (
        UNSET
    )
    tail_lines: (
        Annotated[int, Meta(ge=0, le=10_000_000, description="only the last lines")] | UnsetType
    ) = UNSET
    tail_bytes: (
        Annotated[int, Meta(ge=0, le=2**53, description="only the last bytes")] | UnsetType
    ) = UNSET
    limit: (
        Annotated[int, Meta(ge=1, le=2**53, description="most bytes of one answer")] | UnsetType
    ) = UNSET
    cursor: Annotated[str, Meta(description="`next` of the answer before")] | UnsetType = UNSET
    follow: Annotated[bool, Meta(description="go on until the job has ended")] = False
    encoding: (
        Annotated[
            Literal["utf-8", "base64"],
            Meta(description="how bytes are spelled in JSON"),
        ]
        | UnsetType
    ) = UNSET
    raw: Annotated[bool, Meta(description="the bytes of one stream, as with `text/plain`")] = False


class EventsQuery(Strict):
    """Parameters of both `/events`."""

    since: (
        Annotated[int, Meta(ge=0, le=2**53, description="only events with a greater number")]
        | UnsetType
    ) = UNSET
    wait: Annotated[
        float, Meta(ge=0, le=3600, description="wait so long for the first one, seconds")
    ] = 0.0
    limit: (
        Annotated[int, Meta(ge=1, le=1000, description="most events of one answer")] | UnsetType
    ) = UNSET
    follow: Annotated[bool, Meta(description="a stream of server-sent events")] = False


# --- bodies ---------------------------------------------------------------------------------


class _EngineKeys(Strict):
    """Keys of 2.2 that only backends read, and which therefore `RunOptions` does not have."""

    number_of_workers: (
        Annotated[int | str, Meta(description="Containers of the job.")] | UnsetType
    ) = msgspec.field(default=UNSET, name="number_of_workers")
    cpu_limit: (
        Annotated[int | str, Meta(description="Thousandths of a CPU for each container.")]
        | UnsetType
    ) = msgspec.field(default=UNSET, name="cpu_limit")
    memory_limit: (
        Annotated[int | str, Meta(description="MiB for each container, or with a unit.")]
        | UnsetType
    ) = msgspec.field(default=UNSET, name="memory_limit")
    gpu_limit: Annotated[int | str, Meta(description="GPUs for each container.")] | UnsetType = (
        msgspec.field(default=UNSET, name="gpu_limit")
    )


def _job_fields() -> list[tuple[str, Any, Any]]:
    """Return the fields of `JobRequest`: what `run` takes, but that it never waits for the end."""
    own = {
        "auid": Annotated[str, Meta(description="Whose job it is; of nobody by default.")],
        "jid": Annotated[str, Meta(description="Id of the job; a fresh UUID by default.")],
    }
    found: list[tuple[str, Any, Any]] = []
    for field in (*msgspec.structs.fields(RunOptions), *msgspec.structs.fields(_EngineKeys)):
        if field.name in own:
            spelled = msgspec.field(default=UNSET)
            found.append((field.name, own[field.name] | UnsetType, spelled))
        elif field.name != "threaded":
            spelled = msgspec.field(default=field.default, name=field.encode_name)
            found.append((field.name, field.type, spelled))
    return found


JobRequest = msgspec.defstruct(
    "JobRequest", _job_fields(), module=__name__, kw_only=True, forbid_unknown_fields=True
)
JobRequest.__doc__ = "What to run: `cmd` or `argv`, and whatever else `run` takes."


class CancelRequest(Strict):
    """How to end a job; nothing has to be said."""

    grace: (
        Annotated[
            float,
            Meta(ge=0, le=86400, description="from asking to forcing, seconds; else --killGrace"),
        ]
        | UnsetType
    ) = UNSET
    signal: (
        Annotated[int | str, Meta(description='asks the job to end: `"INT"`, `2`; else SIGTERM')]
        | UnsetType
    ) = UNSET


# --- answers --------------------------------------------------------------------------------


class JobPage(msgspec.Struct):
    """One page of jobs, newest first."""

    jobs: list[JobView]
    next: Annotated[str | None, Meta(description="`cursor` of the next page, null for the last")]


class DryRun(msgspec.Struct):
    """What would be made."""

    backend: Annotated[str, Meta(description="where it would run")]
    plan: Annotated[dict[str, Any], Meta(description="the engine's object, or the process")]


class EventView(msgspec.Struct, rename="camel"):
    """One thing that has happened to a job."""

    seq: Annotated[int, Meta(description="number; later events have greater ones")]
    at: Annotated[float, Meta(description="UTC epoch seconds")]
    kind: Literal["state", "progress", "deleted"]
    job: Annotated[str, Meta(description="`id` of the job")]
    jid: str
    auid: str
    backend: str
    state: State
    reason: str
    message: str
    exit_code: int | None
    signal: int | None
    attempt: int
    progress: float | None
    progress_text: str


class EventPage(msgspec.Struct):
    """Events, oldest first."""

    events: list[EventView]
    next: Annotated[int, Meta(description="`since` of the next request")]


class LogPage(msgspec.Struct):
    """Pieces of what a job has printed."""

    chunks: list[dict[str, Any]]
    next: Annotated[str | None, Meta(description="`cursor` of the next answer")]


class Index(msgspec.Struct):
    """Where everything is."""

    name: str
    version: Annotated[str, Meta(description="of the program")]
    links: Annotated[dict[str, str], Meta(description="operation -> address")]
