"""What clients of 2.2 may have in the `meta` of a `run` under names that were ignored then. Pure.

Source: WIRE.md 3, "Unknown keys in `meta` are ignored but kept".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Keys that 2.2 did not know and that stand for numbers; of the first two, 0 is none.
_TIMES = ("timeout", "pendingTimeout")
_NUMBERS = (*_TIMES, "retries", "backoff", "priority")

#: Others: of these, false is a value.
_SWITCHES = ("progress", "dryRun")

_KEYS = frozenset(
    (*_NUMBERS, *_SWITCHES, "argv", "env", "cwd", "stdin", "labels", "after", "callback")
)

#: No two repetitions of the same character meet: a search that goes back and forth would hold up
#: all of pman.
_NUMBER = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
#: Longest text that is looked at, characters; no number that is meant is as long.
_MAX_NUMBER_LENGTH = 64


def eased(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `meta` without what only says that nothing is given, numbers as numbers.

    Whatever else is of the wrong type stays, to be refused. What is as it should be keeps its
    meaning.
    """
    given = _KEYS & meta.keys()
    if not given:
        return meta
    kept = dict(meta)
    for key in given:
        value = _number(meta[key]) if key in _NUMBERS else meta[key]
        if _is_nothing(key, value):
            del kept[key]
        elif key == "env" and isinstance(value, dict):
            kept[key] = {name: each for name, each in value.items() if each is not None}
        else:
            kept[key] = value
    return kept


def _is_nothing(key: str, value: Any) -> bool:
    if value is False:
        return key not in _SWITCHES
    if isinstance(value, (str, list, dict)):
        return not value
    return value is None or (key in _TIMES and value == 0)


def _number(value: Any) -> Any:
    """Return the number that a text holds, and a whole one as an integer; else `value`."""
    is_short = isinstance(value, str) and len(value) <= _MAX_NUMBER_LENGTH
    if is_short and _NUMBER.fullmatch(value):
        value = float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
