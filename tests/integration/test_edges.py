"""What comes in at the edges: arguments, files and limits that are there, and JSON that nests."""

from __future__ import annotations

import json
import resource
import socket
from pathlib import Path

import pytest
from daemon_factory import NewDaemon
from daemon_process import Connection, DaemonProcess
from probes import assert_refused, output_of, run_pman

HELLO = json.dumps({"payload": {"action": "hello", "meta": {"askAbout": "timestamp"}}}).encode()
POST = b"POST /api/v1/cmd HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(HELLO) + HELLO

WARNING = "anybody who can reach"


# --- where it listens -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--protocol", "udp"), "protocol 'udp' is not known, expected tcp or ipc"),
        (("--ip", "192.0.2.1"), "cannot listen on tcp://192.0.2.1:0: cannot assign requested"),
        (("--ip", "no address"), "cannot listen on tcp://no address:0: no such address"),
    ],
)
def test_what_cannot_be_listened_to_is_one_line_and_status_1(
    tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    ended = run_pman("--port", "0", "--DBpath", str(tmp_path / "db"), *flags)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"pman: {message}")


@pytest.mark.slow
def test_a_socket_file_replaces_nothing_and_goes_at_the_end(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "precious"
    path.write_text("kept")
    flags = ("--protocol", "ipc", "--ip", str(path))
    ended = run_pman("--DBpath", str(tmp_path / "db"), *flags)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line == f"pman: cannot listen on ipc://{path}: address already in use"
    assert path.read_text() == "kept"
    path.unlink()

    daemon = new_daemon(*flags, is_started=False)
    start_on_file(daemon)
    assert say_hello(path) == 200
    daemon.kill()
    assert path.is_socket()  # left behind, and taken over
    start_on_file(daemon)
    assert say_hello(path) == 200
    assert WARNING not in daemon.log_text()
    assert daemon.stop() == 0
    assert not path.exists()


def start_on_file(daemon: DaemonProcess) -> None:
    """Start; return when it listens."""
    at = daemon.launch()
    daemon.wait_for_log(r"listening on ipc://", at)


def say_hello(path: Path) -> int:
    with Connection(str(path)) as connection:
        connection.send(POST)
        return connection.read_reply().status


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ip", "is_warned"), [("::1", False), ("lo", False), ("127.0.0.1", False), ("*", True)]
)
def test_a_warning_only_where_others_can_reach_it(
    new_daemon: NewDaemon, ip: str, is_warned: bool
) -> None:
    if ip == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    daemon = new_daemon("--ip", ip)
    assert daemon.stop() == 0
    assert (WARNING in daemon.log_text()) is is_warned


# --- how many at a time ---------------------------------------------------------------------


def with_soft_limit(daemon: DaemonProcess, soft: int, hard: int | None = None) -> DaemonProcess:
    """Have a daemon start with limits on open files, as a login or a service would."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if hard is None else hard
    program = f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"'
    daemon.command = ["/bin/sh", "-c", program, "sh", *daemon.command]
    return daemon.start()


def descriptor_limits(daemon: DaemonProcess) -> tuple[int, int]:
    return resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)


@pytest.mark.slow
def test_as_many_connections_as_asked_for_and_jobs_have_the_limit_of_old(
    new_daemon: NewDaemon,
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4000:
        pytest.skip(f"this machine allows {hard} open files")
    daemon = with_soft_limit(
        new_daemon("--maxConnections", "3000", is_started=False), 300, min(hard, 4000)
    )
    soft, hard = descriptor_limits(daemon)
    assert 3064 < soft < 4000
    assert "--maxConnections" not in daemon.log_text()

    daemon.run("ulimit -Sn && ulimit -Hn && env", "limits")
    assert daemon.wait_finished("limits") == ["finishedSuccessfully"]
    soft_of_job, hard_of_job, *environment = output_of(daemon, "limits").splitlines()
    assert (soft_of_job, hard_of_job) == ("300", "4000")
    assert not [line for line in environment if line.startswith("PMAN_")]


@pytest.mark.slow
def test_too_few_descriptors_are_said_once(new_daemon: NewDaemon) -> None:
    daemon = with_soft_limit(new_daemon(is_started=False), 200, 300)
    assert descriptor_limits(daemon) == (300, 300)
    assert daemon.is_alive()
    lines = [line for line in daemon.log_text().splitlines() if "--maxConnections" in line]
    (line,) = lines
    assert "at most 236 connections" in line
    daemon.run("ulimit -Sn", "limit")
    assert daemon.wait_finished("limit") == ["finishedSuccessfully"]
    assert output_of(daemon, "limit") == "200\n"


@pytest.mark.slow
def test_a_shepherd_that_replaces_a_killed_one_keeps_the_limit_of_jobs(
    new_daemon: NewDaemon,
) -> None:
    daemon = with_soft_limit(new_daemon(is_started=False), 300)
    daemon.run("kill -9 $PPID", "killer")
    daemon.wait_finished("killer")
    daemon.run("ulimit -Sn", "limit")
    assert daemon.wait_finished("limit") == ["finishedSuccessfully"]
    assert output_of(daemon, "limit") == "300\n"


# --- what nests -----------------------------------------------------------------------------


def nested(depth: int) -> str:
    """Return a value of `depth` levels with text that is not ASCII inside."""
    return '{"é": [' * (depth // 2) + '"é"' + "]}" * (depth // 2)


def run_with(value: str, jid: str, cmd: str = "true") -> str:
    meta = {"cmd": cmd, "auid": "t", "jid": jid, "threaded": True, "more": None}
    text = json.dumps({"payload": {"action": "run", "meta": meta}})
    return text.replace("null", value)


def test_json_that_nests_is_read_up_to_a_depth(shared_daemon: DaemonProcess) -> None:
    daemon = shared_daemon
    reply = daemon.request("POST", "/api/v1/cmd", run_with(nested(100), "nested"))
    assert reply.status == 200
    assert reply.json()["meta"]["more"] == json.loads(nested(100))
    assert daemon.wait_finished("nested") == ["finishedSuccessfully"]
    for method in ("POST", "PUT", "GET"):
        for depth in (300, 983, 985, 2000, 100_000):
            body = run_with(nested(depth), "refused")
            reply = daemon.request(method, "/api/v1/cmd", body)
            assert_refused(reply, 400, "MalformedRequest", "body")
            assert "nested too deeply" in reply.json()["error"]["message"]
    assert "Traceback" not in daemon.log_text()


def test_a_command_that_nests_is_the_shells_affair(shared_daemon: DaemonProcess) -> None:
    for index, cmd in enumerate(("echo " + "${" * 2000, "true $((" + "(" * 2000)):
        reply = shared_daemon.run(cmd, f"deep{index}")
        assert reply.status == 200
        assert shared_daemon.wait_finished(f"deep{index}") == ["finishedWithError"]
