"""Bytes of one connection -> requests, by way of llhttp (`httptools`). No I/O, no clock."""

from __future__ import annotations

from typing import Final

import httptools
import msgspec

from pman.errors import (
    MalformedRequest,
    MethodNotAllowed,
    NotSupported,
    PmanError,
    RequestTooLarge,
)
from pman.http import grammar
from pman.http.message import Request


class Rejection(msgspec.Struct):
    """These bytes never become a request; nothing that follows them on the connection is read.

    Attributes:
        error: Why, with the status code that fits.
        raw: The beginning of what came, at most `grammar.MAX_KEPT_BYTES`.
    """

    error: PmanError
    raw: bytes


class Continue100(msgspec.Struct):
    """The client waits for `100 Continue` before it sends the body."""


Event = Request | Rejection | Continue100

#: Headers that the parser itself looks at.
_FRAMING: Final = frozenset({"expect", "content-length", "transfer-encoding"})
_FRAMING_LENGTHS: Final = frozenset(map(len, _FRAMING))


class _Stop(Exception):
    """Ends the parsing; `RequestParser._error` says why."""


class RequestParser:
    """What one connection has sent, as events."""

    __slots__ = (
        "_body",
        "_closed",
        "_error",
        "_events",
        "_fed_bytes",
        "_framing",
        "_headers",
        "_http",
        "_in_head",
        "_last",
        "_line_open",
        "_max_body_bytes",
        "_max_head_bytes",
        "_open",
        "_pieces",
        "_progress",
        "_quiet_bytes",
        "_start",
        "_unknown_method",
        "_upgrade_offered",
        "_url",
        "_version",
    )

    def __init__(self, max_head_bytes: int, max_body_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_body_bytes = max_body_bytes
        self._events: list[Event] = []
        self._error: PmanError | None = None
        self._closed = False  # nothing more is read
        self._open = False  # a request has begun and is not complete
        self._in_head = False
        self._line_open = False  # the end of the request line has not been seen
        self._last = b""  # byte before the next piece, while the line is open
        self._unknown_method = False
        self._progress = False  # this feed brought content
        self._quiet_bytes = 0  # fed without bringing content: head, chunk extensions, trailers
        self._fed_bytes = 0  # by this feed
        self._start = b""
        self._url = b""
        self._version = "1.1"
        self._headers: list[tuple[str, str]] = []
        self._framing: dict[str, str] = {}
        self._body = b""
        self._pieces: bytearray | None = None
        self._upgrade_offered = False
        self._http = self._new_parser()

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # RFC 9112, section 2.2: a recipient may take a single LF as a line terminator.
        parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        return parser

    @property
    def is_idle(self) -> bool:
        """True between requests."""
        return not self._open

    @property
    def held_bytes(self) -> int:
        """Size of the body of the request that is not complete."""
        return len(self._pieces) if self._pieces is not None else len(self._body) * self._open

    @property
    def is_closed(self) -> bool:
        """True once nothing more is read: after a rejection, or a request that closes."""
        return self._closed

    def drop(self) -> None:
        """Give up the request that is not complete; nothing more is read."""
        self._closed = True
        self._open = False
        self._body = b""
        self._pieces = None

    def feed(self, raw: bytes) -> list[Event]:
        """Add bytes from the wire; return what they complete, oldest first.

        Args:
            raw: Next bytes of the connection, cut anywhere; not empty.
        Returns:
            [] when more bytes are needed, or nothing more is read. A `Rejection` is the last event.
        Source: RFC 9112; limits: `Settings`.
        """
        events: list[Event] = []
        if self._closed:
            return events
        self._events = events
        self._progress = False
        self._fed_bytes = len(raw)
        if not self._open:
            if raw[0] in b"\r\n":  # RFC 9112, section 2.2: empty lines before a request
                raw = raw.lstrip(b"\r\n")
                if not raw:
                    return events
            self._start = raw[: grammar.MAX_LINE_BYTES]
            self._last = b""
            self._line_open = True
        elif self._line_open and len(self._start) < grammar.MAX_LINE_BYTES:
            self._start += raw[: grammar.MAX_LINE_BYTES]
        if self._line_open:
            self._look_at_line_end(raw)
        if self._unknown_method:
            self._refuse_method()
            return events
        try:
            self._feed_llhttp(raw)
        except httptools.HttpParserInvalidMethodError:
            self._refuse_method()
        except httptools.HttpParserError as exc:
            if not self._closed:
                self._reject(self._error or self._reason(exc))
        if self._open and not self._progress:
            self._count_quiet(len(raw))
        return events

    def _feed_llhttp(self, raw: bytes) -> None:
        try:
            self._http.feed_data(raw)
        except httptools.HttpParserUpgrade as exc:
            self._decline_upgrade(raw[exc.args[0] :])

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1, as RFC 9110, section 7.8 lets a server do.

        llhttp takes what follows such a head for another protocol. So a new parser gets the same
        head, without the offer, and then the rest.
        """
        headers = self._headers
        lines = [f"{self._http.get_method().decode()} {self._url.decode('latin-1')} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() != "upgrade"]
        self._upgrade_offered = False
        self._http = self._new_parser()
        events = self._events
        self._http.feed_data("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if self._open:
            self._headers = headers  # as they were sent
        else:
            completed = events[-1]
            assert isinstance(completed, Request)
            completed.headers = headers
        if rest and not self._closed:
            self._feed_llhttp(rest)

    # --- called by httptools ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._open = self._in_head = True
        self._url = self._body = b""
        self._headers = []
        self._quiet_bytes = 0

    def on_url(self, piece: bytes) -> None:
        """Add a piece of the request target."""
        self._url += piece

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        """Add a header; trailers, which come after the head, are dropped."""
        if self._in_head:
            self._headers.append((raw_name.decode("latin-1"), raw_value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Check the head as far as llhttp does not."""
        self._in_head = self._line_open = False
        framing: dict[str, str] = {}
        headers = self._headers
        for index, (name, value) in enumerate(headers):
            if value and value[-1] in " \t":  # RFC 9110, section 5.5: not part of the value
                value = value.rstrip(" \t")
                headers[index] = name, value
            if len(name) in _FRAMING_LENGTHS and (lower := name.lower()) in _FRAMING:
                known = framing.get(lower)
                framing[lower] = value if known is None else f"{known}, {value}"
        self._framing = framing
        if self._quiet_bytes + self._fed_bytes > self._max_head_bytes:
            self._check_head_size()
        self._quiet_bytes = 0
        self._version = version = self._http.get_http_version()
        if version != "1.1" and version != "1.0":
            self._stop(_wrong_version(version))
        if self._http.should_upgrade():
            if self._http.get_method() == b"CONNECT":
                self._stop(MethodNotAllowed("method 'CONNECT' is not known"))
            self._upgrade_offered = True
            return
        if self._framing:
            self._check_framing()

    def on_body(self, piece: bytes) -> None:
        """Add a piece of the body, chunking removed."""
        self._progress = True
        self._quiet_bytes = 0
        if not self._body:
            self._body = piece
            size = len(piece)
            if self._events and isinstance(self._events[-1], Continue100):
                self._events.pop()  # the client did not wait for it
        else:
            # A bytearray, because a list of one-byte chunks costs fifty times their size.
            if self._pieces is None:
                self._pieces = bytearray(self._body)
            self._pieces += piece
            size = len(self._pieces)
        if size > self._max_body_bytes:
            self._stop(self._body_too_large(f"more than {self._max_body_bytes}"))

    def on_message_complete(self) -> None:
        """End a request."""
        if self._upgrade_offered:
            return  # not complete: llhttp stops here, and `_decline_upgrade` goes on
        body = self._body
        if self._pieces is not None:
            body = bytes(self._pieces)
            self._pieces = None
        keep_alive = self._http.should_keep_alive()
        self._open = False
        self._progress = True
        self._start = b""  # what follows in this piece has its beginning elsewhere
        self._events.append(
            Request(
                method=self._http.get_method().decode("latin-1"),
                target=self._url.decode("latin-1"),
                version=self._version,
                headers=self._headers,
                body=body,
                keep_alive=keep_alive,
            )
        )
        if not keep_alive:
            self._closed = True

    # --- checks -----------------------------------------------------------------------------

    def _look_at_line_end(self, raw: bytes) -> None:
        """Be lenient to a client that ends its request line with a bare LF, to nobody else.

        llhttp needs a second leniency there, which also takes a bare CR for a line end.
        """
        end = raw.find(b"\n")
        if end < 0:
            self._last = raw[-1:]
            return
        self._line_open = False
        if (raw[end - 1 : end] if end else self._last) != b"\r":
            self._http.set_dangerous_leniencies(lenient_optional_lf_after_cr=True)

    def _check_head_size(self) -> None:
        """Count exactly what the size of the pieces leaves open."""
        size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        if size > self._max_head_bytes:
            self._stop(self._head_too_large())

    def _check_framing(self) -> None:
        framing = self._framing
        coding = framing.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            self._stop(NotSupported(f"transfer coding {coding!r} is not known (chunked only)"))
        length = int(framing.get("content-length", "0"))  # llhttp lets digits only through
        if length > self._max_body_bytes:
            self._stop(self._body_too_large(str(length)))
        expect = framing.get("expect")
        if expect is None or self._version == "1.0":
            return
        if expect.lower() != "100-continue":
            self._stop(
                MalformedRequest(f"expectation {expect!r} is not known (100-continue)", hint=417)
            )
        if length or coding:
            self._events.append(Continue100())

    def _refuse_method(self) -> None:
        """Tell a method that llhttp does not know from bytes that are not HTTP.

        llhttp gives up at the first letter that fits no method; the whole line decides.
        """
        self._open = self._unknown_method = True
        start = self._start
        if grammar.REQUEST_LINE.match(start):
            method = start.split(b" ", 1)[0].decode("latin-1")
            self._reject(MethodNotAllowed(f"method {method!r} is not known"))
        elif len(start) >= grammar.MAX_LINE_BYTES or not (
            grammar.REQUEST_LINE_BEGINNING.fullmatch(start)
        ):
            self._reject(self._reason(None))

    def _count_quiet(self, size: int) -> None:
        self._quiet_bytes += size
        if self._quiet_bytes > self._max_head_bytes and not self._closed:
            self._reject(self._head_too_large())

    def _stop(self, error: PmanError) -> None:
        self._error = error
        raise _Stop

    def _reject(self, error: PmanError) -> None:
        self.drop()
        self._events.append(Rejection(error, self._start[: grammar.MAX_KEPT_BYTES]))

    def _reason(self, exc: Exception | None) -> PmanError:
        """Return what to tell the client about bytes that llhttp does not take."""
        start = self._start
        if grammar.TLS_HELLO.match(start):
            return MalformedRequest("the request is a TLS handshake, expected plain HTTP/1.1")
        if start.startswith(grammar.HTTP2_PREFACE):
            return _wrong_version("2.0")
        said = "" if exc is None else f": {str(exc)[:1].lower()}{str(exc)[1:]}"
        return MalformedRequest(f"the request is not HTTP/1.1{said}")

    def _head_too_large(self) -> PmanError:
        return RequestTooLarge(
            f"the head of the request is larger than {self._max_head_bytes} bytes", hint=431
        )

    def _body_too_large(self, size: str) -> PmanError:
        return RequestTooLarge(
            f"the body has {size} bytes, expected at most {self._max_body_bytes}", hint=413
        )


def _wrong_version(version: str) -> PmanError:
    if version == "0.9":
        return MalformedRequest("the request line has no HTTP version, expected HTTP/1.1")
    return NotSupported(f"HTTP/{version} is not spoken here (HTTP/1.0 and HTTP/1.1 only)")
