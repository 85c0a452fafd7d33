"""The header `Idempotency-Key`, and what is kept of it.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from pman.auth import Caller
from pman.errors import RequestError, shown

HEADER = "Idempotency-Key"

#: A string of structured fields, or what most clients send: the same without its quotes.
_KEY = re.compile(r'"([ !#-\[\]-~]{1,255})"|([!#-\[\]-~]{1,255})')

#: Hexadecimal digits of each half; nobody can find two that are the same.
_DIGITS = 32


def read_key(values: Sequence[str]) -> str:
    """Return the key of a request, "" for none.

    Raises:
        RequestError: There are several, or it is no key.
    """
    if not values:
        return ""
    match = _KEY.fullmatch(values[0])
    if len(values) > 1 or match is None:
        raise RequestError(
            f"{HEADER} is {shown(', '.join(values))}, expected 1 to 255 printable characters of"
            " ASCII, best in quotes",
            field=HEADER,
        )
    return match[1] or match[2]


def digest(key: str, caller: Caller, given: Any) -> str:
    """Return what stands in `Job.idempotency`: one half for the key, one for the request.

    Args:
        key: From `read_key`.
        caller: Who asks; the same key of somebody else is another one.
        given: The request, JSON; how it is laid out makes no difference.
    """
    if not key:
        return ""
    return f"{_half([caller.name, caller.auid, key])}:{_half(given)}"


def is_reused(sent: str, kept: str) -> bool:
    """Tell whether the key of a request came before with another one.

    Args:
        sent, kept: From `digest`: of the request, and of the job that it is answered with. That may
            have come without a key, or with another one, if it was found by its jid.
    """
    return sent != kept and bool(sent) and sent.partition(":")[0] == kept.partition(":")[0]


def _half(value: Any) -> str:
    raw = msgspec.json.encode(value, order="sorted")
    return hashlib.sha256(raw).hexdigest()[:_DIGITS]
