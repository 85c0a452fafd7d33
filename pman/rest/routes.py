"""The operations of the REST API, as data: what each takes, which action it is, how it answers.

The only place that knows how a request of REST becomes the `meta` of an action and how an outcome
becomes an answer.
"""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Annotated, Any

from msgspec import Meta

from pman import __version__
from pman.actions.backends import BackendList
from pman.actions.base import Outcome
from pman.errors import KeyReused, PmanError, UnknownJob
from pman.jobdb.jobview import JobView, job_view
from pman.rest import examples, idempotency, links, schemas
from pman.rest.route import JSON, PROBLEM, Answer, Call, Reply, Route

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
TEXT = "text/plain"
BYTES = "application/octet-stream"


# --- POST /jobs -----------------------------------------------------------------------------


def _run_meta(call: Call) -> dict[str, Any]:
    defaults = {"auid": call.caller.auid or "", "jid": str(uuid.uuid4())}
    meta = {**defaults, **call.body, "threaded": True}
    return {**meta, "dryRun": True} if call.query.get("dryRun") else meta


def _created(call: Call, outcome: Outcome) -> Reply:
    job = outcome.job
    if job is None:
        return Reply(document=outcome.d_ret)  # a dry run
    if idempotency.is_reused(call.idempotency, job.idempotency):
        raise KeyReused(
            f"the idempotency key came with another request before, which made job {job.name!r};"
            " expected the same request, or another key",
            field=idempotency.HEADER,
        )
    return Reply(
        code=HTTPStatus.CREATED if outcome.is_new else HTTPStatus.OK,
        document=job_view(job),
        headers=(("Location", links.job_path(job.name)),),
    )


# --- GET /jobs ------------------------------------------------------------------------------


def _query_meta(call: Call) -> dict[str, Any]:
    return call.query


def _page(call: Call, outcome: Outcome) -> Reply:
    cursor = outcome.d_ret["next"]
    headers = () if cursor is None else (links.next_page(call.path, call.parameters, cursor),)
    return Reply(document=outcome.d_ret, headers=headers)


# --- one job --------------------------------------------------------------------------------


def _job_meta(call: Call) -> dict[str, Any]:
    return {"job": call.the_job.name, **call.query}


def _look_meta(call: Call) -> dict[str, Any]:
    return {"job": call.the_job.name, "timeout": 0}


def _delete_meta(call: Call) -> dict[str, Any]:
    return {"key": "jid", "value": call.the_job.jid}  # which of them: `ActionRequest.found`


def _cancel_meta(call: Call) -> dict[str, Any]:
    return {"job": call.the_job.name, **call.body}


def _body_meta(call: Call) -> dict[str, Any]:
    return call.body


def _first_job(call: Call, outcome: Outcome) -> Reply:
    return Reply(document=outcome.d_ret["jobs"][0])


def _canceled(call: Call, outcome: Outcome) -> Reply:
    job = call.context.store.get(call.the_job.name)
    if job is None:
        raise UnknownJob(f"there is no job {call.the_job.name!r} any more", field="id")
    return Reply(code=_cancel_code(call), document=job_view(job))


def _all_canceled(call: Call, outcome: Outcome) -> Reply:
    found = [call.context.store.get(each["job"]) for each in outcome.d_ret["jobs"]]
    shown = [job_view(job) for job in found if job is not None]
    return Reply(code=_cancel_code(call), document=schemas.JobList(shown))


def _cancel_code(call: Call) -> int:
    return HTTPStatus.OK if call.body.get("wait") else HTTPStatus.ACCEPTED


def _gone(call: Call, outcome: Outcome) -> Reply:
    if outcome.code >= HTTPStatus.BAD_REQUEST:
        raise PmanError(str(outcome.d_ret["status"]), hint=outcome.code)
    return Reply(code=HTTPStatus.NO_CONTENT)


# --- logs and events ------------------------------------------------------------------------


def _logs_meta(call: Call) -> dict[str, Any]:
    meta = _job_meta(call)
    if call.media in (TEXT, BYTES):
        meta["raw"] = True
    if call.media == BYTES:
        meta["encoding"] = "base64"  # no text is made of them
    if call.media == NDJSON:
        meta["follow"] = True
    if meta.get("raw"):
        meta.setdefault("stream", "stdout")
    return meta


def _events_meta(call: Call) -> dict[str, Any]:
    meta = dict(call.query)
    if call.job is not None:
        meta["job"] = call.job.name
    if call.media == SSE:
        meta["follow"] = True
    if call.last_event_id is not None:
        meta["since"] = call.last_event_id
    return meta


def _as_it_is(call: Call, outcome: Outcome) -> Reply:
    return Reply(document=outcome.d_ret)


