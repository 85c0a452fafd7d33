"""Where the front listens: `Settings` -> a bound endpoint, or one line that says why not."""

from __future__ import annotations

import errno
import os
import socket as os_socket
from pathlib import Path

import zmq

from pman.config import Settings
from pman.errors import StartError


def endpoint_of(settings: Settings) -> str:
    """Return the endpoint that the settings name.

    Raises:
        StartError: The protocol is not known, or the port is none.
    """
    if settings.protocol == "ipc":
        is_path = settings.ip.startswith("/")
        path = Path(settings.ip) if is_path else settings.db_path / f"pman-{settings.port}.sock"
        return f"ipc://{path}"
    if settings.protocol != "tcp":
        raise StartError(f"protocol {settings.protocol!r} is not known, expected tcp or ipc")
    if not 0 <= settings.port <= 65535:  # libzmq would take it modulo 65536
        raise StartError(f"port {settings.port} is not a port, expected 0 to 65535")
    ip = f"[{settings.ip}]" if ":" in settings.ip else settings.ip
    return f"tcp://{ip}:{settings.port}"


def bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind, and return the endpoint with its real port.

    Raises:
        StartError: It cannot be bound; one line that says why.
    """
    if endpoint.startswith("tcp://["):
        socket.setsockopt(zmq.IPV6, 1)
    is_ipc = endpoint.startswith("ipc://")
    if is_ipc and _is_served(endpoint[6:]):
        raise StartError(f"cannot listen on {endpoint}: address already in use")
    try:
        socket.bind(endpoint)
    except (zmq.ZMQError, ValueError) as exc:
        raise StartError(f"cannot listen on {endpoint}: {_reason(exc)}") from exc
    if is_ipc:
        Path(endpoint[6:]).chmod(0o600)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _is_served(path: str) -> bool:
    """Return True if somebody listens there: libzmq would take the path away from them."""
    with os_socket.socket(os_socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _reason(exc: Exception) -> str:
    number = getattr(exc, "errno", None) or 0
    if number in (errno.ENODEV, errno.EINVAL):
        return "no such address (expected an IPv4 address, the name of an interface, or *)"
    return (os.strerror(number) if number in errno.errorcode else str(exc)).lower()
