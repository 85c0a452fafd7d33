"""`Face`: a request of REST -> an action -> a response.

Whoever calls it has checked the token and the origin, and catches what it raises.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import msgspec

from pman.actions import ACTIONS
from pman.actions._named import newest
from pman.actions._rights import check_right
from pman.actions.base import NOTHING, ActionContext, ActionRequest, Later, Outcome
from pman.auth import Caller
from pman.errors import (
    MethodNotAllowed,
    NotAcceptable,
    PmanError,
    RequestError,
    UnknownJob,
    UnknownPath,
    shown,
)
from pman.http.message import Request, Response
from pman.job.reading import check_names, read_struct
from pman.job.record import Job
from pman.rest import encoding, idempotency, links, problems
from pman.rest.openapi import document as openapi_document
from pman.rest.reading import read_body, read_query
from pman.rest.route import JSON, Call, Header, Reply, Route
from pman.rest.routes import ROUTES

#: Carries out an action by name for somebody who may ask for it, and raises for others.
Perform = Callable[[str, ActionRequest, ActionContext], Outcome | Later]

#: Path below `links.ROOT`, in segments; None stands for the id of a job.
_Template = tuple[str | None, ...]


def _templates() -> dict[_Template, dict[str, Route]]:
    found: dict[_Template, dict[str, Route]] = {}
    for route in ROUTES:
        parts = route.path.split("/")[1:]
        template = tuple(None if part == "{id}" else part for part in parts)
        found.setdefault(template, {})[route.method] = route
    return found


_TEMPLATES = _templates()


class Face:
    """What all requests of REST have in common. Thread-safe."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform

    def exchange(self, request: Request) -> Exchange:
        """Begin to answer a request; it raises nothing."""
        return Exchange(request, self._perform)


