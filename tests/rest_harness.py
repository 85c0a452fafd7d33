"""Requests of REST to a dispatcher on a real store and the stub backend; no sockets, no daemon."""

from __future__ import annotations

import json
import zlib
from typing import Any

from action_harness import Harness, wait_for

from pman.http.deferred import Deferred
from pman.http.message import Request, Response

JSON = ("Content-Type", "application/json")


class RestAnswer:
    """A response, taken apart."""

    def __init__(self, response: Response) -> None:
        self.code = response.status
        self.media = response.content_type
        self.headers = dict(response.headers)
        self.raw = response.body
        self.stream = response.stream

    @property
    def json(self) -> Any:
        is_gzip = self.headers.get("Content-Encoding") == "gzip"
        return json.loads(zlib.decompress(self.raw, 31) if is_gzip else self.raw)


def ask(
    pman: Harness, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> RestAnswer:
    """Carry out one request below `/api/v2`; wait for a reply that comes late."""
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    given = [] if body is None or isinstance(body, bytes) else [JSON]
    given += list((headers or {}).items())
    request = Request(method, f"/api/v2{path}", headers=given, body=raw)
    answered = pman.dispatcher.handle(request)
    return RestAnswer(wait_for(answered) if isinstance(answered, Deferred) else answered)


def start(pman: Harness, cmd: str = "wait", **fields: Any) -> dict[str, Any]:
    """Start a job; return what is shown of it."""
    answer = ask(pman, "POST", "/jobs", {"cmd": cmd, **fields})
    assert answer.code in (200, 201), answer.raw
    shown: dict[str, Any] = answer.json
    return shown
