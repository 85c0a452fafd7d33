"""`/healthz` and `/readyz`: does pman serve, and would it take a job now. From memory, at once."""

from __future__ import annotations

from typing import Any

import msgspec

from pman.actions.base import ActionContext
from pman.http.message import Response
from pman.wire import HOST

#: Body of `/healthz`: who gets it has the answer already.
ALIVE = b'{"alive": true}\n'


def healthz() -> Response:
    """Say that requests are answered."""
    return Response(200, ALIVE)


def readyz(context: ActionContext, *, is_draining: bool, tells_all: bool) -> Response:
    """Say whether jobs would be taken: 200, or 503 while one backend can't, or pman is to stop.

    Args:
        tells_all: Whether who asks may know why not.
    """
    backends = backend_states(context)
    is_ready = not is_draining and all(state == "ok" for state in backends.values())
    document: dict[str, Any] = {"ready": is_ready}
    if tells_all:
        document |= {"backends": backends, "draining": is_draining}
    body = msgspec.json.format(msgspec.json.encode(document), indent=4) + b"\n"
    return Response(200 if is_ready else 503, body)


def backend_states(context: ActionContext) -> dict[str, str]:
    """Return "ok", or why not, for each backend that clients may use."""
    return {
        name: backend.state()
        for name, backend in sorted(context.backends.items())
        if name != HOST or not context.settings.disable_host_jobs
    }
