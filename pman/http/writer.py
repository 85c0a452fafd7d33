"""`Response` -> bytes. No I/O; the clock is an argument."""

from __future__ import annotations

import functools
from email.utils import formatdate
from http import HTTPStatus

from pman import __version__
from pman.http import grammar
from pman.http.message import Response

#: Interim reply to `Expect: 100-continue`. Source: RFC 9110, section 15.2.1.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: What the body of a stream is framed with. Source: RFC 9112, section 7.1.
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"

#: `connection` of `head()`.
KEEP_ALIVE = b"Connection: keep-alive\r\n"
CLOSE = b"Connection: close\r\n"


def head(response: Response, *, connection: bytes, now_s: int) -> bytes:
    """Return status line, headers and the empty line.

    Content-Length and Content-Type come first, in this order, as in 2.2.

    Args:
        response: What to answer; its body is only measured.
        connection: `KEEP_ALIVE`, `CLOSE`, or b"" where the protocol's default does.
        now_s: UTC epoch seconds, for `Date`.
    Source: RFC 9110, section 8.6: no Content-Length with 204, nor that of an empty body with 304,
        nor with HEAD one that GET would not have.
    """
    status = response.status
    has_content = status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    if not has_content or not response.has_length:
        first = _status_line(status)
    else:
        first = b"%bContent-Length: %d\r\n" % (_status_line(status), len(response.body))
    common = _common(now_s, response.content_type, has_content)
    more = _fields(response.headers) if response.headers else b""
    return b"%b%b%b%b\r\n" % (first, common, connection, more)


def stream_head(response: Response, *, connection: bytes, now_s: int, is_chunked: bool) -> bytes:
    """As `head`, for a body whose length nobody knows yet.

    Args:
        is_chunked: Whether it is sent in chunks; else it ends with the connection.
    """
    coding = CHUNKED if is_chunked else b""
    common = _common(now_s, response.content_type, True)
    more = _fields(response.headers) if response.headers else b""
    return b"%b%b%b%b%b\r\n" % (_status_line(response.status), coding, common, connection, more)


def chunk(raw: bytes) -> bytes:
    """Return a piece of a body, not empty, as a chunk."""
    return b"%x\r\n%b\r\n" % (len(raw), raw)


@functools.cache
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


@functools.lru_cache(maxsize=8)
def _common(now_s: int, content_type: str, has_content: bool) -> bytes:
    """Return what the replies of one second have in common."""
    date = formatdate(now_s, usegmt=True)
    lines = f"Server: pman/{__version__}\r\nDate: {date}\r\n".encode()
    return b"Content-Type: %b\r\n%b" % (_value(content_type), lines) if has_content else lines


@functools.lru_cache(maxsize=64)
def _value(text: str) -> bytes:
    """Encode a header value; what could end the field becomes a blank."""
    return grammar.UNSAFE_IN_VALUE.sub(" ", text).encode("latin-1", "replace")


@functools.lru_cache(maxsize=64)
def _fields(headers: tuple[tuple[str, str], ...]) -> bytes:
    return b"".join(
        b"%b: %b\r\n" % (grammar.UNSAFE_IN_NAME.sub("", name).encode("ascii"), _value(value))
        for name, value in headers
    )
