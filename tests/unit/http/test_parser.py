"""`RequestParser`: framing, limits and refusals, with every request cut at every byte."""

from __future__ import annotations

import pytest

from pman.http.message import Request
from pman.http.parser import Continue100, Event, Rejection, RequestParser

POST = (
    b"POST /api/v1/cmd HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nContent-Type:  a/b \r\n"
    b'Content-Length: 14\r\n\r\n{"payload": 1}'
)
CHUNKED = (
    b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
)
LF_ONLY = b"POST / HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc"
OLD = b"GET /x HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
CLOSING = b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n"
BARE = b"GET / HTTP/1.1\r\n\r\n"


def make(head: int = 4096, body: int = 1000) -> RequestParser:
    return RequestParser(max_head_bytes=head, max_body_bytes=body)


def feed(*pieces: bytes, parser: RequestParser | None = None) -> list[Event]:
    parser = parser or make()
    return [event for piece in pieces for event in parser.feed(piece)]


def only(events: list[Event]) -> Event:
    assert len(events) == 1, events
    return events[0]


def request(*pieces: bytes) -> Request:
    event = only(feed(*pieces))
    assert isinstance(event, Request), event
    return event


def only_requests(*pieces: bytes) -> list[Request]:
    events = feed(*pieces)
    assert all(isinstance(event, Request) for event in events), events
    return [event for event in events if isinstance(event, Request)]


def rejection(*pieces: bytes, parser: RequestParser | None = None) -> Rejection:
    event = feed(*pieces, parser=parser)[-1]
    assert isinstance(event, Rejection), event
    return event


def test_a_request_has_its_parts() -> None:
    got = request(POST)
    assert got == Request(
        method="POST",
        target="/api/v1/cmd",
        headers=[
            ("Host", "h"),
            ("X-Empty", ""),
            ("Content-Type", "a/b"),
            ("Content-Length", "14"),
        ],
        body=b'{"payload": 1}',
    )


@pytest.mark.parametrize(
    ("raw", "body", "keep_alive"),
    [
        (POST, b'{"payload": 1}', True),
        (CHUNKED, b"abc0123456789", True),
        (LF_ONLY, b"abc", True),
        (OLD, b"", False),
        (OLD_KEPT, b"", True),
        (CLOSING, b"", False),
        (BARE, b"", True),
        (b"\r\n\n" + BARE, b"", True),
        (b"\n" + LF_ONLY, b"abc", True),
    ],
)
def test_a_request_may_be_cut_at_every_byte(raw: bytes, body: bytes, keep_alive: bool) -> None:
    whole = request(raw)
    assert (whole.body, whole.keep_alive) == (body, keep_alive)
    for cut in range(1, len(raw)):
        assert request(raw[:cut], raw[cut:]) == whole, cut
    assert request(*(bytes([byte]) for byte in raw)) == whole


def test_pipelined_requests_come_in_order() -> None:
    raw = POST + CHUNKED + BARE + OLD_KEPT + CLOSING
    whole = feed(raw)
    assert [event.target for event in whole if isinstance(event, Request)] == [
        "/api/v1/cmd",
        "/",
        "/",
        "/x",
        "/x",
    ]
    for cut in range(1, len(raw)):
        assert feed(raw[:cut], raw[cut:]) == whole, cut


def test_lf_only_requests_may_be_pipelined() -> None:
    assert len(feed(LF_ONLY + LF_ONLY + BARE)) == 3


def test_empty_lines_between_requests_begin_nothing() -> None:
    parser = make()
    assert len(feed(BARE + b"\r\n", b"\r\n", b"\n", parser=parser)) == 1
    assert parser.is_idle
    feed(b"G", parser=parser)
    assert not parser.is_idle


