"""Queries and bodies as structs."""

from __future__ import annotations

import msgspec
import pytest

from pman.errors import MalformedRequest, RequestError, UnsupportedMedia
from pman.http.message import Request
from pman.job.spec import RunOptions
from pman.rest import schemas
from pman.rest.reading import read_body, read_query


def body(raw: bytes, media: str | None = "application/json") -> Request:
    headers = [] if media is None else [("Content-Type", media)]
    return Request("POST", "/api/v2/jobs", headers=headers, body=raw)


def test_texts_become_what_the_struct_wants() -> None:
    query = read_query(
        [("state", "NEW"), ("limit", "7"), ("since", "1.5"), ("state", "LOST")], schemas.ListQuery
    )
    assert (query.state, query.limit, query.since) == (["NEW", "LOST"], 7, 1.5)


@pytest.mark.parametrize(
    ("parameters", "field", "words"),
    [
        ([("colour", "red")], "colour", "expected one of state, jid, jidPrefix"),
        ([("jid", "a"), ("jid", "b")], "jid", "given twice"),
        ([("limit", "0")], "limit", "'0'"),
        ([("limit", "1001")], "limit", "1000"),
        ([("limit", "many")], "limit", "'many'"),
        ([("since", "nan")], "since", "'nan'"),
        ([("since", "inf")], "since", "'inf'"),
        ([("state", "DONE")], "state[0]", "'DONE'"),
    ],
)
def test_a_bad_parameter_is_named(
    parameters: list[tuple[str, str]], field: str, words: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_query(parameters, schemas.ListQuery)
    assert caught.value.field == field
    assert words in caught.value.message


def test_where_there_are_no_parameters_any_is_refused() -> None:
    with pytest.raises(RequestError, match="expected none"):
        read_query([("a", "b")], schemas.NoQuery)


def test_a_body_is_read_and_kept_as_it_was() -> None:
    read, given = read_body(body(b'{"cmd": "true"}'), schemas.JobRequest, is_needed=True)
    assert (read.cmd, given) == ("true", {"cmd": "true"})


def test_no_body_is_an_empty_one_where_none_is_needed() -> None:
    _, given = read_body(body(b"", None), schemas.CancelRequest, is_needed=False)
    assert given == {}


@pytest.mark.parametrize(
    "media", [None, "text/plain", "application/x-www-form-urlencoded", "application/json;charset=x"]
)
def test_a_body_that_is_not_json_by_name_is_refused(media: str | None) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        read_body(body(b'{"cmd": "true"}', media), schemas.JobRequest, is_needed=True)
    assert caught.value.field == "Content-Type"


@pytest.mark.parametrize(
    "media", ["application/json; charset=UTF-8", 'Application/JSON;charset="utf-8"']
)
def test_json_may_say_that_it_is_utf8(media: str) -> None:
    read_body(body(b'{"cmd": "true"}', media), schemas.JobRequest, is_needed=True)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b"null", b"\xff", b'{"cmd": "\xff"}'])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        read_body(body(raw), schemas.JobRequest, is_needed=True)
    assert caught.value.field == "body"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"cmd": 5}', "cmd"),
        (b'{"cmd": "x", "colour": 1}', "colour"),
        (b'{"cmd": "x", "threaded": true}', "threaded"),
        (b'{"cmd": "x", "retries": -1}', "retries"),
        (b'{"cmd": "x", "jid": 5}', "jid"),
        (b'{"argv": ["x", 5]}', "argv[1]"),
        (b'{"cmd": "x", "env": []}', "env"),
    ],
)
def test_a_bad_key_is_named(raw: bytes, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_body(body(raw), schemas.JobRequest, is_needed=True)
    assert caught.value.field == field


def test_all_that_run_takes_can_be_sent() -> None:
    assert _names(RunOptions) - _names(schemas.JobRequest) == {"threaded"}


def _names(kind: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}
