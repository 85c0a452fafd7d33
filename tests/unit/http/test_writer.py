"""`writer.head`: order of headers, and nothing of a value that could end a field."""

from __future__ import annotations

from pman.http import writer
from pman.http.message import Response


def lines(response: Response, connection: bytes = b"") -> list[str]:
    raw = writer.head(response, connection=connection, now_s=0)
    assert raw.endswith(b"\r\n\r\n")
    return raw[:-4].decode("latin-1").split("\r\n")


def test_the_two_headers_of_2_2_come_first() -> None:
    assert lines(Response(status=200, body=b"{}")) == [
        "HTTP/1.1 200 OK",
        "Content-Length: 2",
        "Content-Type: application/json",
        "Server: pman/3.0.0",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT",
    ]


def test_connection_and_further_headers_follow() -> None:
    response = Response(status=401, body=b"", headers=(("WWW-Authenticate", "Bearer"),))
    assert lines(response, writer.CLOSE)[-2:] == ["Connection: close", "WWW-Authenticate: Bearer"]
    assert lines(response)[0] == "HTTP/1.1 401 Unauthorized"


def test_no_content_has_no_length() -> None:
    assert lines(Response(status=204, body=b""))[1].startswith("Server:")
    assert lines(Response(status=304, body=b""))[1].startswith("Server:")


def test_length_that_is_not_known_is_not_told() -> None:
    response = Response(status=200, body=b"", content_type="text/plain", has_length=False)
    assert lines(response)[1] == "Content-Type: text/plain"


def test_an_unknown_status_has_a_phrase() -> None:
    assert lines(Response(status=299, body=b""))[0] == "HTTP/1.1 299 Unknown"


def test_values_cannot_end_a_field() -> None:
    response = Response(
        status=200,
        body=b"",
        content_type="a\r\nX-Evil: 1",
        headers=(("X\r\nY: ", "b\r\n\r\nevil\0"), ("Z", "caf\u00e9 \u2713")),
    )
    assert lines(response) == [
        "HTTP/1.1 200 OK",
        "Content-Length: 0",
        "Content-Type: a  X-Evil: 1",
        "Server: pman/3.0.0",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT",
        "XY: b    evil ",
        "Z: caf\u00e9 ?",
    ]
