"""What clients send, read as structs; errors name field, value and what was expected. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
        raise _explained(str(exc), given, kind) from exc


def _explained(message: str, given: Mapping[str, Any], kind: type[msgspec.Struct]) -> RequestError:
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
    if expected.startswith("invalid enum value") and (words := _words(kind, field)):
        expected = f"expected one of {', '.join(words)}"
    return RequestError(f"{field} is {shown(_at(given, field))}, {expected}", field=field)


def _words(kind: type[msgspec.Struct], field: str) -> list[str]:
    """Return the words that a field of a struct may hold; msgspec does not say them."""
    name = field.partition("[")[0]
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    found = next((each.type for each in info.fields if each.encode_name == name), None)
    return [] if found is None else list(dict.fromkeys(_literals(found)))


def _literals(given: msgspec.inspect.Type) -> Iterator[str]:
    if isinstance(given, msgspec.inspect.LiteralType):
        yield from map(str, given.values)
    elif isinstance(given, msgspec.inspect.EnumType):
        yield from (str(member.value) for member in given.cls)
    elif isinstance(given, msgspec.inspect.UnionType):
        for each in given.types:
            yield from _literals(each)
    elif isinstance(given, msgspec.inspect.ListType):
        yield from _literals(given.item_type)
    elif isinstance(given, msgspec.inspect.Metadata):
        yield from _literals(given.type)


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
