"""`PageGuard`: refuses what a stranger's web page has a browser send, where no token is asked for.

A browser on this machine reaches what listens on 127.0.0.1, and sends what any page tells it to. It
names the origin of the page with a POST, but not with a GET of a page's own origin; and a name of
the page's owner that resolves to 127.0.0.1 makes us that origin (DNS rebinding). Its requests then
have that name in `Host`, which the page cannot change.
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.parse
from collections.abc import Callable, Sequence

from pman.errors import Forbidden, shown

#: Values of `Host` that are known to be good; a client can make up any number of those.
MAX_GOOD_HOSTS = 64


class PageGuard:
    """What is believed of requests that need no token. Thread-safe.

    Attributes:
        good_hosts: Values of `Host` that need no further look.
    """

    def __init__(
        self,
        origins: Sequence[str],
        is_loopback: Callable[[], bool],
        host_name: Callable[[], str] = socket.gethostname,
        full_name: Callable[[], str] = socket.getfqdn,
    ) -> None:
        """Prepare.

        Args:
            origins: Those of `--corsOrigin`.
            is_loopback: Tells, once there are requests, whether they come over a port that only
                this machine reaches. Elsewhere people use names that we cannot know of.
            host_name, full_name: Tell what this machine is called; the second may take long.
        """
        self.good_hosts: set[str] = set()
        self._is_loopback = is_loopback
        self._full_name = full_name
        self._names = {urllib.parse.urlsplit(origin).hostname or "" for origin in origins}
        self._names.add(host_name().lower())

    def learn_own_name(self) -> None:
        """Ask the system what this machine is called in full, which may have it ask the network."""
        self._names = {*self._names, self._full_name().lower()}

    def check_host(self, value: str) -> None:
        """Raise unless `Host` is one that no stranger can have chosen.

        Raises:
            Forbidden: It is a name of the DNS, and none of ours.
        """
        if self._is_loopback() and not self._is_good(_name_in(value)):
            raise Forbidden(
                f"host is {shown(value)}, which is not known to be this machine, so that a web page"
                " may be asking; expected an IP address, localhost or the host of a --corsOrigin,"
                " or requests with tokens (--enableTokenAuth)",
                field="Host",
            )
        if len(self.good_hosts) >= MAX_GOOD_HOSTS:
            self.good_hosts.clear()
        self.good_hosts.add(value)

    def _is_good(self, name: str) -> bool:
        """Tell whether nobody but the owner of this machine can have a name lead here."""
        if "." not in name or name in self._names or name.endswith(".localhost"):
            return True
        if name.rpartition(".")[2].isdecimal():  # an IPv4 address: no top-level domain is a number
            return True
        try:
            ipaddress.IPv6Address(name)
        except ValueError:
            return False
        return True


def check_site(value: str) -> None:
    """Raise when a browser says that a page of another site asks, and not which.

    Raises:
        Forbidden: `Sec-Fetch-Site` says so.
    Source: https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header
    """
    if value.lower() == "cross-site":
        raise Forbidden(
            "a page of another site has a browser ask, expected one of --corsOrigin, or requests"
            " with tokens (--enableTokenAuth)",
            field="Sec-Fetch-Site",
        )


def _name_in(host: str) -> str:
    """Return the name or address of a `Host`, lower case, without port, brackets and last dot."""
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    elif host.count(":") > 1:
        name = host
    else:
        name = host.partition(":")[0]
    return name.lower().removesuffix(".")
