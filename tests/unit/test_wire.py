"""JSON as 2.2 spells it."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pman.errors import MalformedRequest
from pman.wire import MAX_NESTING, dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@example(["\x7f", "\x7fé", "\x00", "\u2028"])
@given(VALUES)
def test_dumps_spells_like_the_standard_library(value: object) -> None:
    try:
        expected = json.dumps(value, indent=4).encode()
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # lone surrogates are not text, and cannot come from a request
        return
    assert dumps(value) == expected


@given(VALUES)
def test_loads_reads_what_dumps_writes(value: object) -> None:
    try:
        raw = dumps(value)
    except UnicodeEncodeError:
        return
    assert loads(raw) == value


@pytest.mark.parametrize("text", ["{", "", "[1,]", "nan", '{"a": NaN}', "\xff", "[" * 100_000])
def test_what_is_not_json_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        loads(text)
    assert caught.value.field == "body"
    assert caught.value.hint == 400


def nested(depth: int, opens: str, closes: str) -> bytes:
    """Return `depth` arrays or objects inside each other, with text that is not ASCII inside."""
    return f'{opens * depth}"é"{closes * depth}'.encode()


NESTS = [("[", "]"), ('{"é": ', "}"), ('["é", {"a": ', "}]"), ("[[1], 0, [", "]]")]


@pytest.mark.parametrize(("opens", "closes"), NESTS)
def test_what_is_nested_is_read_up_to_a_depth(opens: str, closes: str) -> None:
    levels = len(closes)  # of one piece
    deepest = MAX_NESTING // levels
    for depth in (1, 100 // levels, deepest):
        document = loads(nested(depth, opens, closes))
        assert dumps(document) == json.dumps(document, indent=4).encode()
    for depth in (deepest + 1, 300, 983, 985, 2000, 100_000):
        with pytest.raises(MalformedRequest, match="nested too deeply"):
            loads(nested(depth, opens, closes))


@pytest.mark.parametrize("depth", [300, 983, 100_000])
def test_what_is_nested_too_deeply_is_refused_in_text_as_well(depth: int) -> None:
    with pytest.raises(MalformedRequest, match="nested too deeply"):
        loads(nested(depth, "[", "]").decode())


def test_brackets_that_nest_nothing_are_read() -> None:
    flat = {"cmd": "[{" * 1000, "parts": [[{}] for _ in range(1000)]}
    assert loads(dumps(flat)) == flat
