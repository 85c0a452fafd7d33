"""The operations of the REST API, as data: what each takes, which action it is, how it answers.

The only place that knows how a request of REST becomes the `meta` of an action and how an outcome
becomes an answer.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from pman import __version__
from pman.actions.backends import BackendList
from pman.actions.base import NOTHING, ActionContext, Outcome
from pman.auth import Caller
from pman.errors import PmanError, RequestError, UnknownJob, shown
from pman.job.record import Job
from pman.jobdb.jobview import JobView, job_view
from pman.rest import links, problems, schemas

JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
TEXT = "text/plain"

Header = tuple[str, str]

#: Content of an answer that is an error.
PROBLEM = {problems.MEDIA_TYPE: problems.Problem}


@dataclasses.dataclass(kw_only=True)
class Call:
    """One request, read and checked.

    Attributes:
        route: What it asks for.
        path: As sent.
        parameters: Of the query, as sent.
        query: The same as the route's struct.
        body: The route's struct, or None.
        given: The body as sent, {} for none.
        media: Media type of the answer.
        job: The job that the path names, or None.
        last_event_id: Number of the last event that the client has seen, or None.
        caller: Who asks.
        context: The daemon.
    """

    route: Route
    path: str
    parameters: list[tuple[str, str]]
    query: Any
    body: Any
    given: dict[str, Any]
    media: str
    job: Job | None
    last_event_id: int | None
    caller: Caller
    context: ActionContext

    @property
    def the_job(self) -> Job:
        """The job that the path names, where the route's path has one."""
        assert self.job is not None
        return self.job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer that is not a stream. Attributes: code; document, NOTHING for none; headers."""

    code: int = HTTPStatus.OK
    document: Any = NOTHING
    headers: tuple[Header, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One way in which an operation may be answered, for the OpenAPI document.

    Attributes:
        means: When it is given.
        content: Media type -> what it holds: a type, or a tuple of types, one of which it is.
        headers: Name -> description.
    """

    means: str
    content: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """One operation.

    Attributes:
        method, path: Below `links.ROOT`; `{id}` is a job.
        name: `operationId`.
        summary, description: For people.
        action: Name of the action that carries it out, "" for what REST itself knows.
        meta: Makes the `meta` of the action.
        answer: Makes the answer of what the action came to.
        query: What its query is read as.
        body: What its body is read as, or None.
        needs_body: Whether there has to be one.
        media: What it can answer with, the usual one first; never `Problem`'s.
        answers: By status code; errors that any operation may have are added.
        headers: Request headers that it looks at: name -> description.
        example: A body that works.
    """

    method: str
    path: str
    name: str
    summary: str
    description: str = ""
    action: str = ""
    meta: Callable[[Call], dict[str, Any]] = lambda _: {}
    answer: Callable[[Call, Outcome], Reply]
    query: type[msgspec.Struct] = schemas.NoQuery
    body: type[msgspec.Struct] | None = None
    needs_body: bool = False
    media: tuple[str, ...] = (JSON,)
    answers: Mapping[int, Answer]
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    example: Mapping[str, Any] | None = None


# --- POST /jobs -----------------------------------------------------------------------------


def _run_meta(call: Call) -> dict[str, Any]:
    defaults = {"auid": call.caller.auid or "", "jid": str(uuid.uuid4())}
    meta = {**defaults, **call.given, "threaded": True}
    if call.query.dry_run:
        meta["dryRun"] = True
    return meta


def _created(call: Call, outcome: Outcome) -> Reply:
    if outcome.job is None:  # a dry run
        return Reply(document=outcome.d_ret)
    return Reply(
        code=HTTPStatus.CREATED if outcome.is_new else HTTPStatus.OK,
        document=job_view(outcome.job),
        headers=(("Location", links.job_path(outcome.job.name)),),
    )


# --- GET /jobs ------------------------------------------------------------------------------


def _list_meta(call: Call) -> dict[str, Any]:
    meta: dict[str, Any] = msgspec.to_builtins(call.query)
    if not meta["state"]:
        del meta["state"]
    labels = dict(_label(each) for each in meta.pop("label"))
    return {**meta, "label": labels} if labels else meta


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise RequestError(f"label is {shown(text)}, expected key=value", field="label")
    return key, value


