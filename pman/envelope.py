"""The envelope that every 2.2 reply comes in: what was received, and what became of it."""

from __future__ import annotations

from typing import Any

import msgspec

from pman.auth import header_lines
from pman.errors import PmanError
from pman.http.message import Request
from pman.job.record import Job

#: Longest text of a body that a reply repeats, characters; 2.2 could take 8192 bytes. A refused
#: request gets less of it back: who has no token shall not have us work for him.
MAX_ECHO_LENGTH = 64 * 1024
MAX_REFUSED_ECHO_LENGTH = 8 * 1024

#: Marks a part of the envelope that this reply does not have; None is a value of JSON.
ABSENT: Any = object()


class Envelope:
    """Collects what is known of one request while it is carried out, in 2.2's key order.

    Attributes:
        action: Name of the action carried out, "" while there is none.
        text: What was taken as the JSON, or ABSENT before the token was found good.
        meta, get, d_ret: Parts of the reply, ABSENT when it has none.
        parsed: Whether the text held JSON.
        found: Jobs that the request is about, as far as known, or None; for the log.
    """

    __slots__ = (
        "_length",
        "_packed",
        "_request",
        "action",
        "d_ret",
        "found",
        "get",
        "meta",
        "parsed",
        "text",
    )

    def __init__(self, request: Request) -> None:
        self._request = request
        self.action = ""
        self.text: Any = ABSENT
        self.meta: Any = ABSENT
        self.get: Any = ABSENT
        self.d_ret: Any = ABSENT
        self.parsed = False
        self.found: list[Job] | None = None
        self._length: int | None = None
        self._packed: bytes | None = None

    def pack(self) -> None:
        """Keep only what `build` needs, in little room: the reply comes later."""
        if self.text is not ABSENT and self._length is None:
            self._length = len(self.text)
            self.text = self.text[: MAX_ECHO_LENGTH + 1]  # one more shows that it is cut
        if self.meta is not ABSENT:
            # Parsed, it may take twenty times the room.
            self._packed, self.meta = msgspec.json.encode(self.meta), ABSENT

    def build(self, status: bool, error: PmanError | None = None) -> dict[str, Any]:
        """Return the reply.

        Source: WIRE.md, section 2, the envelope.
        """
        request = self._request
        first_line = (
            f"{request.method} {request.target} HTTP/{request.version}\r" if request.is_http else ""
        )
        target = request.target
        reply: dict[str, Any] = {
            "status": status,
            "RESTheader": first_line,
            "RESTverb": request.method,
            "action": self.action,
            "path": target[:-1] if target.endswith("/") else target,
            "receivedByServer": self._received(first_line),
        }
        if self.get is not ABSENT:
            reply["GET"] = self.get
        if self.text is not ABSENT:
            reply["client_json_payload"] = _cut(self.text, MAX_ECHO_LENGTH)
            length = len(self.text) if self._length is None else self._length
            reply["client_json_len"] = length
            if self.parsed:
                reply["payloadsize"] = length
        if self.meta is not ABSENT:
            reply["meta"] = self.meta
        elif self._packed is not None:
            reply["meta"] = msgspec.json.decode(self._packed)
        if self.d_ret is not ABSENT:
            reply["d_ret"] = self.d_ret
        if error is not None:
            reply["error"] = describe(error)
        return reply

    def _received(self, first_line: str) -> list[str]:
        """Return the lines of the request; secrets in headers are masked."""
        request = self._request
        if self.text is ABSENT:
            raw = request.body[: MAX_REFUSED_ECHO_LENGTH + 1]
            text = _cut(raw.decode("utf-8", "replace"), MAX_REFUSED_ECHO_LENGTH)
        else:
            text = _cut(self.text, MAX_ECHO_LENGTH)
        lines = text.split("\n")
        if not request.is_http:
            return lines
        return [first_line, *header_lines(request.headers), "\r", *lines]


def _cut(text: str, length: int) -> str:
    """Return a text, of a long one its beginning with a note that it goes on."""
    return text if len(text) <= length else f"{text[:length]}\n[pman: the rest is not repeated]"


def describe(error: PmanError) -> dict[str, str]:
    """Return the `error` object of a reply."""
    described = {"type": error.kind, "message": error.message}
    if error.field is not None:
        described["field"] = error.field
    return described
