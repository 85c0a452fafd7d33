"""What a client wants to have run; made from the `meta` of a `run` request, checked once."""

from __future__ import annotations

from typing import Any

import msgspec

from pman.errors import RequestError, shown
from pman.job.callback import parse_target


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A checked `run` request.

    Attributes:
        cmd: Command line as sent.
        auid: Apparent user, "" when none; numbers are kept as text.
        jid: Job id of the client, "" when none; numbers are kept as text. Not unique.
        container: The `container` block as sent, or None for a plain host job.
        compound: Whether a host command may be split at its top-level `;`.
        idempotent: Whether a job with this jid is to be answered instead of a new one.
        callback: URL that gets the final record, "" for none.
        meta: The whole `meta` as sent; backends read their own keys from it.
    """

    cmd: str
    auid: str
    jid: str
    container: dict[str, Any] | None = None
    compound: bool = True
    idempotent: bool = False
    callback: str = ""
    meta: dict[str, Any]


def spec_from_meta(meta: dict[str, Any]) -> JobSpec:
    """Check the `meta` of a `run` request.

    Args:
        meta: JSON object as sent.
    Returns:
        The spec; `meta` is kept in it, not copied.
    Raises:
        RequestError: A key is missing or of the wrong type; names field, value and expectation.
    """
    cmd = _required(meta, "cmd")
    if not isinstance(cmd, str):
        raise _wrong("cmd", cmd, "a string")
    if "\0" in cmd:
        raise RequestError("cmd holds a NUL character, which no command line can hold", field="cmd")
    container = meta.get("container")
    if container is not None and not isinstance(container, dict):
        raise _wrong("container", container, "an object")
    return JobSpec(
        cmd=cmd,
        auid=_name(meta, "auid"),
        jid=_name(meta, "jid"),
        container=container,
        compound=flag(meta, "compound", default=True),
        idempotent=flag(meta, "idempotent", default=False),
        callback=_callback(meta),
        meta=meta,
    )


def flag(meta: dict[str, Any], key: str, *, default: bool) -> bool:
    """Return the boolean `meta[key]`, or `default` when it is absent.

    Raises:
        RequestError: The value is not a boolean.
    """
    value = meta.get(key, default)
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def _required(meta: dict[str, Any], key: str) -> Any:
    if key not in meta:
        raise RequestError(f"meta has no {key!r}, which run needs", field=key)
    return meta[key]


def _name(meta: dict[str, Any], key: str) -> str:
    """Return a job id or user id; a number becomes its text, as in 2.2."""
    value = _required(meta, key)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _wrong(key, value, "a string or a number")
    return value if isinstance(value, str) else str(value)


def _callback(meta: dict[str, Any]) -> str:
    """Return the URL to call back, "" for none."""
    url = meta.get("callback", "")
    if not isinstance(url, str):
        raise _wrong("callback", url, "a string")
    if url:
        parse_target(url)
    return url


def _wrong(key: str, value: Any, expected: str) -> RequestError:
    return RequestError(f"{key} is {shown(value)}, expected {expected}", field=key)