def _page(call: Call, outcome: Outcome) -> Reply:
    cursor = outcome.d_ret["next"]
    headers = () if cursor is None else (links.next_page(call.path, call.parameters, cursor),)
    return Reply(document=outcome.d_ret, headers=headers)


# --- one job --------------------------------------------------------------------------------


def _job_meta(call: Call) -> dict[str, Any]:
    return {"job": call.the_job.name, **msgspec.to_builtins(call.query)}


def _look_meta(call: Call) -> dict[str, Any]:
    return {"job": call.the_job.name, "timeout": 0}


def _delete_meta(call: Call) -> dict[str, Any]:
    return {"key": "jid", "value": call.the_job.jid}  # which of them: `ActionRequest.found`


def _cancel_meta(call: Call) -> dict[str, Any]:
    return {"job": call.the_job.name, **call.given}


def _first_job(call: Call, outcome: Outcome) -> Reply:
    return Reply(document=outcome.d_ret["jobs"][0])


def _canceled(call: Call, outcome: Outcome) -> Reply:
    job = call.context.store.get(call.the_job.name)
    if job is None:
        raise UnknownJob(f"there is no job {call.the_job.name!r} any more", field="id")
    return Reply(code=HTTPStatus.ACCEPTED, document=job_view(job))


def _gone(call: Call, outcome: Outcome) -> Reply:
    if outcome.code >= HTTPStatus.BAD_REQUEST:
        raise PmanError(str(outcome.d_ret["status"]), hint=outcome.code)
    return Reply(code=HTTPStatus.NO_CONTENT)


# --- logs and events ------------------------------------------------------------------------


def _logs_meta(call: Call) -> dict[str, Any]:
    meta = _job_meta(call)
    if call.media == TEXT:
        meta["raw"] = True
    return meta


def _events_meta(call: Call) -> dict[str, Any]:
    meta: dict[str, Any] = msgspec.to_builtins(call.query)
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
_LAST_EVENT_ID = {"Last-Event-ID": "as `since`, from a client that connects again"}
_EVENTS = {
    200: Answer(
        means="Events, oldest first; `next` is the `since` of the next request.",
        content={JSON: schemas.EventPage, SSE: str},
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
        query=schemas.CreateQuery,
        body=schemas.JobRequest,
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
            501: Answer(means="Not supported here.", content=PROBLEM),
            502: Answer(means="The engine did not take the job.", content=PROBLEM),
        },
        headers={
            "Idempotency-Key": "makes it safe to repeat this request: the same key with the same "
            "body is answered with the first job, as long as pman keeps it"
        },
        example={"cmd": "echo hello", "jid": "greeting", "labels": {"team": "blue"}},
    ),
    Route(
        method="GET",
        path="/jobs",
        name="listJobs",
        summary="Jobs by what they are, newest first",
        action="list",
        meta=_list_meta,
        answer=_page,
        query=schemas.ListQuery,
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
        description="Answered at once; the job is CANCELED when it has ended. One that has ended "
        "already stays as it is.",
        action="cancel",
        meta=_cancel_meta,
        answer=_canceled,
        body=schemas.CancelRequest,
        answers={
            202: Answer(means="The job as it is now.", content={JSON: JobView}),
            415: Answer(means="The body is not `application/json`.", content=PROBLEM),
            501: Answer(means="The backend can't send that signal.", content=PROBLEM),
            502: Answer(means="The engine did not do it.", content=PROBLEM),
        },
        example={"grace": 5},
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
        query=schemas.WaitQuery,
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
        query=schemas.LogsQuery,
        media=(JSON, TEXT, NDJSON),
        answers={
            200: Answer(
                means="By `Accept`: pieces with their place, lines of them as they come, or the "
                "plain bytes of one stream.",
                content={JSON: schemas.LogPage, NDJSON: str, TEXT: str},
            )
        },
    ),
    Route(
        method="GET",
        path="/jobs/{id}/events",
        name="getJobEvents",
        summary="What has happened to one job",
        action="events",
        meta=_events_meta,
        answer=_as_it_is,
        query=schemas.EventsQuery,
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
        meta=_events_meta,
        answer=_as_it_is,
        query=schemas.EventsQuery,
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
