"""`Request` and `Response` values."""

from __future__ import annotations

import msgspec

from pman.http.streaming import Body


class Request(msgspec.Struct):
    """One whole request.

    Attributes:
        method: As sent, case kept.
        target: Second word of the request line, as sent (no decoding), latin-1 text.
        version: "1.0" or "1.1".
        headers: Names as sent and values without surrounding blanks, in order, latin-1 text.
        body: After removal of any transfer coding.
        is_http: False for a ZeroMQ message (`--rawmode 0`): no request line, no headers.
        authorization: Only without HTTP: what stands for the `Authorization` header, or None.
        keep_alive: Whether the connection stays open after the reply (RFC 9112, section 9.3).
        received_at: When it was complete, monotonic seconds; 0.0: not known.
        peer: Address that it came from, "" when not known.
        wants_id: Whether the client has named it, and is to be told its id.
        id: See `pman.http.request_id`; "" until somebody needs it.
        token: Name of the token by which it was let in, for the log; "" without one.
    """

    method: str
    target: str
    version: str = "1.1"
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    is_http: bool = True
    authorization: str | None = None
    keep_alive: bool = True
    received_at: float = 0.0
    peer: str = ""
    wants_id: bool = False
    id: str = ""
    token: str = ""

    def header_values(self, lower_name: str) -> list[str]:
        """Return the values of a header, by its lower-case name."""
        size = len(lower_name)  # lengths differ mostly, and cost less to compare
        return [
            value
            for name, value in self.headers
            if len(name) == size and name.lower() == lower_name
        ]


class Response(msgspec.Struct):
    """What to answer; framing and connection handling are the front's.

    Attributes:
        status: HTTP status code.
        body: Content, encoded.
        content_type: Value of `Content-Type`.
        headers: Further headers.
        stream: What follows `body` and is made while it is sent, or None.
        has_length: Whether `body` tells the length; not so in a reply to HEAD about a stream.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: Body | None = None
    has_length: bool = True
