"""Request targets and links."""

from __future__ import annotations

import pytest

from pman.errors import MalformedRequest
from pman.rest.links import (
    MAX_PARAMETERS,
    is_rest,
    job_path,
    next_page,
    parameters,
    segments,
    split_target,
)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/api/v2/jobs", "/api/v2/jobs", ""),
        ("/api/v2/jobs?a=b?c", "/api/v2/jobs", "a=b?c"),
        ("http://host:5010/api/v2?x", "/api/v2", "x"),
        ("HTTPS://host", "", ""),
        ("/other?at=http://host/api/v2", "/other", "at=http://host/api/v2"),
        ("*", "*", ""),
    ],
)
def test_a_target_is_path_and_query(target: str, path: str, query: str) -> None:
    assert split_target(target) == (path, query)


@pytest.mark.parametrize(
    ("path", "is_ours"),
    [
        ("/api/v2", True),
        ("/api/v2/", True),
        ("/api/v2/jobs", True),
        ("/api/v20/jobs", False),
        ("/api/v1/jobs", False),
        ("/x/api/v2", False),
        ("", False),
    ],
)
def test_rest_begins_at_its_root(path: str, is_ours: bool) -> None:
    assert is_rest(path) is is_ours


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v2", ()),
        ("/api/v2/", ()),
        ("/api/v2/jobs/", ("jobs",)),
        ("/api/v2/jobs/a%2Fb", ("jobs", "a/b")),
        ("/api/v2/jobs/a%20b+c", ("jobs", "a b+c")),
        ("/api/v2/jobs/%C3%A9", ("jobs", "é")),
        ("/api/v2/jobs/\xc3\xa9", ("jobs", "é")),  # as it comes: bytes as latin-1
        ("/api/v2/jobs/100%", ("jobs", "100%")),
        ("/api/v2/jobs//x", ("jobs", "", "x")),
        ("/api/v2/jobs/%2e%2e/x", ("jobs", "..", "x")),
    ],
)
def test_segments_are_decoded_one_by_one(path: str, found: tuple[str, ...]) -> None:
    assert segments(path) == found


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(MalformedRequest) as caught:
        segments("/api/v2/jobs/%FF")
    assert caught.value.field == "path"
    with pytest.raises(MalformedRequest) as caught:
        parameters("a=%FF")
    assert caught.value.field == "query"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", []),
        ("a=b&a=c", [("a", "b"), ("a", "c")]),
        ("a", [("a", "")]),
        ("a=x+y%2Bz", [("a", "x y+z")]),
        ("l=k%3Dv=w", [("l", "k=v=w")]),
        ("a=\xc3\xa9", [("a", "é")]),
    ],
)
def test_parameters_are_decoded(query: str, found: list[tuple[str, str]]) -> None:
    assert parameters(query) == found


def test_too_many_parameters_are_refused() -> None:
    assert len(parameters("&".join(["a=b"] * MAX_PARAMETERS))) == MAX_PARAMETERS
    with pytest.raises(MalformedRequest):
        parameters("&".join(["a=b"] * (MAX_PARAMETERS + 1)))


def test_a_job_has_an_address_whatever_its_name() -> None:
    assert job_path("a/b c") == "/api/v2/jobs/a%2Fb%20c"


def test_the_next_page_repeats_all_but_the_cursor() -> None:
    given = [("state", "NEW"), ("state", "LOST"), ("cursor", "old"), ("label", "a=b c")]
    assert next_page("/api/v2/jobs", given, "new") == (
        "Link",
        '</api/v2/jobs?state=NEW&state=LOST&label=a%3Db+c&cursor=new>; rel="next"',
    )
