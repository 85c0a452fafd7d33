"""`python -m pman.health`: says whether the pman of this container answers; for HEALTHCHECK.

Finds out where that pman was told to listen from its arguments and from our environment, which a
container's processes share, so that there is nothing to configure twice.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import zmq

from pman.cli import EXIT_FAILED, EXIT_OK, run_command, say
from pman.config import Settings, parse_arguments
from pman.errors import PmanError, StartError
from pman.services.endpoint import IPC, endpoint_of

#: How long the answer may take, seconds; less than the HEALTHCHECK of the image allows.
TIMEOUT_S = 8.0

#: Where the kernel shows the processes, and with them their arguments.
PROCESSES = Path("/proc")

#: What is asked for over HTTP; it needs no token, and no idle listener.
HEALTHZ = "/healthz"

#: And over ZeroMQ.
HELLO = json.dumps({"payload": {"action": "hello", "meta": {"askAbout": "timestamp"}}}).encode()

#: Addresses that stand for all of a machine, and where it can be reached at them.
ANY_ADDRESS = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  not bound to


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


# --- whom to ask ----------------------------------------------------------------------------


def arguments_of(words: Sequence[str]) -> list[str] | None:
    """Return the arguments of pman in a command line, None when it is another program's.

    Args:
        words: As in `/proc/<pid>/cmdline`: the interpreter comes first.
    """
    if not words or not Path(words[0]).name.startswith("python"):
        return None
    if len(words) > 1 and Path(words[1]).name == "pman":
        return list(words[2:])
    if list(words[1:3]) == ["-m", "pman"]:
        return list(words[3:])
    return None


def find_arguments(processes: Path = PROCESSES) -> list[str]:
    """Return the arguments of the oldest pman that runs here.

    Raises:
        StartError: There is none.
    """
    pids = sorted(int(entry.name) for entry in processes.iterdir() if entry.name.isdecimal())
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended, or is hidden from us
            raw = (processes / str(pid) / "cmdline").read_bytes()
            found = arguments_of([os.fsdecode(word) for word in raw.split(b"\0")[:-1]])
            if found is not None:
                return found
    raise StartError("no pman runs here")


def reachable(settings: Settings) -> str:
    """Return the endpoint at which pman can be reached from here.

    Raises:
        StartError: The settings do not tell.
    """
    endpoint = endpoint_of(settings)
    if endpoint.startswith(IPC):
        return endpoint
    if settings.port == 0:
        raise StartError("pman listens on any free port (--port 0), expected one with a number")
    host = ANY_ADDRESS.get(settings.ip) or _address_of(settings.ip)
    return f"tcp://[{host}]:{settings.port}" if ":" in host else f"tcp://{host}:{settings.port}"


def _address_of(ip: str) -> str:
    """Return an address as it is, and of the name of an interface the IPv4 address."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(ip))
    for address in psutil.net_if_addrs().get(ip, ()):
        if address.family == socket.AF_INET:
            return str(address.address)
    raise StartError(f"--ip {ip!r} is no address and no interface with one")


# --- asking ---------------------------------------------------------------------------------


def ask(settings: Settings, timeout_s: float = TIMEOUT_S) -> str:
    """Ask whether pman serves.

    Returns:
        The endpoint that has answered.
    Raises:
        StartError: There was no answer in time, or one of a pman that does not work.
    """
    endpoint = reachable(settings)
    try:
        if settings.rawmode:
            _ask_http(endpoint, timeout_s)
        else:
            _ask_zmtp(endpoint, timeout_s)
    except (OSError, http.client.HTTPException, zmq.ZMQError) as exc:
        raise StartError(f"no answer from {endpoint}: {exc}") from exc
    return endpoint


def _ask_http(endpoint: str, timeout_s: float) -> None:
    connection: http.client.HTTPConnection
    if endpoint.startswith(IPC):
        connection = UnixConnection(endpoint.removeprefix(IPC), timeout_s)
    else:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request("GET", HEALTHZ)
        status = connection.getresponse().status
    if status != http.HTTPStatus.OK:
        raise StartError(f"{endpoint} answers {HEALTHZ} with status {status}, expected 200")


def _ask_zmtp(endpoint: str, timeout_s: float) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as peer:
        peer.set(zmq.LINGER, 0)
        peer.set(zmq.RCVTIMEO, int(timeout_s * 1000))
        peer.set(zmq.IPV6, int("[" in endpoint))
        peer.connect(endpoint)
        peer.send(HELLO)
        peer.recv()


# --- the command ----------------------------------------------------------------------------


def check(environ: Mapping[str, str] = os.environ, processes: Path = PROCESSES) -> str:
    """Ask the pman that runs here whether it is there; return its endpoint.

    Raises:
        PmanError: It is not.
    """
    settings = parse_arguments(find_arguments(processes), environ)
    if not isinstance(settings, Settings):
        raise StartError("the pman that runs here only shows a text")
    return ask(settings)


def main() -> int:
    """Run the check; return 0 when pman answers, else 1, the only codes that HEALTHCHECK knows."""
    return run_command("pman.health", _run, [])


def _run(_: Sequence[str]) -> int:
    try:
        endpoint = check()
    except PmanError as exc:
        say(f"unhealthy: {exc}", sys.stdout)
        return EXIT_FAILED
    say(f"healthy: {endpoint} answers", sys.stdout)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
