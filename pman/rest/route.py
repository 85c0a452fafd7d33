"""`Route`: one operation of the REST API, and the values that its functions take and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from pman.actions import ACTIONS
from pman.actions.base import NOTHING, ActionContext, Outcome
from pman.auth import Caller
from pman.job.record import Job
from pman.rest import problems, schemas

JSON = "application/json"

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
        query: The same, as values for the fields of what the route reads.
        body: As sent, {} for none.
        media: Media type of the answer.
        job: The job that the path names, or None.
        last_event_id: Number of the last event that the client has seen, or None.
        idempotency: What is to be kept of the idempotency key, "" for none.
        caller: Who asks.
        context: The daemon.
    """

    route: Route
    path: str
    parameters: list[tuple[str, str]]
    query: dict[str, Any]
    body: dict[str, Any]
    media: str
    job: Job | None
    last_event_id: int | None
    idempotency: str
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
        counted_as: What metrics and log call it where that is not the name of the action.
        meta: Makes the `meta` of the action.
        answer: Makes the answer of what the action came to.
        reads: Where it finds what the action takes.
        hidden: Of that, what REST itself knows.
        optional: What the action needs, and REST has a default for: name -> that, for people.
        own_query: What the query is read as where it is not what the action takes.
        own_body: What the body holds beside what the action takes, or what that says less of.
        body_name: Name of the schema of its body.
        needs_body: Whether there has to be one.
        media: What it can answer with, the usual one first; never `Problem`'s.
        answers: By status code; errors that any operation may have are added.
        headers: Request headers that it looks at: name -> description.
        examples: Bodies that work: what each shows -> the body.
    """

    method: str
    path: str
    name: str
    summary: str
    description: str = ""
    action: str = ""
    counted_as: str = ""
    meta: Callable[[Call], dict[str, Any]] = lambda _: {}
    answer: Callable[[Call, Outcome], Reply]
    reads: Literal["query", "body", ""] = ""
    hidden: tuple[str, ...] = ()
    optional: Mapping[str, str] = dataclasses.field(default_factory=dict)
    own_query: type[msgspec.Struct] = schemas.Nothing
    own_body: type[msgspec.Struct] = schemas.Nothing
    body_name: str = ""
    needs_body: bool = False
    media: tuple[str, ...] = (JSON,)
    answers: Mapping[int, Answer]
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    examples: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def takes(self) -> type[msgspec.Struct]:
        """What the action takes."""
        action = ACTIONS.get(self.action)
        return schemas.Nothing if action is None or action.takes is None else action.takes

    @property
    def query_kind(self) -> type[msgspec.Struct]:
        """What the query is read as."""
        return self.takes if self.reads == "query" else self.own_query

    @property
    def body_names(self) -> list[str]:
        """What may be in the body."""
        if self.reads != "body":
            return []
        kinds = (self.takes, self.own_body)
        fields = [field for kind in kinds for field in msgspec.structs.fields(kind)]
        names = dict.fromkeys(field.encode_name for field in fields)
        return [name for name in names if name not in self.hidden]