def test_what_follows_a_closing_request_is_not_read() -> None:
    parser = make()
    assert len(feed(CLOSING + BARE, BARE, parser=parser)) == 1
    assert parser.is_closed


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"get / HTTP/1.1\r\n\r\n", 405),
        (b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"PATX / HTTP/1.1\r\n\r\n", 405),
        (b"CONNECT h:1 HTTP/1.1\r\n\r\n", 405),
        (b"{", 400),
        (b"FOO\r\n", 400),
        (b"get /\r\n", 400),
        (b"POST /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\xff\xfe\x00", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            501,
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n", 400),
        (b"POST / HTTP/1.1\r\nExpect: tea\r\nContent-Length: 3\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413),
    ],
)
def test_what_is_not_a_request_is_refused_wherever_it_is_cut(raw: bytes, status: int) -> None:
    whole = rejection(raw)
    assert whole.error.hint == status, whole.error
    assert whole.error.message[:4] != "HTTP" or status == 501
    assert raw.startswith(whole.raw)
    for cut in range(1, len(raw)):
        assert rejection(raw[:cut], raw[cut:]).error.hint == status, cut


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"x/1, y"])
def test_an_offer_to_upgrade_is_not_taken_and_does_no_harm(protocol: bytes) -> None:
    raw = (
        b"POST /a HTTP/1.1\r\nConnection: Upgrade, X\r\nUpgrade: %b\r\nContent-Length: 3\r\n\r\nabc"
        b"GET /b HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
        b"GET /c HTTP/1.1\r\nConnection: close\r\n\r\n" % protocol
    )
    whole = only_requests(raw)
    assert [(r.target, r.body) for r in whole] == [("/a", b"abc"), ("/b", b""), ("/c", b"")]
    assert ("Upgrade", protocol.decode()) in whole[0].headers
    assert [r.keep_alive for r in whole] == [True, True, False]
    for cut in range(1, len(raw)):
        assert only_requests(raw[:cut], raw[cut:]) == whole, cut


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (
            b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
            b"Content-Length: 1001\r\n\r\n",
            413,
        ),
        (b"GET / HTTP/2.0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 501),
    ],
)
def test_an_offer_to_upgrade_loosens_no_check(raw: bytes, status: int) -> None:
    assert rejection(raw).error.hint == status


def test_nothing_is_read_after_a_rejection() -> None:
    parser = make()
    assert len(feed(b"{" + BARE, BARE, parser=parser)) == 1
    assert parser.is_closed
    assert parser.is_idle


def test_requests_before_garbage_are_kept() -> None:
    first, second = feed(BARE + b"get / HTTP/1.1\r\n\r\n")
    assert isinstance(first, Request)
    assert isinstance(second, Rejection)
    assert second.error.hint == 400


def test_a_body_of_exactly_the_limit_passes() -> None:
    body = b"x" * 1000
    assert request(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + body).body == body
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert request(head + b"3E8\r\n" + body + b"\r\n0\r\n\r\n").body == body


def test_a_chunked_body_is_counted() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert rejection(head, *[b"1\r\nx\r\n"] * 1001).error.hint == 413


@pytest.mark.parametrize(
    ("piece", "end"),
    [
        (b"GET /" + b"a" * 5000, b" HTTP/1.1\r\n\r\n"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000, b"\r\n"),
    ],
)
def test_a_head_is_limited(piece: bytes, end: bytes) -> None:
    assert rejection(piece).error.hint == 431
    assert rejection(piece + end).error.hint == 431
    assert rejection(*(piece[i : i + 7] for i in range(0, len(piece), 7))).error.hint == 431


@pytest.mark.parametrize("piece", [b"0\r\nA: " + b"a" * 5000, b"1;" + b"e" * 5000])
def test_trailers_and_chunk_extensions_are_limited(piece: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert rejection(head, piece).error.hint == 431
    assert rejection(head, *(piece[i : i + 7] for i in range(0, len(piece), 7))).error.hint == 431


def test_a_request_line_without_end_and_method_is_limited() -> None:
    assert rejection(b"X" * 9000, parser=make(head=20_000)).error.hint == 400
    assert rejection(*[b"X"] * 9000, parser=make(head=20_000)).error.hint == 400


def test_continue_is_asked_for_once() -> None:
    head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
    events = feed(head, b"a", b"bc")
    assert [type(event) for event in events] == [Continue100, Request]
    assert [type(event) for event in feed(head + b"a", b"bc")] == [Request]
    assert [type(event) for event in feed(BARE + head, b"abc")] == [Request, Continue100, Request]


def test_continue_is_not_asked_for_without_a_body_or_by_http_1_0() -> None:
    assert [type(event) for event in feed(b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n")] == [
        Request
    ]
    old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    assert feed(old) == []


def test_a_body_that_is_too_large_is_refused_instead_of_continued() -> None:
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n"
    assert rejection(head).error.hint == 413