class Exchange:
    """One request and its answer.

    Attributes:
        found: Jobs that the request is about, as far as known, or None; for the log.
    """

    def __init__(self, request: Request, perform: Perform) -> None:
        self._request = request
        self._perform = perform
        self._target = links.split_target(request.target)
        self._routes: dict[str, Route] = {}
        self._ids: list[str] = []
        self._route: Route | None = None
        self._call: Call | None = None
        self.found: list[Job] | None = None
        try:
            self._find_routes()
        except RequestError as exc:
            self._problem: RequestError | None = exc
        else:
            self._problem = None

    def _find_routes(self) -> None:
        given = links.segments(self._target.path)
        for template, routes in _TEMPLATES.items():
            pairs = list(zip(template, given, strict=False))
            if len(template) == len(given) and all(
                part == sent or (part is None and sent) for part, sent in pairs
            ):
                self._routes = routes
                self._ids = [sent for part, sent in pairs if part is None]
                method = self._request.method
                self._route = routes.get("GET" if method == "HEAD" else method)
                return
        known = ", ".join(dict.fromkeys(links.ROOT + route.path for route in ROUTES))
        raise UnknownPath(
            f"there is nothing at {shown(self._target.path)}, expected one of {known}",
            field="path",
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """What the path can be asked for."""
        gets = ("GET", "HEAD") if "GET" in self._routes else ()
        return (*gets, *(name for name in self._routes if name != "GET"), "OPTIONS")

    @property
    def action(self) -> str:
        """What it is counted and logged as, "" while there is no action."""
        route = self._route
        return "" if route is None else route.counted_as or route.action

    # --- request --------------------------------------------------------------------------

    def carry_out(self, caller: Caller, context: ActionContext) -> Outcome | Later:
        """Carry it out.

        Args:
            caller: Who asks.
            context: The daemon, as far as it exists for the caller.
        Raises:
            PmanError: It can't be carried out; says why.
        """
        if self._problem is not None:
            raise self._problem
        method = self._request.method
        if method == "OPTIONS":
            return Outcome(True)
        route = self._route
        if route is None:
            raise MethodNotAllowed(
                f"method is {shown(method)}, expected one of {', '.join(self.methods)}",
                field="method",
            )
        action = ACTIONS.get(route.action)
        if action is not None:
            action.check_size(route.action, len(self._request.body))
            # Before the body is read, which takes thirty times its room.
            check_right(route.action, action.role, caller, context.settings)
        call, wanted = self._read(route, caller, context)
        self._call = call
        if not route.action:
            return Outcome(True)
        try:
            return self._perform(route.action, wanted, context)
        finally:
            self.found = wanted.found

    def _read(
        self, route: Route, caller: Caller, context: ActionContext
    ) -> tuple[Call, ActionRequest]:
        request = self._request
        media = encoding.negotiate(request.header_values("accept"), route.media)
        if media is None:
            accept = ", ".join(request.header_values("accept"))
            raise NotAcceptable(
                f"Accept is {shown(accept)}, expected one of {', '.join(route.media)}",
                field="Accept",
            )
        parameters = links.parameters(self._target.query)
        query = read_query(parameters, route.query_kind, route.hidden)
        body = read_body(request, is_needed=route.needs_body) if route.reads == "body" else {}
        check_names(body, route.body_names, "body field")
        read_struct(body, route.own_body)  # what the action takes, the action reads
        job = _find_job(self._ids[0], context) if self._ids else None
        key = ""
        if idempotency.HEADER in route.headers:
            key = idempotency.read_key(request.header_values(idempotency.HEADER.lower()))
        call = Call(
            route=route,
            path=self._target.path,
            parameters=parameters,
            query=query,
            body=body,
            media=media,
            job=job,
            last_event_id=self._last_event_id() if "Last-Event-ID" in route.headers else None,
            idempotency=idempotency.digest(key, caller, body),
            caller=caller,
            context=context,
        )
        wanted = ActionRequest(
            route.meta(call),
            found=None if job is None else [job],
            caller=caller,
            idempotency=call.idempotency,
            is_strict=True,
        )
        return call, wanted

    def _last_event_id(self) -> int | None:
        values = self._request.header_values("last-event-id")
        if not values:
            return None
        if len(values) > 1 or not (values[0].isascii() and values[0].isdigit()):
            raise RequestError(
                f"Last-Event-ID is {shown(', '.join(values))}, expected the number of an event",
                field="Last-Event-ID",
            )
        return int(values[0][:16])

    # --- response -------------------------------------------------------------------------

    def reply(self, outcome: Outcome) -> Response:
        """Return the answer for what the action came to.

        Raises:
            PmanError: That it was not carried out.
        """
        call = self._call
        if call is None:
            return self.options()
        if outcome.stream is not None:
            return self._stream(outcome)
        if call.route.name == "openapi":
            return self._document(HTTPStatus.OK, openapi_document(), ())
        reply: Reply = call.route.answer(call, outcome)
        if reply.document is NOTHING:
            return Response(reply.code, b"", headers=reply.headers)
        body = msgspec.json.encode(reply.document)
        return self._document(reply.code, body, reply.headers)

    def refuse(self, error: PmanError) -> Response:
        """Return the answer for an error."""
        return problems.refusal(error, self._target.path, self.methods)

    def options(self) -> Response:
        """Return the answer to OPTIONS."""
        return Response(HTTPStatus.NO_CONTENT, b"", headers=(problems.allow(self.methods),))

    def _stream(self, outcome: Outcome) -> Response:
        stream = outcome.stream
        if self._request.method == "HEAD" and stream is not None:
            stream.close()
            stream = None
        # Once each: an action may have set them as well.
        headers = {**dict(outcome.headers), "Cache-Control": "no-store", "Vary": "Accept"}
        return Response(
            outcome.code,
            b"",
            outcome.content_type,
            tuple(headers.items()),
            stream,
            has_length=False,
        )

    def _document(self, code: int, body: bytes, headers: tuple[Header, ...]) -> Response:
        """Return JSON: compressed where that is welcome, and not at all if the client has it."""
        assert self._call is not None
        request = self._request
        is_gzip = len(body) >= encoding.MIN_GZIP_BYTES and encoding.is_gzip_welcome(
            request.header_values("accept-encoding")
        )
        vary = "Accept, Accept-Encoding" if len(self._call.route.media) > 1 else "Accept-Encoding"
        headers = (*headers, ("Vary", vary))
        if code == HTTPStatus.OK and request.method in ("GET", "HEAD"):
            tag = encoding.tag(body, is_gzip=is_gzip)
            headers = (*headers, ("ETag", tag), ("Cache-Control", "no-cache"))
            if encoding.is_same(request.header_values("if-none-match"), tag):
                return Response(HTTPStatus.NOT_MODIFIED, b"", headers=headers)
        if is_gzip:
            body = encoding.gzip(body)
            headers = (*headers, ("Content-Encoding", "gzip"))
        return Response(code, body, JSON, headers)


def _find_job(job_id: str, context: ActionContext) -> Job:
    """Return the job of that name, or else the newest with that jid.

    Raises:
        UnknownJob: There is none.
    """
    job = context.store.get(job_id) or newest(job_id, context)
    if job is None:
        raise UnknownJob(f"there is no job {shown(job_id)}", field="id")
    return job


def is_rest(request: Request) -> bool:
    """Tell whether a request belongs to REST and not to the forms of 2.2."""
    return (
        links.ROOT in request.target  # most are told apart by this alone
        and request.is_http
        and links.is_rest(links.split_target(request.target).path)
    )
