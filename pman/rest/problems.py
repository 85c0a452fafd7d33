"""Errors as problem documents. Source: RFC 9457."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

import msgspec

from pman.errors import PmanError
from pman.http.message import Response

MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not carried out."""

    type: Annotated[
        str, msgspec.Meta(description="always `about:blank`: status and `kind` say it all")
    ]
    title: Annotated[str, msgspec.Meta(description="the status code in words")]
    status: Annotated[int, msgspec.Meta(description="the status code", ge=400, le=599)]
    detail: Annotated[str, msgspec.Meta(description="what was found where, and what was expected")]
    instance: Annotated[str, msgspec.Meta(description="path of the request")]
    kind: Annotated[str, msgspec.Meta(description="the kind of error as a word, for programs")]
    field: Annotated[
        str | msgspec.UnsetType,
        msgspec.Meta(description="parameter, header or part of the body at fault"),
    ] = msgspec.UNSET


def problem(error: PmanError, path: str) -> Problem:
    """Return what to tell about an error.

    Args:
        path: Of the request.
    """
    try:
        title = HTTPStatus(error.hint).phrase
    except ValueError:
        title = "Unknown"
    return Problem(
        type="about:blank",
        title=title,
        status=error.hint,
        detail=error.message,
        instance=path,
        kind=error.kind,
        field=msgspec.UNSET if error.field is None else error.field,
    )


def refusal(error: PmanError, path: str, methods: Sequence[str]) -> Response:
    """Return the response to a request that can't be carried out.

    Args:
        path: Of the request.
        methods: What the path can be asked for.
    """
    headers: list[tuple[str, str]] = []
    if error.hint == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", "Bearer"))
    if error.hint == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(allow(methods))
    body = msgspec.json.encode(problem(error, path))
    return Response(error.hint, body, MEDIA_TYPE, tuple(headers))


def allow(methods: Sequence[str]) -> tuple[str, str]:
    """Return the header that lists what a path can be asked for."""
    return "Allow", ", ".join(methods)
