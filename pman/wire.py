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

#: Methods that pman answers; any other is refused with 405.
METHODS = ("GET", "HEAD", "POST", "PUT", "OPTIONS")

#: Content types of replies, with `--http` and without.
CONTENT_TYPE_HTTP = "application/html"
CONTENT_TYPE_JSON = "application/json"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_format = msgspec.json.format


def dumps(document: Any) -> bytes:
    """Spell a document as 2.2 does: four blanks of indent, non-ASCII characters as `\\uXXXX`.

    Source: WIRE.md, section 2. The fast encoder leaves non-ASCII characters alone; only documents
    that hold some take the slow way.
    """
    raw = _format(_encode(document), indent=4)
    return raw if raw.isascii() else json.dumps(document, indent=4).encode("ascii")


def loads(text: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        MalformedRequest: Not JSON; says where.
    """
    try:
        return _decode(text)
    except msgspec.DecodeError as exc:
        raise MalformedRequest(f"the body is not JSON: {exc}", field="body") from exc
    except RecursionError as exc:
        raise MalformedRequest("the body is nested too deeply", field="body") from exc
