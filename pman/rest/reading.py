"""Queries and bodies as the `meta` of actions; what is not known is refused by name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import inspect

from pman.errors import MalformedRequest, RequestError, UnsupportedMedia, shown
from pman.http.message import Request
from pman.job.reading import check_names, read_struct
from pman.wire import CONTENT_TYPE_JSON, loads

#: How a value is spelled in a query: once, repeated, or repeated as `key=value`.
Spelling = Literal["once", "repeated", "pairs"]


@functools.cache
def spellings(kind: type[msgspec.Struct]) -> dict[str, Spelling]:
    """Return how each field of a struct is spelled in a query, by its name there."""
    found: dict[str, Spelling] = {}
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        kinds = _alternatives(field.type)
        is_pairs = any(isinstance(each, inspect.DictType) for each in kinds)
        is_list = any(isinstance(each, inspect.ListType) for each in kinds)
        found[field.encode_name] = "pairs" if is_pairs else "repeated" if is_list else "once"
    return found


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        return [each for part in kind.types for each in _alternatives(part)]
    return [kind]


def read_query(
    parameters: Sequence[tuple[str, str]], kind: type[msgspec.Struct], hidden: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the parameters of a query as values for the fields of a struct.

    Args:
        hidden: Fields that are not for clients to set.
    Raises:
        RequestError: One is not known, repeated, or of the wrong form; names it.
    """
    known = {name: how for name, how in spellings(kind).items() if name not in hidden}
    check_names([name for name, _ in parameters], known, "query parameter")
    given: dict[str, Any] = {}
    for name, value in parameters:
        if known[name] == "repeated":
            given.setdefault(name, []).append(value)
        elif known[name] == "pairs":
            given.setdefault(name, {}).update([_pair(name, value)])
        elif name in given:
            raise RequestError(f"{name} is given twice, expected once", field=name)
        else:
            given[name] = value
    values = msgspec.to_builtins(read_struct(given, kind, is_text=True))
    return {name: values[name] for name in given}


def _pair(name: str, value: str) -> tuple[str, str]:
    key, equals, rest = value.partition("=")
    if not key or not equals:
        raise RequestError(f"{name} is {shown(value)}, expected key=value", field=name)
    return key, rest


def read_body(request: Request, *, is_needed: bool) -> dict[str, Any]:
    """Return the body of a request, a JSON object.

    Args:
        is_needed: Whether there has to be one; else none is the same as `{}`.
    Raises:
        UnsupportedMedia: It does not say that it is JSON.
        MalformedRequest: It is no JSON object.
    """
    if not request.body and not is_needed:
        return {}
    _check_media(request.header_values("content-type"))
    try:
        text = request.body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedRequest(f"the body is not UTF-8: {exc.reason}", field="body") from exc
    given = loads(text)
    if not isinstance(given, dict):
        raise MalformedRequest(f"the body is {shown(given)}, expected an object", field="body")
    return given


def _check_media(values: Sequence[str]) -> None:
    media, *more = (part.strip().lower() for part in (values or [""])[0].split(";"))
    charsets = {part.partition("=")[2].strip('"') for part in more if part.startswith("charset=")}
    if len(values) > 1 or media != CONTENT_TYPE_JSON or not charsets <= {"utf-8"}:
        raise UnsupportedMedia(
            f"Content-Type is {shown(', '.join(values))}, expected {CONTENT_TYPE_JSON}",
            field="Content-Type",
        )
