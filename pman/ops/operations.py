"""`Operations`: the pages for who runs pman, and the books on all requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from pman import log
from pman.actions.base import ActionContext
from pman.auth import Caller
from pman.envelope import describe
from pman.errors import Forbidden, MethodNotAllowed, NotAuthorized, PmanError, shown
from pman.http.message import Request, Response
from pman.http.request_id import id_header
from pman.job.record import Job
from pman.meters import OTHER, Meters, RequestMeter
from pman.ops.health import healthz, readyz
from pman.ops.lines import log_request
from pman.ops.metrics import Exposition
from pman.wire import METHODS, dumps

HEALTHZ, READYZ, METRICS = "/healthz", "/readyz", "/metrics"

#: Paths that lead here; any other is the dispatcher's.
PATHS = frozenset({HEALTHZ, READYZ, METRICS})

#: Those of them that touch nothing but memory, and little of it.
QUICK_PATHS = frozenset({HEALTHZ, READYZ})

ALLOW = ("Allow", "GET, HEAD")

#: Methods that are counted by name.
KNOWN_METHODS = frozenset({*METHODS, "DELETE", "PATCH"})

#: What requests without an action are counted as, by method.
UNNAMED = {"GET": "get", "HEAD": "get", "OPTIONS": "options"}


def page_of(request: Request) -> str | None:
    """Return which of `PATHS` a request is for, None for none.

    POST and PUT are commands, whatever their path. Source: WIRE.md 3.
    """
    if request.method in ("POST", "PUT"):
        return None
    target = request.target
    if target in PATHS:
        return target
    path = target.partition("?")[0]
    return path if path in PATHS else None


def _never() -> bool:
    return False


class Operations:
    """Answers the pages, and counts and logs every request. Thread-safe, but for `note_quick`."""

    def __init__(
        self,
        context: ActionContext,
        meters: Meters | None = None,
        is_draining: Callable[[], bool] = _never,
    ) -> None:
        """Prepare.

        Args:
            is_draining: Tells whether the stop has been asked for.
        """
        self._context = context
        self._meters = meters or Meters()
        self._is_draining = is_draining
        self._exposition = Exposition(context, self._meters, is_draining)
        self.quick = self._meters.quick
        #: Whether there is a line for each request.
        self.has_lines = logging.getLogger(log.ACCESS).isEnabledFor(logging.INFO)

    # --- pages ----------------------------------------------------------------------------

    def answer(
        self, path: str, request: Request, caller: Caller | None, refusal: PmanError | None
    ) -> Response:
        """Answer one of `PATHS`.

        Args:
            caller: Who asks; None for somebody who may not.
            refusal: Why not, then.
        """
        try:
            response = self._page(path, request, caller, refusal)
        except PmanError as exc:
            response = Response(exc.hint, dumps({"error": describe(exc)}))
            if isinstance(exc, MethodNotAllowed):
                response.headers = (ALLOW,)
            elif isinstance(exc, NotAuthorized):
                response.headers = (("WWW-Authenticate", "Bearer"),)
        # A proxy's answer of a minute ago is worse than none.
        response.headers += (("Cache-Control", "no-store"), id_header(request))
        return response

    def _page(
        self, path: str, request: Request, caller: Caller | None, refusal: PmanError | None
    ) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(
                f"method is {shown(request.method)}, expected GET or HEAD", field="method"
            )
        if path == HEALTHZ:
            return healthz()
        if path == READYZ:
            return readyz(
                self._context, is_draining=self._is_draining(), tells_all=caller is not None
            )
        if caller is None:
            raise refusal or NotAuthorized("there is no token", field="Authorization")
        if caller.auid is not None:
            raise Forbidden("metrics are about the jobs of all users, and this token is for one's")
        return self._exposition.response(", ".join(request.header_values("accept")))

    # --- the books ------------------------------------------------------------------------

    def note(
        self,
        request: Request,
        action: str,
        response: Response,
        found: Sequence[Job] | None = None,
    ) -> None:
        """Count a request that has got its reply, or that nobody waits for any more.

        Args:
            action: Name of an action that there is, or of a route of REST, or "" for none.
            found: Jobs that it is about.
        """
        self._note(request, action, response, found, self._meters.requests)

    def note_quick(
        self, request: Request, action: str, response: Response, found: Sequence[Job] | None
    ) -> None:
        """Count a POST that the front has carried out itself; in its thread only."""
        self._note(request, action, response, found, self.quick)

    def _note(
        self,
        request: Request,
        action: str,
        response: Response,
        found: Sequence[Job] | None,
        meter: RequestMeter,
    ) -> None:
        method = request.method
        if not action:
            action = UNNAMED.get(method, OTHER)
        received_at = request.received_at
        seconds = time.monotonic() - received_at if received_at else 0.0
        meter.add((action, method if method in KNOWN_METHODS else OTHER, response.status), seconds)
        if self.has_lines:
            log_request(request, action, response, found or (), seconds)
