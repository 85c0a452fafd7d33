"""What clients send, read as structs; errors name field, value and what was expected. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from pman.errors import RequestError, shown
from pman.structs import prepare

T = TypeVar("T", bound=msgspec.Struct)

#: How msgspec ends a message: the place of what is wrong.
_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$\.?(?P<field>[^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_TYPES = re.compile(r"Expected `([^`]*)`(?:, got `[^`]*`)?")
_PATTERN = re.compile(r" matching regex '(.*)'\Z", re.DOTALL)

#: How msgspec names the entries of an object, whose keys it does not tell.
_ENTRY = "[...]"

#: msgspec's words for types, which are Python's, in those of JSON. The first two of them are both
#: numbers: who takes either takes a number.
_WORDS = {
    "int": ("a whole number",),
    "float": ("a number",),
    "str": ("text",),
    "bool": ("true", "false"),
    "array": ("an array",),
    "object": ("an object",),
    "null": ("null",),
}

#: Key of `msgspec.Meta.extra`: what a text has to be, in place of its pattern.
EXPECTED = "expected"


def read_struct(given: Mapping[str, Any], kind: type[T], *, is_text: bool = False) -> T:
    """Return `given` as a struct; keys that it does not have are ignored unless it forbids them.

    Args:
        is_text: Values are texts that stand for numbers and booleans, as in a query string, where
            several may have one name.
    Raises:
        RequestError: A key is missing or of the wrong type or value; names field, value and
            expectation.
    """
    prepare(kind)
    try:
        return msgspec.convert(given, kind, strict=not is_text)
    except msgspec.ValidationError as exc:
        raise _explained(str(exc), given, kind, is_text) from exc


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse names that are not known.

    Args:
        what: They are, for the message.
    Raises:
        RequestError: One is not; names it, and those that are.
    """
    allowed = list(known)
    for name in given:
        if name not in allowed:
            expected = f"one of {', '.join(allowed)}" if allowed else "none"
            raise RequestError(
                f"{what} {shown(name)} is not known, expected {expected}", field=name
            )


# --- errors -----------------------------------------------------------------------------------


def _explained(
    message: str, given: Mapping[str, Any], kind: type[msgspec.Struct], is_text: bool
) -> RequestError:
    """Say what msgspec says with the field in front, and the value that was found there."""
    place = _PLACE.search(message)
    field = "" if place is None else place["field"]
    what = message[: place.start()] if place is not None else message
    missing = _MISSING.match(what)
    if missing is not None:
        name = f"{field}.{missing[1]}" if field else missing[1]
        return RequestError(f"{name} is missing", field=name)
    if not field:
        return RequestError(what[:1].lower() + what[1:])
    steps = _steps(field)
    name = str(steps[0])
    expected = _expected(what, kind, name)
    if place is not None and place["key"] and len(steps) == 1:
        value: Any = _entry(message, given[name], kind, name)
    else:
        if steps[1:2] == [_ENTRY]:
            steps[1] = _entry(message, given[name], kind, name)
        field, value = _spelled(steps), _at(given, steps)
    if is_text:  # where it stands among those of its name the client has not said
        field = name
    return RequestError(f"{field} is {shown(value)}, {expected}", field=field)


def _expected(what: str, kind: type[msgspec.Struct], name: str) -> str:
    """Return what msgspec expects of a field, in words of JSON and of the field itself."""
    words = dict.fromkeys(_literals(_type_of(kind, name)))
    if what.startswith("Invalid enum value") and words:
        return f"expected one of {', '.join(words)}"
    pattern = _PATTERN.search(what)
    if pattern is not None:
        own = next(_own_words(_type_of(kind, name)), f"text that matches {pattern[1]}")
        return f"expected {own}"
    types = _TYPES.match(what)
    if types is None:
        return what[:1].lower() + what[1:].replace("`", "")
    bounds = re.sub(r"(\d)\.0\b", r"\1", what[types.end() :])
    return f"expected {_types(types[1])}{bounds}"


def _types(union: str) -> str:
    names = union.split(" | ")
    if "float" in names and "int" in names:
        names.remove("int")
    words = [word for name in names for word in _WORDS.get(name, (name,))]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _type_of(kind: type[msgspec.Struct], name: str) -> msgspec.inspect.Type:
    """Return the type of a field of a struct, by its name on the wire."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return next(each.type for each in info.fields if each.encode_name == name)


def _literals(given: msgspec.inspect.Type) -> Iterator[str]:
    """Give the words that a value may be; msgspec does not say them."""
    for each in _within(given):
        if isinstance(each, msgspec.inspect.LiteralType):
            yield from map(str, each.values)
        elif isinstance(each, msgspec.inspect.EnumType):
            yield from (str(member.value) for member in each.cls)


def _own_words(given: msgspec.inspect.Type) -> Iterator[str]:
    """Give what a type says itself of what is expected."""
    for each in _within(given):
        if isinstance(each, msgspec.inspect.Metadata) and each.extra:
            yield each.extra[EXPECTED]


def _within(given: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """Give a type, its alternatives, and what its arrays hold."""
    yield given
    if isinstance(given, msgspec.inspect.UnionType):
        for each in given.types:
            yield from _within(each)
    elif isinstance(given, msgspec.inspect.ListType):
        yield from _within(given.item_type)
    elif isinstance(given, msgspec.inspect.Metadata):
        yield from _within(given.type)


# --- places -----------------------------------------------------------------------------------


def _steps(field: str) -> list[str | int]:
    """Return a place as msgspec spells it, step by step: names, and numbers in arrays."""
    words = re.findall(r"\[\.\.\.\]|\[\d+\]|[^.\[\]]+", field)
    return [int(word[1:-1]) if word[1:-1].isdigit() and word[0] == "[" else word for word in words]


def _spelled(steps: Iterable[str | int]) -> str:
    """Return a place for the client: `labels.team`, `argv[1]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def _entry(message: str, entries: Mapping[str, Any], kind: type[msgspec.Struct], name: str) -> str:
    """Return the key of the entry that msgspec complains of, in the field `name` of a struct.

    It is the one of which the same is said when it is there alone.
    """
    for key, value in entries.items():
        try:
            msgspec.convert({name: {key: value}}, kind)
        except msgspec.ValidationError as exc:
            if str(exc) == message:
                return key
    return _ENTRY


def _at(given: Any, steps: Iterable[str | int]) -> Any:
    """Return the value at a place, as far as it can be followed."""
    for step in steps:
        if isinstance(given, Mapping):
            given = given.get(step)
        elif isinstance(given, list) and isinstance(step, int) and step < len(given):
            given = given[step]
        else:
            return given
    return given
