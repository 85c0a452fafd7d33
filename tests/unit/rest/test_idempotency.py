"""The header `Idempotency-Key`."""

from __future__ import annotations

import pytest

from pman.auth import ALL_RIGHTS, Caller
from pman.errors import RequestError
from pman.rest.idempotency import digest, read_key


@pytest.mark.parametrize(
    ("values", "key"),
    [([], ""), (["abc"], "abc"), (['"abc"'], "abc"), (['"a b"'], "a b"), (["x" * 255], "x" * 255)],
)
def test_a_key_is_read(values: list[str], key: str) -> None:
    assert read_key(values) == key


@pytest.mark.parametrize(
    "values", [[""], ['""'], ["a", "b"], ['"a'], ["a b"], ["x" * 256], ["é"], ['"a\tb"']]
)
def test_what_is_no_key_is_refused(values: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        read_key(values)
    assert caught.value.field == "Idempotency-Key"


def test_the_layout_of_a_request_makes_no_difference() -> None:
    assert digest("k", ALL_RIGHTS, {"a": 1, "b": [2]}) == digest(
        "k", ALL_RIGHTS, {"b": [2], "a": 1}
    )


def test_key_caller_and_request_do() -> None:
    known = digest("k", ALL_RIGHTS, {"a": 1})
    key, request = known.split(":")
    assert digest("other", ALL_RIGHTS, {"a": 1}).endswith(f":{request}")
    assert digest("k", ALL_RIGHTS, {"a": 2}).startswith(f"{key}:")
    others = [
        digest("other", ALL_RIGHTS, {"a": 1}),
        digest("k", ALL_RIGHTS, {"a": 2}),
        digest("k", Caller("bob"), {"a": 1}),
        digest("k", Caller(auid="bob"), {"a": 1}),
    ]
    assert len({known, *others}) == 5


def test_without_a_key_there_is_nothing_to_keep() -> None:
    assert digest("", ALL_RIGHTS, {"a": 1}) == ""
