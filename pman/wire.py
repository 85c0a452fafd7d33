"""Spellings fixed by the contract of pman 2.2: names, words, and how a reply is spelled as JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from pman.errors import MalformedRequest

#: Answer of `hello`: who is speaking, and the version of the contract it speaks. The release of the
#: program is in the `Server` header and in `--version`; clients of 2.2 compare this one.
NAME = "pman"
CONTRACT_VERSION = "2.2.4"

#: Backend of jobs that run on this machine, in records and in `--container-env`.
HOST = "host"

#: Methods that pman answers; any other is refused with 405.
METHODS = ("GET", "HEAD", "POST", "PUT", "OPTIONS")

#: Content types of replies, with `--http` and without.
CONTENT_TYPE_HTTP = "application/html"
CONTENT_TYPE_JSON = "application/json"

#: Arrays and objects inside each other that a request may hold. What is read has to be spelled
#: again, with more around it, and the slow way of `dumps` calls itself once a level.
MAX_NESTING = 200

_ABSENT = msgspec.Raw(b"null")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_format = msgspec.json.format


def dumps(document: Any) -> bytes:
    """Spell a document as 2.2 does: four blanks of indent, non-ASCII characters as `\\uXXXX`.

    Source: WIRE.md, section 2. The fast encoder leaves non-ASCII characters alone; only documents
    that hold some take the slow way.
    """
    raw = _format(_encode(document), indent=4)
    if not raw.isascii():
        return json.dumps(msgspec.to_builtins(document), indent=4).encode("ascii")
    return raw.replace(b"\x7f", b"\\u007f")  # which json takes for no character of ASCII


def loads(text: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        MalformedRequest: Not JSON, and says where; or nested deeper than `MAX_NESTING`.
    """
    try:
        document = _decode(text)
    except msgspec.DecodeError as exc:
        raise MalformedRequest(f"the body is not JSON: {exc}", field="body") from exc
    except RecursionError as exc:
        raise _too_deep() from exc
    # Few requests are long enough, and few of those hold so many brackets.
    is_suspect = len(text) > MAX_NESTING and _openings(text) > MAX_NESTING
    if is_suspect and is_nested_too_deeply(document):
        raise _too_deep()
    return document


class _Outline(msgspec.Struct):
    payload: msgspec.Raw = _ABSENT


class _PayloadOutline(msgspec.Struct):
    action: msgspec.Raw = _ABSENT


_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_payload = msgspec.json.Decoder(_PayloadOutline).decode


def outline(raw: bytes) -> Any:
    """Return what `loads` would, of a request, with no more in it than its action.

    Whatever else there is is passed over and not built. As with `loads` the last of several keys
    counts. What is not of the form of a request is None, and so is an action that is no text.

    Args:
        raw: `{"payload": {"action": ..., ...}, ...}`.
    Raises:
        MalformedRequest: Not JSON, and says where.
    """
    try:
        payload = _decode_outline(raw).payload
        action = _decode_payload(payload).action
        is_text = bytes(memoryview(action)[:1]) == b'"'
        return {"payload": {"action": _decode(action) if is_text else None}}
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as exc:
        raise MalformedRequest(f"the body is not JSON: {exc}", field="body") from exc
    except RecursionError as exc:
        raise _too_deep() from exc


def is_nested_too_deeply(document: Any) -> bool:
    """Tell whether arrays and objects are inside each other more than `MAX_NESTING` levels deep."""
    layer = _containers([document])
    for _ in range(MAX_NESTING):
        if not layer:
            return False
        layer = [inner for outer in layer for inner in _containers(outer)]
    return bool(layer)


def _containers(outer: Any) -> list[Any]:
    values = outer.values() if isinstance(outer, dict) else outer
    return [value for value in values if isinstance(value, (dict, list))]


def _openings(text: bytes | str) -> int:
    if isinstance(text, str):
        return text.count("[") + text.count("{")
    return text.count(b"[") + text.count(b"{")


def _too_deep() -> MalformedRequest:
    return MalformedRequest(
        f"the body is nested too deeply, expected at most {MAX_NESTING} levels", field="body"
    )
