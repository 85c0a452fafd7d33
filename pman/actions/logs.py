"""`logs`: what a job prints, by offset, by its end, or while it prints it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pman.actions import action
from pman.actions._catchup import CatchUp
from pman.actions._joblog import JobLog, Position, Wanted, find_job, newest_started, position_of
from pman.actions._logbodies import RawBytes, Records
from pman.actions._named import JobId
from pman.actions.base import ActionContext, ActionRequest, Later, Outcome
from pman.auth import Role
from pman.errors import RequestError, shown
from pman.job.record import Job
from pman.job.state import JobState
from pman.logreading import StreamFile
from pman.output import STREAMS

#: Most bytes of one reply that is a document, and at least one character. It is made as a whole,
#: and takes six bytes for what JSON has to escape; who wants more has it streamed.
MAX_LIMIT_BYTES = 4 * 1024 * 1024
MIN_LIMIT_BYTES = 4

#: Most lines of a tail.
MAX_TAIL_LINES = 100_000

NDJSON = "application/x-ndjson"
PLAIN = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

#: Header of a raw reply: offset of its first byte.
OFFSET_HEADER = "Pman-Offset"

Size = Annotated[int, Meta(ge=0, le=1 << 62)]


class LogsMeta(msgspec.Struct, rename="camel"):
    """What `logs` takes."""

    jid: Annotated[JobId | None, Meta(description="Job id; of several jobs the newest.")] = None
    job: Annotated[str | None, Meta(description="Folder name of the job, instead of jid.")] = None
    stream: Annotated[Literal["stdout", "stderr", "both"], Meta(description="Which streams.")] = (
        "both"
    )
    part: Annotated[
        Annotated[int, Meta(ge=0, le=10**9 - 1)] | None,
        Meta(description="Part of a compound host job or worker of a container job, from 0."),
    ] = None
    attempt: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="One try of the job, from 1; by default the newest that has started, and"
            " those to come."
        ),
    ] = None
    offset: Annotated[
        Size | None, Meta(description="First byte wanted; only with one stream of one part.")
    ] = None
    tail_lines: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_TAIL_LINES)] | None,
        Meta(description="Begin with the last so many lines of each stream."),
    ] = None
    tail_bytes: Annotated[
        Size | None, Meta(description="Begin with the last so many bytes of each stream.")
    ] = None
    limit: Annotated[
        Annotated[int, Meta(ge=MIN_LIMIT_BYTES, le=1 << 62)] | None,
        Meta(
            description="Most bytes of output in one reply; --maxInlineOutput by default, without"
            " bound for raw bytes and where it is followed."
        ),
    ] = None
    cursor: Annotated[
        str | None, Meta(description="From an earlier reply: go on exactly there.")
    ] = None
    follow: Annotated[bool, Meta(description="Go on until the job has ended.")] = False
    encoding: Annotated[
        Literal["utf-8", "base64"],
        Meta(description="base64 gives the exact bytes; else U+FFFD stands for bytes not UTF-8."),
    ] = "utf-8"
    raw: Annotated[
        bool, Meta(description="Bytes of one stream instead of records, up to a gap or the end.")
    ] = False


@action("logs", role=Role.READ, takes=LogsMeta)
def logs(request: ActionRequest, context: ActionContext) -> Outcome | Later:
    """Return what a job has printed, or follow it; see `LogsMeta`.

    A document with records, or with `follow` the same records as lines of JSON, or with `raw`
    bytes. A reader that goes on with the cursor, or with the offset, gets every byte once.
    """
    meta = request.read_as(LogsMeta)
    _check(meta)
    if meta.tail_lines is None and meta.tail_bytes is None:
        return _outcome(request, meta, context)
    job = find_job(context, jid=meta.jid, name=meta.job)
    request.found = [job]
    _check_stream(meta, job, context)
    later = CatchUp(lambda: _outcome(request, meta, context), context)
    is_past = meta.attempt is not None and meta.attempt < job.attempt
    if is_past or job.state is not JobState.RUNNING or not later.begin(job):
        return _outcome(request, meta, context)
    return Later(later.subscribe)


def _check_stream(meta: LogsMeta, job: Job, context: ActionContext) -> None:
    """Refuse a stream that the backend does not tell from the other: none is not what was said."""
    backend = context.backends.get(job.backend)
    kept = STREAMS if backend is None else backend.streams
    if meta.stream != "both" and meta.stream not in kept:
        others = " or ".join(repr(name) for name in ("both", *kept))
        raise RequestError(
            f"stream is {meta.stream!r}, expected {others}: {job.backend} keeps no other stream",
            field="stream",
        )


def _outcome(request: ActionRequest, meta: LogsMeta, context: ActionContext) -> Outcome:
    """Return what is wanted, from what is in the files."""
    given = None if meta.cursor is None else position_of(meta.cursor)
    job = _read_before(meta, given, context) or find_job(context, jid=meta.jid, name=meta.job)
    request.found = [job]
    _check_stream(meta, job, context)
    position = _position(meta, given, job, context)
    log = JobLog(job, position, _wanted(meta), context)
    log.drop_unknown(job)
    _check_part(meta, job, log)
    needs_file = meta.raw or meta.offset is not None
    file = log.file(job, meta.part or 0, meta.stream) if needs_file else None
    _begin(meta, job, log, context)
    if file is not None and meta.offset is not None:
        position.offsets[file.name] = meta.offset
    if meta.raw:
        assert file is not None
        return _raw(meta, log, file, context)
    if meta.follow:
        return Outcome(True, stream=Records(log, context, meta.limit), content_type=NDJSON)
    return _document(meta, job, log, context)


def _check(meta: LogsMeta) -> None:
    """Refuse what contradicts itself."""
    begins = {
        "offset": meta.offset,
        "tailLines": meta.tail_lines,
        "tailBytes": meta.tail_bytes,
        "cursor": meta.cursor,
    }
    given = [name for name, value in begins.items() if value is not None]
    if len(given) > 1:
        raise RequestError(
            f"{given[1]} is given beside {given[0]}, expected one of them", field=given[1]
        )
    if (meta.raw or meta.offset is not None) and meta.stream == "both":
        what = "raw" if meta.raw else "offset"
        raise RequestError(
            f"stream is 'both', expected 'stdout' or 'stderr' with {what}", field="stream"
        )
    is_document = not meta.raw and not meta.follow
    if is_document and meta.limit is not None and meta.limit > MAX_LIMIT_BYTES:
        raise RequestError(
            f"limit is {meta.limit}, expected at most {MAX_LIMIT_BYTES} without follow and raw",
            field="limit",
        )


def _read_before(meta: LogsMeta, given: Position | None, context: ActionContext) -> Job | None:
    """Return the job of a cursor, if it has the job id: there may be a newer one by now."""
    job = None if given is None or meta.job is not None else context.store.get(given.job)
    if job is None or meta.jid is None or job.jid != str(meta.jid):
        return None
    return job


def _position(
    meta: LogsMeta, position: Position | None, job: Job, context: ActionContext
) -> Position:
    """Return where to begin, the tail aside; `position` is that of the cursor."""
    if meta.attempt is not None and meta.attempt > job.attempt:
        raise RequestError(
            f"attempt is {meta.attempt}, expected at most {job.attempt}", field="attempt"
        )
    if position is None:
        # Bytes are of one try: who follows them does not want those of one that has ended.
        is_live = meta.raw and meta.follow
        newest = job.attempt if is_live else newest_started(job, context)
        return Position(job.name, meta.attempt or newest)
    if position.job != job.name:
        raise RequestError(
            f"cursor is of job {shown(position.job)}, expected one of {job.name!r}", field="cursor"
        )
    if position.attempt != (meta.attempt or position.attempt) or position.attempt > job.attempt:
        raise RequestError(
            f"cursor is of attempt {position.attempt}, expected {meta.attempt or job.attempt}",
            field="cursor",
        )
    return position


def _wanted(meta: LogsMeta) -> Wanted:
    return Wanted(
        streams=STREAMS if meta.stream == "both" else (meta.stream,),
        part=meta.part,
        is_pinned=meta.attempt is not None,
        is_exact=meta.encoding == "base64",
        is_followed=meta.follow,
    )


def _check_part(meta: LogsMeta, job: Job, log: JobLog) -> None:
    """Refuse a part that there is not, or none where one of several is needed.

    Raises:
        RequestError: Says which there are.
    """
    is_needed = meta.raw or meta.offset is not None
    if meta.part is None and not is_needed:
        return
    count = log.count(job)
    there = "0" if count == 1 else f"0 to {count - 1}"
    if meta.part is not None and meta.part >= count:
        raise RequestError(f"part is {meta.part}, expected {there}", field="part")
    if meta.part is None and count > 1:
        what = "raw" if meta.raw else "offset"
        raise RequestError(f"part is missing, expected {there} with {what}", field="part")


def _begin(meta: LogsMeta, job: Job, log: JobLog, context: ActionContext) -> None:
    """Move to where the tail begins, if one is asked for."""
    if meta.tail_lines is None and meta.tail_bytes is None:
        return
    is_over = job.state.is_final or job.attempt > log.position.attempt
    for file in log.files(job, is_over=is_over):
        if meta.tail_lines is not None:
            offset = file.last_lines(meta.tail_lines)
        else:
            offset = file.last_bytes(meta.tail_bytes or 0)
        log.position.offsets[file.name] = offset


def _raw(meta: LogsMeta, log: JobLog, file: StreamFile, context: ActionContext) -> Outcome:
    offset = file.first_there(log.position.offsets.get(file.name, 0))
    body = RawBytes(log, file, offset, context, limit=meta.limit, is_followed=meta.follow)
    return Outcome(
        True,
        stream=body,
        content_type=BYTES if meta.encoding == "base64" else PLAIN,
        headers=((OFFSET_HEADER, str(offset)),),
    )


def _document(meta: LogsMeta, job: Job, log: JobLog, context: ActionContext) -> Outcome:
    limit = min(context.settings.max_inline_output_bytes, MAX_LIMIT_BYTES)
    records = log.read(meta.limit or max(MIN_LIMIT_BYTES, limit))
    now = log.job
    return Outcome(
        True,
        {
            "job": job.name,
            "jid": job.jid,
            "state": None if now is None else now.state.value,
            "cursor": log.position.cursor(),
            "isComplete": log.is_complete,
            "records": [msgspec.to_builtins(record) for record in records],
        },
    )
