"""Addresses: request targets taken apart, and links put together. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from pman.errors import MalformedRequest, shown

#: Where the REST API begins.
ROOT = "/api/v2"

#: Most parameters of one query; nobody needs as many.
MAX_PARAMETERS = 1000

#: A byte that clients should have encoded, as latin-1 text.
_BARE_BYTE = re.compile(r"[^\x00-\x7f]")


class Target(NamedTuple):
    """A request target. Attributes: path; query; both still percent-encoded."""

    path: str
    query: str


def split_target(target: str) -> Target:
    """Take a request target apart.

    Source: RFC 9112, section 3.2: origin form, and absolute form, which a server must accept.
    """
    if target[:1] != "/":
        scheme, colon, rest = target.partition("://")
        if colon and scheme.lower() in ("http", "https"):
            _, slash, rest = rest.partition("/")
            target = slash + rest
    path, _, query = target.partition("?")
    return Target(path, query)


def is_rest(path: str) -> bool:
    """Tell whether a path belongs to the REST API."""
    return path.startswith(ROOT) and (len(path) == len(ROOT) or path[len(ROOT)] == "/")


def segments(path: str) -> tuple[str, ...]:
    """Return the segments of a path below `ROOT`, decoded; a slash at the end does not count.

    Raises:
        MalformedRequest: They are not UTF-8.
    """
    rest = path[len(ROOT) :].removesuffix("/")
    return tuple(_decoded(each, "path") for each in rest.split("/")[1:])


def parameters(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a query, decoded, in order.

    Raises:
        MalformedRequest: They are not UTF-8, or too many.
    """
    try:
        return parse_qsl(
            _BARE_BYTE.sub(lambda byte: f"%{ord(byte[0]):02X}", query),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except UnicodeDecodeError as exc:
        raise MalformedRequest(f"the query is not UTF-8: {exc.reason}", field="query") from exc
    except ValueError as exc:
        raise MalformedRequest(
            f"the query has more than {MAX_PARAMETERS} parameters", field="query"
        ) from exc


def job_path(job_id: str) -> str:
    """Return the address of a job."""
    return f"{ROOT}/jobs/{quote(job_id, safe='')}"


def next_page(path: str, given: Iterable[tuple[str, str]], cursor: str) -> tuple[str, str]:
    """Return the header that leads to the next page.

    Args:
        path: Of this page, as sent.
        given: Parameters of this page.
        cursor: Of the next one.
    Source: RFC 8288.
    """
    query = [(name, value) for name, value in given if name != "cursor"]
    return "Link", f'<{path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'


def _decoded(text: str, field: str) -> str:
    raw = unquote_to_bytes(text.encode("latin-1"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedRequest(f"{field} holds {shown(text)}, expected UTF-8", field=field) from exc
