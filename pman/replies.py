"""How requests are answered: in the envelope of 2.2, or as REST does; headers that all have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pman.actions.base import NOTHING, ActionContext, Later, Outcome
from pman.auth import Caller
from pman.config import Settings
from pman.envelope import ABSENT, Envelope
from pman.errors import PmanError
from pman.http.message import Request, Response
from pman.http.request_id import id_header
from pman.job.record import Job
from pman.rest.face import Exchange
from pman.wire import CONTENT_TYPE_HTTP, CONTENT_TYPE_JSON, METHODS, dumps

ALLOW = ("Allow", ", ".join(METHODS))

#: Headers that a page of another origin may send to REST, and those that it may read there.
REST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, X-Request-Id"
)
REST_EXPOSED = "ETag, Link, Location, Allow, WWW-Authenticate, Pman-Offset, X-Request-Id"


#: Carries out a request of 2.2; the last argument: only if that is quick, else the answer is None.
CarryOut = Callable[[Request, Envelope, bool], Outcome | Later | None]

#: Serves a request of REST for who asks, as far as the daemon exists for them.
Serve = Callable[[Caller, ActionContext], Outcome | Later]
Admit = Callable[[Request, Serve], Outcome | Later]


class Replies:
    """What all replies have in common."""

    def __init__(self, settings: Settings) -> None:
        self.content_type = CONTENT_TYPE_HTTP if settings.http else CONTENT_TYPE_JSON
        self.origins = frozenset(settings.cors_origins)

    def document(self, code: int, document: Any, request: Request) -> Response:
        """Return a document in the form of 2.2."""
        return Response(code, dumps(document), self.content_type, self.headers(code, request))

    def headers(self, code: int, request: Request) -> tuple[tuple[str, str], ...]:
        """Return the headers of a reply in the form of 2.2, but for the usual ones."""
        wants_id = request.wants_id
        if code == 200 and request.method == "POST" and not self.origins and not wants_id:
            return ()
        headers: list[tuple[str, str]] = []
        if wants_id:
            headers.append(id_header(request))
        if code == 401:
            headers.append(("WWW-Authenticate", "Bearer"))
        if code == 405 or request.method == "OPTIONS":
            headers.append(ALLOW)
        if self.origins:
            headers += self.cors(request)
        return tuple(headers)

    def allowed_origin(self, request: Request) -> str | None:
        """Return the origin of `--corsOrigin` that a request comes from, or None."""
        for origin in request.header_values("origin"):
            if origin in self.origins:
                return origin
        return None

    def cors(
        self,
        request: Request,
        methods: Sequence[str] = METHODS,
        allowed: str = "Authorization, Content-Type",
        exposed: str = "",
    ) -> list[tuple[str, str]]:
        """Return the CORS headers for an origin of `--corsOrigin`.

        Args:
            methods, allowed: Methods and request headers that a page may use.
            exposed: Response headers that it may read, beside the usual ones.
        Source: https://fetch.spec.whatwg.org/#http-cors-protocol
        """
        origin = self.allowed_origin(request)
        if origin is None:
            return [("Vary", "Origin")]
        headers = [("Vary", "Origin"), ("Access-Control-Allow-Origin", origin)]
        if request.method == "OPTIONS":
            headers += [
                ("Access-Control-Allow-Methods", ", ".join(methods)),
                ("Access-Control-Allow-Headers", allowed),
            ]
        elif exposed:
            headers.append(("Access-Control-Expose-Headers", exposed))
        return headers

    def is_preflight(self, request: Request) -> bool:
        """Tell whether a browser asks what it may ask, which never carries a token."""
        return request.method == "OPTIONS" and self.allowed_origin(request) is not None


class Form(Protocol):
    """How one request is answered."""

    request: Request

    def carry_out(self) -> Outcome | Later | None:
        """Carry the request out; None: it was to be done quickly, and can't."""

    @property
    def action(self) -> str:
        """What it is counted and logged as: name of its action, or of one of REST; or ""."""

    @property
    def found(self) -> list[Job] | None:
        """Jobs that the request is about, as far as known; for the log."""

    def pack(self) -> None:
        """Let go of what the response does not need, as it comes later."""

    def reply(self, outcome: Outcome) -> Response:
        """Make the response of what an action came to.

        Raises:
            PmanError: That it was not carried out.
        """

    def refuse(self, error: PmanError) -> Response:
        """Make the response of an error."""


