"""Callback URLs: what they may look like, and where they may go."""

from __future__ import annotations

import pytest

from pman.errors import Forbidden, RequestError
from pman.job.callback import Target, check_allowed, parse_target


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("http://h/", Target(False, "h", 80, "/"), "h"),
        ("https://H.Example", Target(True, "h.example", 443, "/"), "h.example"),
        ("http://h:8080/a/b?c=d&e", Target(False, "h", 8080, "/a/b?c=d&e"), "h:8080"),
        ("http://[::1]:80/x", Target(False, "::1", 80, "/x"), "[::1]"),
        ("https://[::1]:80/x", Target(True, "::1", 80, "/x"), "[::1]:80"),
    ],
)
def test_good_urls(url: str, target: Target, authority: str) -> None:
    assert parse_target(url) == target
    assert parse_target(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "x",
        "ftp://h/",
        "file:///etc/passwd",
        "//h/x",
        "http://",
        "http:///x",
        "http://h:0/",
        "http://h:99999/",
        "http://h:x/",
        "http://[::1/",
        "http://user@h/",
        "http://allowed:80@h/",
        "http://h\\@other/",
        "http://h/a b",
        "http://h/\r\nX: y",
        "http://h/\tx",
        "http://hé/",
        "http://h/#part",
        "http://h/" + "x" * 3000,
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_target(url)
    assert caught.value.field == "callback"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://h/", ["h"]),
        ("https://h/", ["h"]),
        ("http://h:1/", ["H:*"]),
        ("http://h/", ["h:*"]),
        ("http://h:1/", ["x", "H:1"]),
        ("https://h/", ["h:443"]),
        ("http://[::1]:5/", ["[::1]:5"]),
        ("http://[::1]:5/", ["[::1]:*"]),
        ("http://[::1]/", ["::1"]),
        ("https://[::1]:443/", ["[::1]"]),
        ("http://anything:5/", ["*"]),
    ],
)
def test_allowed(url: str, allowed: list[str]) -> None:
    check_allowed(parse_target(url), allowed)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://h/", []),
        ("http://h:8080/", ["h"]),
        ("http://h:443/", ["h"]),
        ("https://h:80/", ["h"]),
        ("http://[::1]:5/", ["::1", "[::1]"]),
        ("http://other/", ["h:*"]),
        ("http://h:2/", ["h:1"]),
        ("http://h/", ["h:443"]),
        ("http://h.evil/", ["h"]),
        ("http://evil-h/", ["h"]),
        ("http://127.0.0.1/", ["localhost"]),
    ],
)
def test_not_allowed(url: str, allowed: list[str]) -> None:
    with pytest.raises(Forbidden, match="--callbackHosts") as caught:
        check_allowed(parse_target(url), allowed)
    assert caught.value.field == "callback"