# --- about pman -----------------------------------------------------------------------------


def _index(call: Call, outcome: Outcome) -> Reply:
    addresses = {route.name: links.ROOT + route.path for route in ROUTES if route.method == "GET"}
    return Reply(document=schemas.Index(name="pman", version=__version__, links=addresses))


def _nothing(call: Call, outcome: Outcome) -> Reply:
    raise AssertionError("the face answers this by itself")


# --- the table ------------------------------------------------------------------------------

_JOB = Answer(means="The job.", content={JSON: JobView})
_RECORD_LINES = Annotated[
    str,
    Meta(
        description="One JSON object a line, each a `LogRecord` with its `cursor`. The last line is"
        ' `{"end": true, "state": ..., "exitCode": ..., "cursor": ...}`, with null for the state of'
        " a job that was deleted. Without that line, which `limit` leaves out too, there may be"
        " more: ask again with the last cursor."
    ),
]
_OUTPUT = Annotated[
    str,
    Meta(
        description="The bytes of one stream, up to a gap or the end; with `follow` until the job"
        " has ended."
    ),
]
_SERVER_SENT = Annotated[
    str,
    Meta(
        description="Server-sent events: `id` is the number of the event, `event` its kind, `data`"
        " an `EventView` on one line. An event of the kind `gap`, with"
        ' `{"firstSeq": ...}`, says that events behind `since` have been forgotten; an `id` alone'
        " how far pman has looked; a comment, after 15 seconds, that the connection lives. It has"
        " no last line: it goes on until the client closes, or pman stops."
    ),
]
_NO_JOB = Answer(means="There is no job for one of them.", content=PROBLEM)
_LAST_EVENT_ID = {"Last-Event-ID": "as `since`, from a client that connects again"}
_EVENTS = {
    200: Answer(
        means="Events, oldest first; or all that come, as server-sent events, by `Accept` or "
        "with `follow`.",
        content={JSON: schemas.EventPage, SSE: _SERVER_SENT},
    )
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="",
        name="index",
        summary="Where everything is",
        answer=_index,
        answers={200: Answer(means="Links.", content={JSON: schemas.Index})},
    ),
    Route(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="This document",
        answer=_nothing,
        answers={200: Answer(means="An OpenAPI 3.1 document.", content={JSON: dict[str, Any]})},
    ),
    Route(
        method="POST",
        path="/jobs",
        name="createJob",
        summary="Start a job",
        description="Answered as soon as the job is durable and its backend has it. It needs "
        "`cmd` or `argv`; with `container` it runs in containers, else on the host.",
        action="run",
        meta=_run_meta,
        answer=_created,
        reads="body",
        hidden=("threaded",),
        optional={"auid": "the user of the token, else empty", "jid": "a fresh UUID"},
        own_query=schemas.CreateQuery,
        own_body=schemas.JobKeys,
        body_name="JobRequest",
        needs_body=True,
        answers={
            201: Answer(
                means="The job was made.",
                content={JSON: JobView},
                headers={"Location": "its address"},
            ),
            200: Answer(
                means="An earlier job that this request stands for, by `Idempotency-Key` or "
                "`idempotent`; or, with `dryRun`, what would be made.",
                content={JSON: (JobView, schemas.DryRun)},
                headers={"Location": "address of the job; not with `dryRun`"},
            ),
            409: Answer(means="It can't be made beside what is there.", content=PROBLEM),
            415: Answer(means="The body is not `application/json`.", content=PROBLEM),
            422: Answer(
                means="The same `Idempotency-Key` came with another body before.",
                content=PROBLEM,
            ),
            502: Answer(means="The engine did not take the job.", content=PROBLEM),
        },
        headers={
            "Idempotency-Key": "makes it safe to repeat this request: the same key with the same "
            "body is answered with the first job, as long as pman keeps it"
        },
        examples=examples.JOBS,
    ),
    Route(
        method="GET",
        path="/jobs",
        name="listJobs",
        summary="Jobs by what they are, newest first",
        action="list",
        reads="query",
        meta=_query_meta,
        answer=_page,
        answers={
            200: Answer(
                means="One page.",
                content={JSON: schemas.JobPage},
                headers={"Link": 'address of the next page, `rel="next"`, unless it is the last'},
            )
        },
    ),
    Route(
        method="GET",
        path="/jobs/{id}",
        name="getJob",
        summary="One job",
        action="wait",
        counted_as="show",  # the time that it takes says nothing about those who wait
        meta=_look_meta,
        answer=_first_job,
        answers={200: _JOB},
    ),
    Route(
        method="DELETE",
        path="/jobs/{id}",
        name="deleteJob",
        summary="End a job and forget it",
        description="Answered when it has ended, and its record and its output are gone.",
        action="delete",
        meta=_delete_meta,
        answer=_gone,
        answers={204: Answer(means="It is gone.")},
    ),
    Route(
        method="POST",
        path="/jobs/{id}/cancel",
        name="cancelJob",
        summary="End a job and keep what is known of it",
        description="Answered at once, or with `wait` when it has ended; the job is CANCELED then. "
        "One that has ended already stays as it is.",
        action="cancel",
        meta=_cancel_meta,
        answer=_canceled,
        reads="body",
        hidden=("jid", "job"),
        body_name="CancelRequest",
        answers={
            200: Answer(means="With `wait`: the job, which has ended.", content={JSON: JobView}),
            202: Answer(means="The job as it is now.", content={JSON: JobView}),
            415: Answer(means="The body is not `application/json`.", content=PROBLEM),
            502: Answer(means="The engine did not do it.", content=PROBLEM),
        },
        examples={"usual": {"grace": 5}},
    ),
    Route(
        method="POST",
        path="/cancel",
        name="cancelJobs",
        summary="End jobs and keep what is known of them",
        description="For all jobs of some `jid`s, or for some by their `id`, as `job`: else as "
        "for one job. If there is none for one of them, nothing is done.",
        action="cancel",
        meta=_body_meta,
        answer=_all_canceled,
        reads="body",
        body_name="CancelJobsRequest",
        needs_body=True,
        answers={
            200: Answer(
                means="With `wait`: the jobs, which have ended; one that is deleted meanwhile is "
                "left out.",
                content={JSON: schemas.JobList},
            ),
            202: Answer(means="The jobs as they are now.", content={JSON: schemas.JobList}),
            404: _NO_JOB,
            415: Answer(means="The body is not `application/json`.", content=PROBLEM),
            502: Answer(means="The engine did not do it.", content=PROBLEM),
        },
        examples={"usual": {"jid": ["greeting"], "grace": 5}},
    ),
    Route(
        method="GET",
        path="/wait",
        name="waitForJobs",
        summary="Wait for the end of jobs",
        description="Of all jobs of some `jid`s, or of some by their `id`, as `job`. Answered when "
        "all have ended, or one of them with `mode=any`, or after `timeout` seconds: `isDone` "
        "tells.",
        action="wait",
        meta=_query_meta,
        answer=_as_it_is,
        reads="query",
        answers={
            200: Answer(means="All of them as they are.", content={JSON: schemas.WaitAnswer}),
            404: _NO_JOB,
        },
    ),
    Route(
        method="GET",
        path="/jobs/{id}/wait",
        name="waitForJob",
        summary="Wait for the end of a job",
        description="Answered when the job has ended, or after `timeout` seconds with the job as "
        "it is then: `state` tells.",
        action="wait",
        meta=_job_meta,
        answer=_first_job,
        reads="query",
        hidden=("jid", "job", "mode"),
        answers={200: _JOB},
    ),
    Route(
        method="GET",
        path="/jobs/{id}/logs",
        name="getLogs",
        summary="What a job has printed",
        action="logs",
        meta=_logs_meta,
        answer=_as_it_is,
        reads="query",
        hidden=("jid", "job"),
        media=(JSON, TEXT, NDJSON, BYTES),
        answers={
            200: Answer(
                means="By `Accept`: records; the same one a line, as they come, as with `follow`; "
                "or the bytes of one stream, `stdout` by default, as with `raw`.",
                content={
                    JSON: schemas.LogPage,
                    NDJSON: _RECORD_LINES,
                    TEXT: _OUTPUT,
                    BYTES: _OUTPUT,
                },
                headers={"Pman-Offset": "offset of the first of the bytes, where it is bytes"},
            )
        },
    ),
    Route(
        method="GET",
        path="/jobs/{id}/events",
        name="getJobEvents",
        summary="What has happened to one job",
        action="events",
        reads="query",
        hidden=("jid", "job"),
        meta=_events_meta,
        answer=_as_it_is,
        media=(JSON, SSE),
        answers=_EVENTS,
        headers=_LAST_EVENT_ID,
    ),
    Route(
        method="GET",
        path="/events",
        name="getEvents",
        summary="What has happened",
        action="events",
        reads="query",
        meta=_events_meta,
        answer=_as_it_is,
        media=(JSON, SSE),
        answers=_EVENTS,
        headers=_LAST_EVENT_ID,
    ),
    Route(
        method="GET",
        path="/backends",
        name="listBackends",
        summary="Where jobs can run, and how that stands",
        action="backends",
        answer=_as_it_is,
        answers={200: Answer(means="All of them.", content={JSON: BackendList})},
    ),
)