class ClassicForm:
    """The form of 2.2: an envelope."""

    __slots__ = ("_carry_out", "_is_quick", "_replies", "envelope", "request")

    def __init__(
        self, replies: Replies, request: Request, carry_out: CarryOut, *, is_quick: bool = False
    ) -> None:
        """Prepare.

        Args:
            is_quick: Whether the request is carried out only if that is quick.
        """
        self._replies = replies
        self._carry_out = carry_out
        self._is_quick = is_quick
        self.request = request
        self.envelope = Envelope(request)

    def carry_out(self) -> Outcome | Later | None:
        """Carry the request out."""
        return self._carry_out(self.request, self.envelope, self._is_quick)

    @property
    def action(self) -> str:
        """Name of the action carried out, "" while there is none."""
        return self.envelope.action

    @property
    def found(self) -> list[Job] | None:
        """Jobs that the request is about, as far as known; for the log."""
        return self.envelope.found

    def pack(self) -> None:
        """Let go of what the response does not need."""
        self.request.body = b""
        self.envelope.pack()

    def reply(self, outcome: Outcome) -> Response:
        """Make the response of what an action came to."""
        replies, request, envelope = self._replies, self.request, self.envelope
        if outcome.stream is not None:
            headers = (*replies.headers(outcome.code, request), *outcome.headers)
            content_type = outcome.content_type or replies.content_type
            return Response(outcome.code, b"", content_type, headers, outcome.stream)
        envelope.d_ret = ABSENT if outcome.d_ret is NOTHING else outcome.d_ret
        return replies.document(outcome.code, envelope.build(outcome.status), request)

    def refuse(self, error: PmanError) -> Response:
        """Make the response of an error."""
        document = self.envelope.build(False, error)
        return self._replies.document(error.hint, document, self.request)


class RestForm:
    """The form of `/api/v2`: what `pman.rest` makes, with the headers that all replies have."""

    __slots__ = ("_admit", "_exchange", "_replies", "request")

    def __init__(
        self, replies: Replies, request: Request, exchange: Exchange, admit: Admit
    ) -> None:
        """Prepare.

        Args:
            admit: Lets in who may ask, and has the request served for them.
        """
        self._replies = replies
        self._admit = admit
        self._exchange = exchange
        self.request = request

    def carry_out(self) -> Outcome | Later:
        """Carry the request out."""
        if self._replies.is_preflight(self.request):
            return Outcome(True)
        return self._admit(self.request, self._exchange.carry_out)

    @property
    def action(self) -> str:
        """What it is counted and logged as, "" while there is no action."""
        return self._exchange.action

    @property
    def found(self) -> list[Job] | None:
        """Jobs that the request is about, as far as known; for the log."""
        return self._exchange.found

    def pack(self) -> None:
        """Let go of what the response does not need."""
        self.request.body = b""

    def reply(self, outcome: Outcome) -> Response:
        """Make the response of what an action came to.

        Raises:
            PmanError: That it was not carried out.
        """
        return self.finished(self._exchange.reply(outcome))

    def refuse(self, error: PmanError) -> Response:
        """Make the response of an error."""
        return self.finished(self._exchange.refuse(error))

    def finished(self, response: Response) -> Response:
        """Return a response with the headers that all have."""
        request = self.request
        more = [id_header(request)]
        if self._replies.origins:
            methods = self._exchange.methods
            more += self._replies.cors(request, methods, REST_HEADERS, REST_EXPOSED)
        response.headers = (*response.headers, *more)
        return response
