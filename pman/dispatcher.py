"""Request -> authorised action -> reply; errors -> replies. Knows no sockets and no threads."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from pman import log
from pman.actions import ACTIONS, SMALL_BODY_BYTES, Action
from pman.actions._put import put_run
from pman.actions._rights import check_right
from pman.actions.base import (
    ActionContext,
    ActionRequest,
    Later,
    Outcome,
)
from pman.actions.get import look_up
from pman.auth import ALL_RIGHTS, Caller, Role, TokenAuth
from pman.envelope import ABSENT, Envelope
from pman.errors import (
    Forbidden,
    MalformedRequest,
    MethodNotAllowed,
    NotAuthorized,
    NotSupported,
    PmanError,
    RequestError,
    RequestTooLarge,
    UnknownAction,
    UnknownJob,
    shown,
)
from pman.http.deferred import GIVEN_UP, Deferred
from pman.http.message import Request, Response
from pman.http.request_id import HEADER, request_id
from pman.ops.operations import QUICK_PATHS, Operations, page_of
from pman.pageguard import PageGuard, check_site
from pman.replies import ClassicForm, Form, Replies, RestForm, Serve
from pman.rest.face import Face, is_rest
from pman.wire import METHODS, loads, outline

_log = logging.getLogger(__name__)

#: Components of a GET path that are dropped, whatever they are. Source: WIRE.md 5.
PREFIX_COMPONENTS = 2

#: Users whose view of the daemon is kept.
MAX_SCOPES = 1024

REQUEST_ID = HEADER.lower()


class Dispatcher:
    """Carries out requests. Thread-safe; never raises."""

    def __init__(
        self,
        context: ActionContext,
        auth: TokenAuth | None,
        operations: Operations | None = None,
        guard: PageGuard | None = None,
    ) -> None:
        """Prepare.

        Args:
            auth: Knows who may ask; None: everybody may.
            guard: What is believed of requests then.
        """
        self._context = context
        self._operations = operations or Operations(context)
        self._auth = auth
        self._pages = guard
        self._replies = Replies(context.settings)
        self._face = Face(self._perform)
        self._scoped = functools.lru_cache(MAX_SCOPES)(context.scoped)

    # --- what the front and the listeners ask ---------------------------------------------

    def handle_quick(self, request: Request) -> Response | None:
        """Carry out a request that touches nothing but memory, and little of it; else None."""
        if request.method != "POST":
            path = page_of(request)
            return None if path is None else self._visit_quickly(path, request)
        if (self._auth is not None and self._auth.is_due) or is_rest(request):
            return None
        form = ClassicForm(self._replies, request, self._carry_out, is_quick=True)
        response = self._answer(form)
        assert not isinstance(response, Deferred), "a quick action does not wait"
        if response is not None:
            operations, action = self._operations, form.envelope.action
            if action and not operations.has_lines:  # as `note_quick`, a call cheaper
                kind = action, "POST", response.status
                operations.quick.add(kind, time.monotonic() - request.received_at)
            else:
                operations.note_quick(request, action, response, form.found)
        return response

    def handle(self, request: Request) -> Response | Deferred:
        """Carry out one request."""
        if not request.received_at:
            request.received_at = time.monotonic()
        if (path := page_of(request)) is not None:
            response = self._visit(path, request)
            self._operations.note(request, path[1:], response)
            return response
        form = self._form_of(request)
        answer = self._answer(form)
        assert answer is not None
        if isinstance(answer, Response):
            self._operations.note(request, form.action, answer, form.found)
        return answer

    def reject(self, error: PmanError, raw: bytes) -> Response:
        """Return the reply to bytes that never became a request.

        Args:
            error: What is wrong with them.
            raw: How they begin.
        """
        # Only the first line is echoed: what follows may hold a token that can't be told apart.
        words = raw.partition(b"\n")[0].decode("latin-1").split()
        method, target, version = (*words, "", "", "")[:3]
        request = Request(
            method=method,
            target=target,
            version=version.removeprefix("HTTP/"),
            is_http=version.startswith("HTTP/"),
        )
        response = self._form_of(request).refuse(error)
        self._operations.note(request, "", response)
        return response

    def execute(self, document: Any) -> None:
        """Carry out one directive, for which there is nobody to answer.

        Args:
            document: `{"action": ..., "meta": {...}}`.
        Raises:
            PmanError: It cannot be carried out.
        """
        action, wanted = self._parse(document, ALL_RIGHTS)
        _leave(action.perform(wanted, self._context))

    # --- pages for who runs pman ----------------------------------------------------------

    def _visit_quickly(self, path: str, request: Request) -> Response | None:
        """Answer a page, even while no listener is idle; None where a file might have to be read.

        Whether pman is alive and ready nobody needs a token to know.
        """
        asks_token = self._auth is not None and bool(request.header_values("authorization"))
        if path not in QUICK_PATHS or (asks_token and self._auth is not None and self._auth.is_due):
            return None
        response = self._visit(path, request)
        self._operations.note(request, path[1:], response)
        return response

    def _visit(self, path: str, request: Request) -> Response:
        caller: Caller | None = ALL_RIGHTS
        refusal = None
        try:
            caller = self._let_in(request)
        except (Forbidden, NotAuthorized) as exc:
            caller, refusal = None, exc
        return self._operations.answer(path, request, caller, refusal)

    # --- the way of one request -----------------------------------------------------------

    def _answer(self, form: Form) -> Response | Deferred | None:
        if not self._operations.has_lines:
            return self._guard(form.carry_out, form)
        with log.about_request(request_id(form.request)):
            return self._guard(form.carry_out, form)

    def _form_of(self, request: Request) -> Form:
        if is_rest(request):
            return RestForm(self._replies, request, self._face.exchange(request), self._admit)
        return ClassicForm(self._replies, request, self._carry_out)

    def _carry_out(
        self, request: Request, envelope: Envelope, only_quick: bool
    ) -> Outcome | Later | None:
        """Carry out a request in the form of 2.2; None: it is not quick, and was to be.

        Raises:
            PmanError: It can't be carried out.
        """
        if request.method == "OPTIONS" and self._replies.is_preflight(request):
            return Outcome(True)
        caller = self._let_in(request)
        try:
            return self._serve(request, envelope, caller, only_quick)
        except Forbidden as exc:
            self._log_refusal(caller, exc)
            raise

    def _admit(self, request: Request, serve: Serve) -> Outcome | Later:
        """Serve a request for who asks.

        Raises:
            Forbidden: A page of somebody else has a browser ask; or what `serve` raises.
            NotAuthorized: There is no valid token.
        """
        caller = self._let_in(request)
        try:
            return serve(caller, self._context_of(caller))
        except Forbidden as exc:
            self._log_refusal(caller, exc)
            raise

    def _let_in(self, request: Request) -> Caller:
        """Return who asks.

        Raises:
            Forbidden: A page of somebody else has a browser ask.
            NotAuthorized: There is no valid token.
        """
        self._read_headers(request)
        if self._auth is None:
            return ALL_RIGHTS
        caller = self._auth.check(request)
        request.token = caller.name
        return caller

    def _log_refusal(self, caller: Caller, error: Forbidden) -> None:
        if caller.name:
            _log.warning("a request with the token %r was refused: %s", caller.name, error)

    def _serve(
        self, request: Request, envelope: Envelope, caller: Caller, only_quick: bool
    ) -> Outcome | Later | None:
        method = request.method
        if len(request.body) > SMALL_BODY_BYTES:
            if only_quick:
                return None
            self._check_long(request, envelope, caller)
        try:
            envelope.text = request.body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise MalformedRequest(f"the body is not UTF-8: {exc.reason}", field="body") from exc
        document = self._document(request, envelope)
        if method in ("GET", "HEAD"):
            return self._look_up(request, envelope, caller)
        if method == "POST":
            return self._post(document, envelope, caller, only_quick, len(request.body))
        if method == "PUT":
            return self._put(document, envelope, caller)
        if method == "OPTIONS":
            return Outcome(False)
        raise MethodNotAllowed(
            f"method is {shown(method)}, expected one of {', '.join(METHODS)}", field="method"
        )

    def _perform(self, name: str, wanted: ActionRequest, context: ActionContext) -> Outcome | Later:
        """Carry out an action for a caller who has the right to it, as REST has checked."""
        action = ACTIONS.get(name)
        if action is None:
            raise NotSupported(f"this pman has no action {name!r}")
        return action.perform(wanted, context)

    def _context_of(self, caller: Caller) -> ActionContext:
        """Return the daemon as far as it exists for a caller."""
        return self._context if caller.auid is None else self._scoped(caller.auid)

    def _read_headers(self, request: Request) -> None:
        """Refuse what a web page of somebody else has a browser send; note who wants an id back.

        A browser sends a POST of text to any address, ours on this machine among them, and asks
        nobody; but it names the page's origin. Programs send no `Origin`. What a browser says
        besides counts only where no token has to be known.
        """
        guard = self._pages
        for name, value in request.headers:
            # Lengths differ mostly, and cost less to compare; Content-Type has the second one, too.
            size = len(name)
            if size == 6 and name.lower() == "origin" and value not in self._replies.origins:
                raise Forbidden(
                    f"origin is {shown(value)}, expected one of --corsOrigin", field="Origin"
                )
            if size == 12 and name[1] == "-" and name.lower() == REQUEST_ID:
                request.wants_id = True
            if guard is None:
                continue
            if size == 4 and value not in guard.good_hosts and name.lower() == "host":
                guard.check_host(value)
            if (
                size == 14
                and name[0] in "Ss"
                and name.lower() == "sec-fetch-site"
                and self._replies.allowed_origin(request) is None
            ):
                check_site(value)

    def _check_long(self, request: Request, envelope: Envelope, caller: Caller) -> None:
        """Refuse a long body, before it is read, that would be refused afterwards.

        Raises:
            Forbidden: The caller may not ask for the action.
            RequestTooLarge: The body is longer than the action, or the caller's role, allows.
            RequestError: It is no request; as it would be refused once it was read.
        """
        size = len(request.body)
        if caller.role < Role.RUN and size > SMALL_BODY_BYTES:
            raise RequestTooLarge(
                f"the body has {size} bytes, expected at most {SMALL_BODY_BYTES} with a token that"
                " may only read",
                field="body",
            )
        if request.method != "POST":
            return
        name, action = _action_in(_payload(outline(request.body)))
        envelope.action = name
        action.check_size(name, size)
        check_right(name, action.role, caller, self._context.settings)

    def _document(self, request: Request, envelope: Envelope) -> Any:
        """Return the JSON of the body, ABSENT when the body is empty."""
        if not envelope.text.strip():
            return ABSENT
        document = loads(request.body)
        envelope.parsed = True
        return document

    def _look_up(self, request: Request, envelope: Envelope, caller: Caller) -> Outcome:
        components = request.target.removesuffix("/").split("/")[1 + PREFIX_COMPONENTS :]
        wanted = ActionRequest({}, caller=caller)
        try:
            envelope.get = look_up("/" + "/".join(components), wanted, self._context_of(caller))
        except UnknownJob:
            envelope.get = False
            raise
        envelope.found = wanted.found
        return Outcome(True)

    def _post(
        self, document: Any, envelope: Envelope, caller: Caller, only_quick: bool, size: int
    ) -> Outcome | Later | None:
        if document is ABSENT:
            raise MalformedRequest(
                'the body is empty, expected {"payload": {"action": ..., "meta": {...}}}',
                field="body",
            )
        action, wanted = self._parse(_payload(document), caller, envelope, size)
        context = self._context_of(caller)
        if only_quick and not (action.is_quick is not None and action.is_quick(wanted, context)):
            return None
        try:
            outcome = action.perform(wanted, context)
        finally:  # the log tells it of a request that failed, too
            envelope.found = wanted.found
        if not wanted.is_threaded():
            return outcome
        if isinstance(outcome, Outcome) and outcome.code >= 400:
            return outcome
        _leave(outcome)
        return Outcome(True)

    def _put(self, document: Any, envelope: Envelope, caller: Caller) -> Outcome:
        if document is ABSENT:
            raise MalformedRequest(
                'the body is empty, expected {"payload": {"action": "run", "meta": {...}}}',
                field="body",
            )
        payload = _payload(document)
        if payload.get("action") != "run":
            raise UnknownAction(
                f"action is {shown(payload.get('action'))}, expected 'run' with PUT", field="action"
            )
        envelope.action = "run"
        wanted = ActionRequest(_meta(payload), caller=caller)
        try:
            return put_run(wanted, self._context_of(caller))
        finally:
            envelope.found = wanted.found

    def _parse(
        self, payload: Any, caller: Caller, envelope: Envelope | None = None, size: int = 0
    ) -> tuple[Action, ActionRequest]:
        """Find the action and the `meta` of a payload.

        Args:
            size: Of the body that it came in, bytes.
        Raises:
            Forbidden: The caller may not ask for it.
            RequestTooLarge: The body is longer than the action takes.
            RequestError: A key is missing or of the wrong type.
            UnknownAction: There is no such action.
        """
        if not isinstance(payload, dict):
            raise MalformedRequest(
                f"payload is {shown(payload)}, expected an object", field="payload"
            )
        name, action = _action_in(payload)
        meta = _meta(payload)
        if envelope is not None:
            envelope.action = name
        action.check_size(name, size)
        if envelope is not None:
            envelope.meta = meta  # what is too large is not repeated
        check_right(name, action.role, caller, self._context.settings)
        return action, ActionRequest(meta, caller=caller)

    # --- replies --------------------------------------------------------------------------

    def _defer(self, later: Later, form: Form) -> Deferred:
        """Have a reply made when there is an outcome, unless it is given up before."""
        deferred = Deferred()
        form.pack()

        def answer(make: Callable[[], Outcome]) -> None:
            response = self._guard(make, form)
            assert isinstance(response, Response), "an outcome that came late does not wait again"
            self._operations.note(form.request, form.action, response, form.found)
            deferred.resolve(response)

        give_up = later.subscribe(answer)
        if not later.is_work:

            def let_go() -> None:
                self._operations.note(form.request, form.action, GIVEN_UP, form.found)
                give_up()

            deferred.on_given_up(let_go)
        return deferred

    def _guard(
        self, make: Callable[[], Outcome | Later | None], form: Form
    ) -> Response | Deferred | None:
        """Turn what `make` returns or raises into a reply; None stays None."""
        try:
            outcome = make()
            if isinstance(outcome, Outcome):
                return form.reply(outcome)
            return None if outcome is None else self._defer(outcome, form)
        except PmanError as exc:
            return form.refuse(exc)
        except Exception:  # noqa: BLE001  # the one place: no request may take a listener with it
            _log.exception("a request for %r failed", form.action or form.request.target)
            return form.refuse(PmanError("pman failed to carry this out; its log says why"))


def _leave(outcome: Outcome | Later) -> None:
    """Let go of an outcome that nobody wants; what is to be done for it is done all the same."""
    if isinstance(outcome, Later):
        if outcome.is_work:
            outcome.subscribe(lambda _: None)
    elif outcome.stream is not None:
        outcome.stream.close()


def _payload(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or not isinstance(document.get("payload"), dict):
        raise MalformedRequest(
            'the body has no object "payload", expected '
            '{"payload": {"action": ..., "meta": {...}}}',
            field="payload",
        )
    payload: dict[str, Any] = document["payload"]
    return payload


def _action_in(payload: dict[str, Any]) -> tuple[str, Action]:
    """Return the action that a payload names, and its name."""
    name = payload.get("action")
    if not isinstance(name, str):
        raise RequestError(f"action is {shown(name)}, expected a string", field="action")
    action = ACTIONS.get(name)
    if action is None:
        raise UnknownAction(
            f"action is {shown(name)}, expected one of {', '.join(ACTIONS)}", field="action"
        )
    return name, action


def _meta(payload: dict[str, Any]) -> dict[str, Any]:
    if "meta" not in payload:
        raise RequestError("payload has no 'meta'", field="meta")
    meta = payload["meta"]
    if not isinstance(meta, dict):
        raise RequestError(f"meta is {shown(meta)}, expected an object", field="meta")
    return meta
