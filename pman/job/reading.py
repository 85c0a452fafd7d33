"""What clients send, read as structs; errors name field, value and what was expected. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from pman.errors import RequestError, shown

T = TypeVar("T", bound=msgspec.Struct)

#: How msgspec ends a message: the place of what is wrong.
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")


def read_struct(given: Mapping[str, Any], kind: type[T], *, is_text: bool = False) -> T:
    """Return `given` as a struct; keys that it does not have are ignored unless it forbids them.

    Args:
        is_text: Values are texts that stand for numbers and booleans, as in a query string.
    Raises:
        RequestError: A key is missing or of the wrong type or value; names field, value and
            expectation.
    """
    try:
        return msgspec.convert(given, kind, strict=not is_text)
    except msgspec.ValidationError as exc:
        raise _explained(str(exc), given) from exc


def _explained(message: str, given: Mapping[str, Any]) -> RequestError:
    """Say what msgspec says with the field in front, and the value that was found there."""
    place = _PLACE.search(message)
    field = "" if place is None else place[1]
    what = message[: place.start()] if place is not None else message
    missing = _MISSING.match(what)
    if missing is not None:
        name = f"{field}.{missing[1]}" if field else missing[1]
        return RequestError(f"{name} is missing", field=name)
    if not field:
        return RequestError(what[:1].lower() + what[1:])
    expected = re.sub(r", got `[^`]*`\Z", "", what)
    expected = expected[:1].lower() + expected[1:].replace("`", "")
    return RequestError(f"{field} is {shown(_at(given, field))}, {expected}", field=field)


def _at(given: Any, field: str) -> Any:
    """Return the value at a place as msgspec spells it, as far as it can be followed."""
    for step in re.findall(r"[^.\[\]]+", field):
        if isinstance(given, Mapping):
            given = given.get(step)
        elif isinstance(given, list) and step.isdigit() and int(step) < len(given):
            given = given[int(step)]
        else:
            return given
    return given
