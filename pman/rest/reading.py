"""Queries and bodies as structs; what is not known is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from pman.errors import MalformedRequest, RequestError, UnsupportedMedia, shown
from pman.http.message import Request
from pman.job.reading import read_struct
from pman.wire import CONTENT_TYPE_JSON, loads

T = TypeVar("T", bound=msgspec.Struct)


def read_query(parameters: Sequence[tuple[str, str]], kind: type[T]) -> T:
    """Return the parameters of a query as a struct; those that are lists may be repeated.

    Raises:
        RequestError: One is not known, repeated, or of the wrong form; names it.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    _check_names([name for name, _ in parameters], fields, "query parameter")
    given: dict[str, Any] = {}
    for name, value in parameters:
        if fields[name].default_factory is list:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise RequestError(f"{name} is given twice, expected once", field=name)
        else:
            given[name] = value
    return read_struct(given, kind, is_text=True)


def read_body(request: Request, kind: type[T], *, is_needed: bool) -> tuple[T, dict[str, Any]]:
    """Return the body of a request as a struct, and as it was sent.

    Args:
        is_needed: Whether there has to be one; else none is the same as `{}`.
    Raises:
        UnsupportedMedia: It does not say that it is JSON.
        MalformedRequest: It is no JSON object.
        RequestError: A key is not known, or its value of the wrong form; names it.
    """
    if not request.body and not is_needed:
        return read_struct({}, kind), {}
    _check_media(request.header_values("content-type"))
    try:
        text = request.body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedRequest(f"the body is not UTF-8: {exc.reason}", field="body") from exc
    given = loads(text)
    if not isinstance(given, dict):
        raise MalformedRequest(f"the body is {shown(given)}, expected an object", field="body")
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    _check_names(given, names, "body field")
    return read_struct(given, kind), given


def _check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    allowed = list(known)
    for name in given:
        if name not in allowed:
            expected = f"one of {', '.join(allowed)}" if allowed else "none"
            raise RequestError(
                f"{what} {shown(name)} is not known, expected {expected}", field=name
            )


def _check_media(values: Sequence[str]) -> None:
    media, *more = (part.strip().lower() for part in (values or [""])[0].split(";"))
    charsets = {part.partition("=")[2].strip('"') for part in more if part.startswith("charset=")}
    if len(values) > 1 or media != CONTENT_TYPE_JSON or not charsets <= {"utf-8"}:
        raise UnsupportedMedia(
            f"Content-Type is {shown(', '.join(values))}, expected {CONTENT_TYPE_JSON}",
            field="Content-Type",
        )
