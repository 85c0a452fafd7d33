"""What a service manager is told, over a real datagram socket."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pman.services.notify import Heartbeat, Notifier

DEADLINE_S = 10.0


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = f"@{tmp_path}/n" if request.param == "abstract" else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(DEADLINE_S)
        listening.bind(name.replace("@", "\0", 1))
        yield name, listening


def test_lines_arrive(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    Notifier(name).status("listening\non  a port", "READY=1")
    assert listening.recv(4096) == b"READY=1\nSTATUS=listening on a port"


@pytest.mark.parametrize("address", ["", "/nonexistent/socket", "@nobody-listens-here"])
def test_nobody_there_is_fine(address: str) -> None:
    Notifier(address).send("READY=1")


def test_a_manager_that_does_not_read_holds_nobody_up(manager: tuple[str, socket.socket]) -> None:
    notifier = Notifier(manager[0])
    for _ in range(2000):
        notifier.send("WATCHDOG=1")


@pytest.mark.parametrize(
    ("pid", "usec", "expected"),
    [
        (None, "30000000", 30.0),
        (str(os.getpid()), "500000", 0.5),
        ("1", "30000000", None),
        (None, "0", None),
        (None, "soon", None),
        (None, "", None),
    ],
)
def test_the_environment_is_read_and_emptied(
    pid: str | None, usec: str, expected: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": usec, "HOME": "/"}
    if pid is not None:
        environ["WATCHDOG_PID"] = pid
    assert Notifier.take_from(environ).watchdog_s == expected
    assert environ == {"HOME": "/"}


def test_beats_come_at_half_of_what_is_asked(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    heartbeat = Heartbeat(Notifier(name, watchdog_s=30.0))
    assert heartbeat.next_at == 0.0
    heartbeat.beat(100.0)
    assert listening.recv(4096) == b"WATCHDOG=1"
    assert heartbeat.next_at == 115.0


def test_no_beats_where_nobody_asks() -> None:
    assert Heartbeat(Notifier("/run/n")).next_at == math.inf
