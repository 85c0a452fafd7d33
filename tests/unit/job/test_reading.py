"""What clients send, read as structs: what is said of what is wrong."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from pman.errors import RequestError
from pman.job.reading import read_struct
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


def test_what_is_given_is_read_and_the_rest_ignored() -> None:
    form = read_struct({"name": "a", "states": ["NEW"], "limit": 3, "other": []}, Form)
    assert (form.name, form.states, form.limit, form.mode) == ("a", [JobState.NEW], 3, "all")


def test_texts_stand_for_numbers_where_that_is_said() -> None:
    assert read_struct({"name": "a", "limit": "3"}, Form, is_text=True).limit == 3


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({}, "name", "name is missing"),
        ({"name": 5}, "name", "name is 5, expected str"),
        ({"name": "a", "limit": 0}, "limit", "limit is 0, expected int >= 1"),
        ({"name": "a", "limit": 11}, "limit", "limit is 11, expected int <= 10"),
        ({"name": "a", "limit": None}, "limit", "limit is None, expected int"),
        ({"name": "a", "mode": "some"}, "mode", "mode is 'some', expected one of all, any"),
        ({"name": "a", "inner": {"maxSize": 0}}, "inner.maxSize", "inner.maxSize is 0"),
        ({"name": "a", "tags": ["x", 5]}, "tags[1]", "tags[1] is 5, expected str"),
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
