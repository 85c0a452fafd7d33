"""Media types, compression and entity tags."""

from __future__ import annotations

import zlib

import pytest

from pman.rest.encoding import gzip, is_gzip_welcome, is_same, negotiate, tag

OFFERED = ("application/json", "text/plain")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ([], "application/json"),
        ([""], "application/json"),
        (["*/*"], "application/json"),
        (["text/plain"], "text/plain"),
        (["TEXT/PLAIN"], "text/plain"),
        (["text/*"], "text/plain"),
        (["text/plain;q=0.5, */*"], "application/json"),
        (["text/plain", "application/json;q=0.9"], "text/plain"),
        (["application/json;q=0, */*"], "text/plain"),
        (["application/json;q=0.2, */*;q=0.1"], "application/json"),
        (["text/plain;charset=utf-8;q=1.000"], "text/plain"),
        (["text/plain;q=nonsense"], "text/plain"),
        (["image/png"], None),
        (["*/*;q=0"], None),
        (["nonsense"], None),
    ],
)
def test_the_client_chooses_among_what_is_offered(accept: list[str], chosen: str | None) -> None:
    assert negotiate(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    ("values", "is_welcome"),
    [
        ([], False),
        (["gzip"], True),
        (["deflate, gzip;q=0.5, br"], True),
        (["gzip;q=0"], False),
        (["gzip;q=0, *"], False),
        (["*"], True),
        (["*;q=0"], False),
        (["identity"], False),
        (["x-gzip"], True),
    ],
)
def test_gzip_is_sent_to_whom_it_is_welcome(values: list[str], is_welcome: bool) -> None:
    assert is_gzip_welcome(values) is is_welcome


def test_the_same_body_is_compressed_to_the_same_bytes() -> None:
    body = b"all work and no play " * 200
    assert gzip(body) == gzip(body)
    assert len(gzip(body)) < len(body) / 10
    assert zlib.decompress(gzip(body), 31) == body


def test_a_tag_is_that_of_the_bytes_that_are_sent() -> None:
    plain, pressed = tag(b"a", is_gzip=False), tag(b"a", is_gzip=True)
    assert plain != pressed
    assert plain != tag(b"b", is_gzip=False)
    assert plain == tag(b"a", is_gzip=False)
    assert not plain.startswith("W/")


@pytest.mark.parametrize("is_gzip", [True, False])
@pytest.mark.parametrize(
    "known", ["{}", '"other", {}', "W/{}", "*", " * ", '"with, comma",{}', '""   ,  {}']
)
def test_a_body_that_the_client_has_is_known_by_its_tag(known: str, is_gzip: bool) -> None:
    had = tag(b"body", is_gzip=is_gzip)
    assert is_same([known.format(had)], tag(b"body", is_gzip=False))


@pytest.mark.parametrize("known", ["", '"other"', "nonsense", 'W/"other"'])
def test_another_body_is_not(known: str) -> None:
    assert not is_same([known], tag(b"body", is_gzip=False))
