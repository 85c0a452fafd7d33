"""Where the front listens: `Settings` -> a bound endpoint, or one line that says why not."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import os
import socket as os_socket
import stat
from pathlib import Path

import zmq

from pman.config import Settings
from pman.errors import StartError

IPC = "ipc://"

#: How long who serves a socket file may take to answer, seconds.
PROBE_S = 1.0


def endpoint_of(settings: Settings) -> str:
    """Return the endpoint that the settings name.

    Raises:
        StartError: The protocol is not known, or the port is none.
    """
    if settings.protocol == "ipc":
        is_path = settings.ip.startswith("/")
        path = Path(settings.ip) if is_path else settings.db_path / f"pman-{settings.port}.sock"
        return f"{IPC}{path}"
    if settings.protocol != "tcp":
        raise StartError(f"protocol {settings.protocol!r} is not known, expected tcp or ipc")
    if not 0 <= settings.port <= 65535:  # libzmq would take it modulo 65536
        raise StartError(f"port {settings.port} is not a port, expected 0 to 65535")
    ip = f"[{settings.ip}]" if ":" in settings.ip else settings.ip
    return f"tcp://{ip}:{settings.port}"


@dataclasses.dataclass(frozen=True)
class Binding:
    """What a socket is bound to.

    Attributes:
        endpoint: With its real address and port.
        file: Device and inode of the socket file, None without one.
    """

    endpoint: str
    file: tuple[int, int] | None = None

    def release(self) -> None:
        """Remove the socket file, which libzmq leaves, unless another one is in its place."""
        if self.file is None:
            return
        path = Path(self.endpoint.removeprefix(IPC))
        with contextlib.suppress(OSError):  # its folder is gone, or no longer ours to write
            if _file_of(path) == self.file:
                path.unlink()


def bind(socket: zmq.Socket[bytes], endpoint: str) -> Binding:
    """Bind a socket.

    Raises:
        StartError: It cannot be bound; one line that says why.
    """
    try:
        if endpoint.startswith(IPC):
            return _bind_file(socket, endpoint)
        if endpoint.startswith("tcp://["):
            socket.setsockopt(zmq.IPV6, 1)
        socket.bind(endpoint)
    except (OSError, ValueError, zmq.ZMQError) as exc:
        raise StartError(f"cannot listen on {endpoint}: {_reason(exc)}") from exc
    return Binding(_last_endpoint(socket))


def _bind_file(socket: zmq.Socket[bytes], endpoint: str) -> Binding:
    """Bind a socket file that nobody else may use, where none is served.

    The file is not left to libzmq, which removes whatever is at the path before it binds.
    """
    path = Path(endpoint.removeprefix(IPC))
    if _is_left_behind(path):
        path.unlink()
    with os_socket.socket(os_socket.AF_UNIX) as listening:
        os.fchmod(listening.fileno(), 0o600)  # the mode of the file to come
        listening.bind(os.fspath(path))
        listening.listen(int(socket.getsockopt(zmq.BACKLOG)))
        listening.setblocking(False)  # a client that leaves at once must not hold up `accept`
        socket.setsockopt(zmq.USE_FD, os.dup(listening.fileno()))
    socket.bind(endpoint)
    return Binding(_last_endpoint(socket), _file_of(path))


def _is_left_behind(path: Path) -> bool:
    """Tell whether a socket is there that nobody serves."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with os_socket.socket(os_socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False  # too busy to answer, of another type, or not for us
    return False


def _file_of(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _last_endpoint(socket: zmq.Socket[bytes]) -> str:
    return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def is_loopback(endpoint: str) -> bool:
    """Tell whether only this machine reaches an endpoint that `bind` returned."""
    if endpoint.startswith(IPC):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_local_port(endpoint: str) -> bool:
    """Tell whether browsers on this machine reach an endpoint, and those elsewhere do not."""
    return not endpoint.startswith(IPC) and is_loopback(endpoint)


def _reason(exc: Exception) -> str:
    number = getattr(exc, "errno", None) or 0
    if number in (errno.ENODEV, errno.EINVAL):
        return "no such address (expected an IP address, the name of an interface, or *)"
    return (os.strerror(number) if number in errno.errorcode else str(exc)).lower()
