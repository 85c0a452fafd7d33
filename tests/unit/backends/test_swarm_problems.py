"""What goes wrong with an engine, said so that a reader knows what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pman.backends._engine.port import Unanswered
from pman.backends._swarm.client import EngineClient, _check_swarm, url_path
from pman.backends._swarm.problems import (
    Failed,
    Missing,
    Refused,
    answer_problem,
    connection_problem,
    plain,
    socket_path,
)
from pman.errors import BackendUnavailable

docker = pytest.importorskip("docker")


def connect_problem(host: str) -> BackendUnavailable:
    """Return how `connect` fails."""
    with pytest.raises(BackendUnavailable) as failed:
        EngineClient({"DOCKER_HOST": host}).connect()
    return failed.value


def test_a_missing_socket(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    problem = connect_problem(f"unix://{path}")
    assert f"no socket at {path}; is the engine running?" in problem.message
    assert f"-v {path}:{path}" in problem.message
    assert not isinstance(problem, Unanswered)


def test_a_socket_that_nobody_listens_at(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    problem = connect_problem(f"unix://{path}")
    assert "refuses connections; is the engine running?" in problem.message
    assert not isinstance(problem, Unanswered)


def test_a_socket_that_we_may_not_use(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    path.touch()
    cause = PermissionError(13, "Permission denied")
    problem = connection_problem(ConnectionError("aborted", cause), f"unix://{path}")
    gid = path.stat().st_gid
    assert f"no permission for docker engine's socket {path}" in problem.message
    assert problem.message.endswith(f"add the user that runs pman to the socket's group, gid {gid}")


def test_an_address_that_is_none() -> None:
    assert "look at DOCKER_HOST" in connect_problem("carrier-pigeon://x").message


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that answers what a test wants, and its address."""
    path = tmp_path / "speaker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener, f"unix://{path}"


def answer(listener: socket.socket, *answers: bytes) -> threading.Thread:
    """Answer one request on each connection, in a thread of its own."""

    def serve() -> None:
        for raw in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(raw)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_something_else_answers(speaker: tuple[socket.socket, str]) -> None:
    thread = answer(speaker[0], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert "is no docker engine" in connect_problem(speaker[1]).message
    thread.join()


def test_an_engine_that_is_too_old(speaker: tuple[socket.socket, str]) -> None:
    raw = b"HTTP/1.1 200 OK\r\nApi-Version: 1.24\r\nContent-Length: 2\r\n\r\nOK"
    thread = answer(speaker[0], raw)
    message = connect_problem(speaker[1]).message
    assert "speaks API 1.24, expected 1.32 or later" in message
    thread.join()


def test_a_proxy_that_lets_nobody_ask(speaker: tuple[socket.socket, str]) -> None:
    ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    info = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    thread = answer(speaker[0], ping, info)
    assert (
        "refuses to say how it is: no; if there is a proxy" in connect_problem(speaker[1]).message
    )
    thread.join()


def test_an_engine_that_goes_away_may_have_heard_us(speaker: tuple[socket.socket, str]) -> None:
    thread = answer(speaker[0], b"")
    assert isinstance(connect_problem(speaker[1]), Unanswered)
    thread.join()


@pytest.mark.parametrize(
    ("swarm", "words"),
    [
        ({}, "run: docker swarm init"),
        ({"LocalNodeState": "inactive"}, "run: docker swarm init"),
        ({"LocalNodeState": "locked"}, "run: docker swarm unlock"),
        ({"LocalNodeState": "pending"}, "docker info"),
        ({"LocalNodeState": "error"}, "'error'"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, "connect pman to a manager node"),
    ],
)
def test_an_engine_that_manages_no_swarm(swarm: dict[str, object], words: str) -> None:
    with pytest.raises(BackendUnavailable, match=words):
        _check_swarm(swarm)


def test_an_engine_that_manages_a_swarm() -> None:
    _check_swarm({"LocalNodeState": "active", "ControlAvailable": True})


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "rpc error: code = InvalidArgument desc = bad name", Refused),
        (404, "service x not found", Missing),
        (409, "rpc error: code = AlreadyExists desc = name conflicts", Refused),
        (500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", Failed),
        (500, "raft: raft message is too large and can't be sent", Refused),
        (500, "grpc: received message larger than max (5389247 vs. 4194304)", Refused),
        (500, "The swarm does not have a leader. It's possible", BackendUnavailable),
        (503, 'This node is not a swarm manager. Use "docker swarm init"', BackendUnavailable),
    ],
)
def test_answers(status: int, words: str, kind: type[Exception]) -> None:
    problem = answer_problem(status, words)
    assert type(problem) is kind
    assert "rpc error" not in problem.message


def test_the_engines_words_lose_their_wrapping() -> None:
    assert plain("rpc error: code = X desc = two\nlines  of it") == "two lines of it"
    assert len(plain("x" * 10_000)) == 2000


def test_where_the_socket_is() -> None:
    assert socket_path("unix:///run/docker.sock") == "/run/docker.sock"
    assert socket_path("/run/docker.sock") == "/run/docker.sock"
    assert socket_path("tcp://10.0.0.1:2375") == ""


def test_names_in_a_path_are_quoted() -> None:
    assert url_path("/services/{}/x", "a/../b?c") == "/services/a%2F..%2Fb%3Fc/x"
