"""Settings to endpoint, and what is bound."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from pman.config import Settings
from pman.errors import StartError
from pman.services.endpoint import bind, endpoint_of, is_loopback


def settings(**changes: object) -> Settings:
    return Settings(db_path=Path("/db"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "tcp://127.0.0.1:5010"),
        ({"ip": "*", "port": 0}, "tcp://*:0"),
        ({"ip": "eth0"}, "tcp://eth0:5010"),
        ({"ip": "::1"}, "tcp://[::1]:5010"),
        ({"protocol": "ipc"}, "ipc:///db/pman-5010.sock"),
        ({"protocol": "ipc", "ip": "/run/pman"}, "ipc:///run/pman"),
    ],
)
def test_settings_name_an_endpoint(changes: dict[str, object], expected: str) -> None:
    assert endpoint_of(settings(**changes)) == expected


@pytest.mark.parametrize("changes", [{"protocol": "udp"}, {"port": 65536}, {"port": -1}])
def test_what_is_no_endpoint_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(StartError, match="expected"):
        endpoint_of(settings(**changes))


# --- where it is bound ----------------------------------------------------------------------


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = context.socket(zmq.ROUTER)
    yield made
    context.destroy(linger=0)


@pytest.mark.parametrize(
    ("ip", "expected"), [("127.0.0.1", True), ("127.0.0.2", True), ("lo", True), ("*", False)]
)
def test_what_only_this_machine_reaches(router: zmq.Socket[bytes], ip: str, expected: bool) -> None:
    assert is_loopback(bind(router, f"tcp://{ip}:0").endpoint) is expected


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("ipc:///run/pman.sock", True),
        ("tcp://[::1]:5010", True),
        ("tcp://[::ffff:127.0.0.1]:5010", True),
        ("tcp://[::ffff:192.0.2.1]:5010", False),
        ("tcp://[::]:5010", False),
        ("tcp://[fe80::1%2]:5010", False),
        ("tcp://0.0.0.0:5010", False),
        ("tcp://127.example.org:5010", False),
    ],
)
def test_loopback_is_read_from_the_address(endpoint: str, expected: bool) -> None:
    assert is_loopback(endpoint) is expected


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to nothing", "fifo"])
def test_what_is_no_socket_is_left_alone(
    router: zmq.Socket[bytes], tmp_path: Path, kind: str
) -> None:
    path, other = tmp_path / "precious", tmp_path / "other"
    if kind == "file":
        path.write_text("kept")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
        if kind == "link to a file":
            other.write_text("kept")
    before = path.lstat()
    with pytest.raises(StartError, match="address already in use"):
        bind(router, f"ipc://{path}")
    assert path.lstat() == before
    assert kind != "link to a file" or other.read_text() == "kept"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_is_served_is_left_alone(
    router: zmq.Socket[bytes], tmp_path: Path, kind: socket.SocketKind
) -> None:
    path = tmp_path / "served"
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(str(path))
        if kind is socket.SOCK_STREAM:
            server.listen(0)
        before = path.lstat()
        with pytest.raises(StartError, match="address already in use"):
            bind(router, f"ipc://{path}")
        assert path.lstat() == before


def test_a_socket_too_busy_to_answer_is_left_alone(
    router: zmq.Socket[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pman.services.endpoint.PROBE_S", 0.05)
    path = tmp_path / "busy"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))  # fills the queue of those that wait to be accepted
        with pytest.raises(StartError, match="address already in use"):
            bind(router, f"ipc://{path}")
        assert path.exists()


def test_a_socket_file_is_ours_alone_and_goes_at_the_end(
    router: zmq.Socket[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "left-behind"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # nobody has removed the file
    umask = os.umask(0)
    try:
        binding = bind(router, f"ipc://{path}")
    finally:
        os.umask(umask)
    assert binding.endpoint == f"ipc://{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    router.close(0)
    binding.release()
    assert not path.exists()
    binding.release()


def test_a_socket_file_in_place_of_ours_is_left_alone(
    router: zmq.Socket[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "ours"
    binding = bind(router, f"ipc://{path}")
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(tmp_path / "theirs"))
        (tmp_path / "theirs").replace(path)
        binding.release()
    assert path.exists()
