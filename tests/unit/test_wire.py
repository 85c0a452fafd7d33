"""JSON as 2.2 spells it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pman.errors import MalformedRequest
from pman.wire import dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


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
