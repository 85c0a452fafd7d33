"""Queries and bodies as the `meta` of actions."""

from __future__ import annotations

from typing import Any

import pytest

from pman.actions.list import ListRequest
from pman.errors import MalformedRequest, RequestError, UnsupportedMedia
from pman.http.message import Request
from pman.rest import schemas
from pman.rest.reading import check_names, read_body, read_query, spellings


def body(raw: bytes, media: str | None = "application/json") -> Request:
    headers = [] if media is None else [("Content-Type", media)]
    return Request("POST", "/api/v2/jobs", headers=headers, body=raw)


def test_lists_and_objects_are_repeated_parameters() -> None:
    found = spellings(ListRequest)
    assert (found["state"], found["label"], found["jid"]) == ("repeated", "pairs", "once")


def test_texts_become_what_the_action_takes() -> None:
    query = read_query(
        [
            ("state", "NEW"),
            ("limit", "7"),
            ("since", "1.5"),
            ("state", "LOST"),
            ("label", "a=b"),
            ("label", "c=d=e"),
        ],
        ListRequest,
    )
    assert query == {
        "state": ["NEW", "LOST"],
        "limit": 7,
        "since": 1.5,
        "label": {"a": "b", "c": "d=e"},
    }


@pytest.mark.parametrize(
    ("parameters", "field", "words"),
    [
        ([("colour", "red")], "colour", "expected one of state, jid"),
        ([("jid", "a"), ("jid", "b")], "jid", "given twice"),
        ([("limit", "0")], "limit", "'0'"),
        ([("limit", "1001")], "limit", "1000"),
        ([("limit", "many")], "limit", "'many'"),
        ([("since", "soon")], "since", "'soon'"),
        ([("label", "x")], "label", "expected key=value"),
        ([("label", "=x")], "label", "expected key=value"),
    ],
)
def test_a_bad_parameter_is_named(
    parameters: list[tuple[str, str]], field: str, words: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_query(parameters, ListRequest)
    assert caught.value.field == field
    assert words in caught.value.message


def test_a_state_that_is_none_is_named() -> None:
    with pytest.raises(RequestError) as caught:
        read_query([("state", "DONE")], ListRequest)
    assert (caught.value.field or "").startswith("state")


def test_what_is_not_for_clients_is_not_known() -> None:
    with pytest.raises(RequestError, match="'limit' is not known"):
        read_query([("limit", "5")], ListRequest, hidden=("limit",))


def test_where_there_are_no_parameters_any_is_refused() -> None:
    with pytest.raises(RequestError, match="expected none"):
        read_query([("a", "b")], schemas.Nothing)


def test_a_body_is_an_object() -> None:
    assert read_body(body(b'{"cmd": "true"}'), is_needed=True) == {"cmd": "true"}


def test_no_body_is_an_empty_one_where_none_is_needed() -> None:
    assert read_body(body(b"", None), is_needed=False) == {}


@pytest.mark.parametrize(
    "media", [None, "text/plain", "application/x-www-form-urlencoded", "application/json;charset=x"]
)
def test_a_body_that_is_not_json_by_name_is_refused(media: str | None) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        read_body(body(b"{}", media), is_needed=True)
    assert caught.value.field == "Content-Type"


@pytest.mark.parametrize(
    "media", ["application/json; charset=UTF-8", 'Application/JSON;charset="utf-8"']
)
def test_json_may_say_that_it_is_utf8(media: str) -> None:
    assert read_body(body(b"{}", media), is_needed=True) == {}


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b"null", b"\xff", b'{"cmd": "\xff"}'])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        read_body(body(raw), is_needed=True)
    assert caught.value.field == "body"


def test_a_name_that_is_not_known_is_refused() -> None:
    given: dict[str, Any] = {"cmd": "true", "colour": 1}
    check_names(given, ["cmd", "colour"], "body field")
    with pytest.raises(RequestError, match="expected one of cmd, jid") as caught:
        check_names(given, ["cmd", "jid"], "body field")
    assert caught.value.field == "colour"
