"""URLs that jobs call back: what they may look like, and which hosts are allowed. Pure."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence

import msgspec

from pman.errors import Forbidden, RequestError, shown

#: Longest URL, characters.
MAX_URL = 2048

#: Allows every host; behind a host and a colon: every port.
ANY = "*"

_PORTS = {"http": 80, "https": 443}


class Target(msgspec.Struct, frozen=True):
    """Where a callback goes.

    Attributes:
        is_secure: Whether it goes over TLS.
        host: Name or address, lower case, an IPv6 address without its brackets.
        port: TCP port.
        path: Path and query.
    """

    is_secure: bool
    host: str
    port: int
    path: str

    @property
    def address(self) -> str:
        """Host and port as in a URL."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def authority(self) -> str:
        """The same without the usual port, as in a header `Host`."""
        return _bracketed(self.host) if self.has_usual_port else self.address

    @property
    def has_usual_port(self) -> bool:
        """Whether the port is that of its scheme."""
        return self.port == _PORTS["https" if self.is_secure else "http"]


def parse_target(url: str) -> Target:
    """Return where a URL leads.

    Raises:
        RequestError: It is not one that can be called back.
    """
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise _wrong(url, f"a URL of at most {MAX_URL} characters, ASCII without blanks")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise _wrong(url, "a URL") from exc
    if parts.scheme not in _PORTS:
        raise _wrong(url, "a URL that begins with http:// or https://")
    if "@" in parts.netloc:
        raise RequestError("callback holds a user name, expected a URL without", field="callback")
    if not parts.hostname or "\\" in parts.netloc or port == 0:
        raise _wrong(url, "a URL with a host")
    if "#" in url:
        raise _wrong(url, "a URL without a fragment")
    return Target(
        is_secure=parts.scheme == "https",
        host=parts.hostname,
        port=_PORTS[parts.scheme] if port is None else port,
        path=urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")),
    )


def check_allowed(target: Target, allowed: Sequence[str]) -> None:
    """Raise unless a callback may go there.

    Args:
        allowed: Hosts; alone they mean the usual port of the scheme, else one port, or `ANY` for
            all. `ANY` alone allows everything.
    Raises:
        Forbidden: It may not.
    """
    hosts = {host.lower() for host in allowed}
    host = _bracketed(target.host)
    names = {ANY, target.address, f"{host}:{ANY}"}
    if target.has_usual_port:
        names |= {target.host, host}
    if not hosts & names:
        raise Forbidden(
            f"callback goes to {shown(target.address)}, which is not one of --callbackHosts",
            field="callback",
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _wrong(url: str, expected: str) -> RequestError:
    return RequestError(f"callback is {shown(url)}, expected {expected}", field="callback")
