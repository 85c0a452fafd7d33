"""What clients send, read as structs: what is said of what is wrong."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from pman.errors import RequestError
from pman.job.reading import EXPECTED, check_names, read_struct
from pman.job.state import JobState


class Inner(msgspec.Struct, frozen=True, rename="camel"):
    max_size: Annotated[int, Meta(ge=1)] = 1


class Form(msgspec.Struct, rename="camel"):
    name: str
    mode: Literal["all", "any"] = "all"
    states: list[JobState] | JobState | None = None
    limit: Annotated[int, Meta(ge=1, le=10)] = 5
    ratio: float = 0.5
    inner: Inner = Inner()
    tags: list[str] = []
    labels: dict[Annotated[str, Meta(max_length=5)], str | int] = {}
    folder: Annotated[str, Meta(pattern="^/", extra={EXPECTED: "an absolute path"})] | None = None
    code: Annotated[str, Meta(pattern="^[a-z]+$")] = "a"
    share: Annotated[float, Meta(gt=0, le=0.5)] | None = None
    id: str | int | float = ""
    is_on: bool | None = None


def test_what_is_given_is_read_and_the_rest_ignored() -> None:
    form = read_struct({"name": "a", "states": ["NEW"], "limit": 3, "other": []}, Form)
    assert (form.name, form.states, form.limit, form.mode) == ("a", [JobState.NEW], 3, "all")


def test_texts_stand_for_numbers_where_that_is_said() -> None:
    assert read_struct({"name": "a", "limit": "3"}, Form, is_text=True).limit == 3


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({}, "name", "name is missing"),
        ({"name": 5}, "name", "name is 5, expected text"),
        ({"name": "a", "limit": 0}, "limit", "limit is 0, expected a whole number >= 1"),
        ({"name": "a", "limit": 11}, "limit", "limit is 11, expected a whole number <= 10"),
        ({"name": "a", "limit": None}, "limit", "limit is None, expected a whole number"),
        ({"name": "a", "limit": 0.5}, "limit", "limit is 0.5, expected a whole number"),
        ({"name": "a", "ratio": "x"}, "ratio", "ratio is 'x', expected a number"),
        ({"name": "a", "share": 0}, "share", "share is 0, expected a number > 0"),
        ({"name": "a", "share": 1}, "share", "share is 1, expected a number <= 0.5"),
        ({"name": "a", "id": True}, "id", "id is True, expected a number or text"),
        ({"name": "a", "isOn": 1}, "isOn", "isOn is 1, expected true, false or null"),
        ({"name": "a", "folder": "tmp"}, "folder", "folder is 'tmp', expected an absolute path"),
        ({"name": "a", "folder": 5}, "folder", "folder is 5, expected text or null"),
        ({"name": "a", "code": "1"}, "code", "code is '1', expected text that matches ^[a-z]+$"),
        ({"name": "a", "states": 5}, "states", "states is 5, expected text, an array or null"),
        ({"name": "a", "labels": []}, "labels", "labels is [], expected an object"),
        (
            {"name": "a", "labels": {"a": 1, "n": {"n": 1}}},
            "labels.n",
            "labels.n is {'n': 1}, expected a whole number or text",
        ),
        ({"labels": {"a": 1, "long.k": "x"}}, "labels", "labels is 'long.k', expected text of"),
        ({"name": "a", "mode": "some"}, "mode", "mode is 'some', expected one of all, any"),
        ({"name": "a", "inner": {"maxSize": 0}}, "inner.maxSize", "inner.maxSize is 0"),
        ({"name": "a", "tags": ["x", 5]}, "tags[1]", "tags[1] is 5, expected text"),
        (
            {"name": "a", "states": ["NEW", "GONE"]},
            "states[1]",
            "expected one of NEW, QUEUED, RUNNING, COMPLETED, FAILED, CANCELED, LOST",
        ),
    ],
)
def test_what_is_wrong_names_field_value_and_what_was_expected(
    given: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_struct(given, Form)
    assert message in caught.value.message
    assert caught.value.field == field
    assert caught.value.hint == 400


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"states": ["NEW", "x"]}, "states", "states is 'x', expected one of NEW, "),
        ({"limit": "x"}, "limit", "limit is 'x', expected a whole number"),
        ({"labels": {"toolong": "x"}}, "labels", "labels is 'toolong', expected text of length"),
    ],
)
def test_of_texts_the_name_is_told_that_the_client_has_sent(
    given: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_struct({"name": "a", **given}, Form, is_text=True)
    assert caught.value.message.startswith(message)
    assert caught.value.field == field


def test_a_name_that_is_not_known_is_refused_with_those_that_are() -> None:
    check_names(["a"], ["a", "b"], "key")
    with pytest.raises(RequestError, match="key 'c' is not known, expected one of a, b") as caught:
        check_names(["a", "c"], ["a", "b"], "key")
    assert caught.value.field == "c"
