"""What REST takes beside what actions take, and what it answers; for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pman.jobdb.jobview import JobView, State

# --- requests -------------------------------------------------------------------------------


class Nothing(msgspec.Struct):
    """Nothing at all."""


class CreateQuery(msgspec.Struct, rename="camel"):
    """Parameters of `POST /jobs`."""

    dry_run: Annotated[bool, Meta(description="Say what would be made, and make nothing.")] = False


class ContainerTarget(msgspec.Struct):
    """What a container job runs."""

    image: Annotated[str, Meta(description="Name of the image, as the engine knows it.")]


class ContainerEnv(msgspec.Struct, kw_only=True, rename="camel"):
    """Settings of a container job, in the place where 2.2 has them."""

    share_dir: Annotated[
        str | None,
        Meta(
            description="Absolute path of the folder for `/share`. On swarm it is one as pman sees"
            " it, and the job waits until it is there; on openshift only its last part counts, and"
            " only with `--storageType hostPath`. Default: no folder."
        ),
    ] = None
    service_name: Annotated[
        str | None, Meta(description="Name of the service on swarm. Default: made from `jid`.")
    ] = None


class ContainerManager(msgspec.Struct, kw_only=True):
    """What makes the service, in 2.2."""

    env: Annotated[ContainerEnv | None, Meta(description="Settings of the job.")] = None
    image: Annotated[
        str | None, Meta(description="Image of the manager, for `--swarmManager container` only.")
    ] = None
    app: Annotated[
        str | None, Meta(description="Script of the manager, for `--swarmManager container` only.")
    ] = None


class Container(msgspec.Struct, kw_only=True, rename="camel"):
    """What a container job is run in. Other keys, at any depth, are kept and not used."""

    target: Annotated[ContainerTarget, Meta(description="What to run.")]
    manager: Annotated[ContainerManager | None, Meta(description="How to run it.")] = None
    unique_name: Annotated[
        bool,
        Meta(description="Whether the object on the engine gets a name that no other job has."),
    ] = False


class JobKeys(msgspec.Struct, kw_only=True):
    """Keys of `run` that backends of containers read; `RunOptions` says little of them."""

    container: Annotated[
        Container | None, Meta(description="What to run it in; without it, on the host.")
    ] = None
    number_of_workers: Annotated[int | str, Meta(description="Containers of the job.")] = 1
    cpu_limit: (
        Annotated[
            int | str,
            Meta(
                description="Thousandths of a CPU for each container. Default: no limit on swarm,"
                " 2000 on openshift."
            ),
        ]
        | UnsetType
    ) = UNSET
    memory_limit: (
        Annotated[
            int | str,
            Meta(
                description="MiB for each container, or with a unit such as `Gi`. Default: no limit"
                " on swarm, 1024 on openshift."
            ),
        ]
        | UnsetType
    ) = UNSET
    gpu_limit: Annotated[int | str, Meta(description="GPUs for each container.")] = 0


# --- answers --------------------------------------------------------------------------------


class JobPage(msgspec.Struct):
    """One page of jobs, newest first."""

    jobs: Annotated[list[JobView], Meta(description="at most `limit` of them")]
    next: Annotated[str | None, Meta(description="`cursor` of the next page, null for the last")]


class JobList(msgspec.Struct):
    """Some jobs."""

    jobs: Annotated[list[JobView], Meta(description="all that were named")]


class WaitAnswer(msgspec.Struct, rename="camel"):
    """Jobs that were waited for."""

    is_done: Annotated[bool, Meta(description="whether all have ended; with `mode` any: one")]
    jobs: Annotated[list[JobView], Meta(description="all that were named")]


class DryRun(msgspec.Struct, rename="camel"):
    """What would be made."""

    dry_run: Annotated[dict[str, Any], Meta(description="the engine's object, or the process")]
    backend: Annotated[str, Meta(description="where it would run")]
    cmd: Annotated[str, Meta(description="command line, or one that stands for `argv`")]
    after: Annotated[list[str], Meta(description="ids of jobs that would have to end well first")]


class LogRecord(msgspec.Struct, kw_only=True):
    """A piece of what a job has printed, or word that a piece was dropped."""

    part: Annotated[int, Meta(description="part or worker, from 0")]
    stream: Annotated[Literal["stdout", "stderr"], Meta(description="what it was printed to")]
    attempt: Annotated[int, Meta(description="which try printed it, from 1")]
    offset: Annotated[int, Meta(description="of its first byte in the stream")]
    next: Annotated[int, Meta(description="offset behind its last byte")]
    text: (
        Annotated[str, Meta(description="U+FFFD stands for bytes that are not UTF-8")] | UnsetType
    ) = UNSET
    base64: Annotated[str, Meta(description="instead of `text`")] | UnsetType = UNSET
    dropped: (
        Annotated[tuple[int, int], Meta(description="instead: these bytes are no more")] | UnsetType
    ) = UNSET
    cursor: Annotated[str, Meta(description="goes on behind this")] | UnsetType = UNSET


class LogPage(msgspec.Struct, rename="camel"):
    """What a job has printed, or the next of it."""

    job: Annotated[str, Meta(description="`id` of the job")]
    jid: Annotated[str, Meta(description="the client's own id of the job")]
    state: Annotated[State | None, Meta(description="null: it was deleted meanwhile")]
    cursor: Annotated[str, Meta(description="goes on behind this")]
    is_complete: Annotated[bool, Meta(description="whether nothing will ever follow")]
    records: Annotated[list[LogRecord], Meta(description="pieces, in order for each stream")]


class EventView(msgspec.Struct, rename="camel", kw_only=True):
    """One thing that has happened to a job."""

    seq: Annotated[int, Meta(description="number; later events have greater ones")]
    at: Annotated[float, Meta(description="UTC epoch seconds")]
    kind: Annotated[
        Literal["state", "progress", "deleted"],
        Meta(description="what has changed; `deleted`: the job is forgotten"),
    ]
    job: Annotated[str, Meta(description="`id` of the job")]
    jid: Annotated[str, Meta(description="the client's own id of the job")]
    auid: Annotated[str, Meta(description="apparent user of the job")]
    backend: Annotated[str, Meta(description="where it runs")]
    state: Annotated[State, Meta(description="as it is after the change")]
    reason: Annotated[str, Meta(description="why, as a word: `ok`, `error`, ...")]
    message: Annotated[str, Meta(description="why, as a sentence for people")]
    exit_code: Annotated[int | None, Meta(description="of the job as a whole")]
    signal: Annotated[int | None, Meta(description="number of the signal that ended it")]
    attempt: Annotated[int, Meta(description="which try it is, from 1")]
    progress: Annotated[float | None, Meta(description="share of the work that is done, 0 to 1")]
    progress_text: Annotated[str, Meta(description="what the job says of its progress")]
    labels: Annotated[dict[str, str] | None, Meta(description="what the client calls the job by")]


class EventPage(msgspec.Struct, rename="camel"):
    """Events, oldest first."""

    events: Annotated[list[EventView], Meta(description="at most `limit` of them")]
    next: Annotated[int, Meta(description="`since` of the next request")]
    first_seq: Annotated[int, Meta(description="number of the oldest event that is kept")]
    gap: Annotated[bool, Meta(description="whether events before these have been forgotten")]


class Index(msgspec.Struct):
    """Where everything is."""

    name: Annotated[str, Meta(description="always `pman`")]
    version: Annotated[str, Meta(description="of the program")]
    links: Annotated[dict[str, str], Meta(description="operation -> address")]
