"""Defects 1 to 22 of pman 2.2: one test a defect, the number is in the name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daemon_factory import NewDaemon
from daemon_process import DEADLINE_S, Connection, DaemonProcess, Reply, wait_until
from gate import Gate
from probes import (
    assert_refused,
    cpu_ticks,
    drop_directive,
    memory_bytes,
    open_descriptors,
    run_pman,
)

import pman

HELLO = '{"payload":{"action":"hello","meta":{"askAbout":"timestamp"}}}'

TLS_CLIENT_HELLO = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 21


def post(daemon: DaemonProcess, body: str | bytes, **headers: str) -> Reply:
    return daemon.request("POST", "/api/v1/cmd", body, headers)


def send_and_hang_up(daemon: DaemonProcess, raw: bytes) -> None:
    with daemon.connect() as connection:
        connection.send(raw)


def test_defect_01_exception_in_a_request_loses_no_listener(one_listener: DaemonProcess) -> None:
    assert_refused(post(one_listener, '{"payload":{}'), 400, "MalformedRequest", "body")
    assert one_listener.is_alive()


def test_defect_02_unknown_action(one_listener: DaemonProcess) -> None:
    reply = one_listener.post("nosuch")
    assert_refused(reply, 400, "UnknownAction", "action")
    message = reply.json()["error"]["message"]
    assert all(action in message for action in ("hello", "run", "status", "DBctl", "quit"))
    assert one_listener.is_alive()


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ('{"action":"hello"}', "meta"),
        ('{"meta":{}}', "action"),
        ('{"action":"status","meta":{"value":"x"}}', "key"),
        ('{"action":"status","meta":{"key":"jid"}}', "value"),
        ('{"action":"get","meta":{}}', "path"),
        ('{"action":"DBctl","meta":{}}', "do"),
        (None, "payload"),
    ],
)
def test_defect_03_missing_key(
    one_listener: DaemonProcess, payload: str | None, field: str
) -> None:
    body = "{}" if payload is None else f'{{"payload":{payload}}}'
    assert_refused(post(one_listener, body), 400, None, field)
    assert one_listener.is_alive()


def test_defect_03_missing_context_of_put(one_listener: DaemonProcess) -> None:
    reply = one_listener.request("PUT", "/api/v1/cmd", '{"payload":{"action":"run","meta":{}}}')
    assert_refused(reply, 400, None, "context")
    assert one_listener.is_alive()


@pytest.mark.parametrize("path", ["/api/v1/cmd", "/api/v1/nosuchjob"])
def test_defect_04_get_of_an_unknown_job(one_listener: DaemonProcess, path: str) -> None:
    reply = one_listener.request("GET", path)
    assert_refused(reply, 404, "UnknownJob")
    assert reply.json()["GET"] is False
    assert one_listener.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("is_token_needed", [False, True])
def test_defect_05_bytes_that_are_no_request(
    new_daemon: NewDaemon, tmp_path: Path, is_token_needed: bool
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("open-sesame\n")
    tokens.chmod(0o600)
    flags = ["--enableTokenAuth", "--tokenPath", str(tokens)] if is_token_needed else []
    daemon = new_daemon("--listeners", "1", *flags)
    for raw in (b"x", b"hello\r\n", TLS_CLIENT_HELLO, b"\xff\xfe", b"\0" * 100):
        send_and_hang_up(daemon, raw)
    bad_text = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n\xff\xfe"
    with daemon.connect() as connection:
        connection.send(bad_text)
        assert connection.read_reply().status == (401 if is_token_needed else 400)
    headers = {"Authorization": "Bearer open-sesame"}
    assert daemon.post("hello", headers, askAbout="timestamp").json()["status"] is True


def test_defect_06_bad_requests_leave_no_holes_in_the_rotation(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--listeners", "12")
    for bad in (1, 12):
        for _ in range(bad):
            assert_refused(post(daemon, '{"payload":{}'))
        assert all(daemon.is_alive() for _ in range(8))


@pytest.mark.parametrize("size", [9000, 300_000])
def test_defect_07_large_request(one_listener: DaemonProcess, size: int) -> None:
    reply = one_listener.post("hello", askAbout="echoBack", echoBack="a" * size)
    assert reply.status == 200
    assert reply.json()["d_ret"]["echoBack"]["msg"] == "a" * size
    assert one_listener.is_alive()


def test_defect_08_request_in_two_segments(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--listeners", "1")
    with daemon.connect() as connection:
        connection.send(b"POST / HTTP/1.1\r\nContent-Length: 62\r\n\r\n")
        assert daemon.is_alive()  # by now the first segment has been looked at
        connection.send(HELLO.encode())
        reply = connection.read_reply()
    assert reply.status == 200
    assert reply.json()["status"] is True
    assert reply.json()["d_ret"]["name"] == "pman"


@pytest.mark.parametrize("layout", [json.dumps(json.loads(HELLO), indent=2), HELLO + "\n"])
def test_defect_09_json_in_any_layout(one_listener: DaemonProcess, layout: str) -> None:
    reply = post(one_listener, layout)
    assert reply.status == 200
    assert reply.json()["d_ret"]["name"] == "pman"
    assert reply.json()["client_json_payload"] == layout
    assert_refused(post(one_listener, '{\n"payload":{}}'), 400, None, "action")


def test_defect_10_pipelining_chunks_and_continue(one_listener: DaemonProcess) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    whole = head + b"Content-Length: 62\r\n\r\n" + HELLO.encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n3e\r\n" + HELLO.encode() + b"\r\n0\r\n\r\n"
    with one_listener.connect() as connection:
        connection.send(whole + chunked + whole)
        assert [connection.read_reply().json()["status"] for _ in range(3)] == [True] * 3
        connection.send(head + b"Content-Length: 62\r\nExpect: 100-continue\r\n\r\n")
        assert connection._until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(HELLO.encode())
        assert connection.read_reply().json()["status"] is True


@pytest.mark.slow
def test_defect_10_connections_end(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--headerTimeout", "0.5", "--idleTimeout", "0.5")
    daemon.run("true", "first")  # by its end all that the daemon opens for itself is open
    daemon.wait_finished("first")
    descriptors = open_descriptors(daemon.pid)
    connections = [daemon.connect() for _ in range(20)]
    for connection in connections[:10]:
        connection.send(b"POST / HTTP/1.1\r\n")
    for connection in connections[:10]:
        assert_refused(connection.read_reply(), 408)
    for connection in connections:
        assert connection.is_closed_by_peer()
        connection.socket.close()
    wait_until(
        lambda: open_descriptors(daemon.pid) <= descriptors, "the descriptors are free again"
    )
    assert daemon.is_alive()


@pytest.mark.slow
def test_defect_15_waiting_for_a_job_holds_no_listener(new_daemon: NewDaemon, gate: Gate) -> None:
    daemon = new_daemon("--listeners", "1")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(daemon.run, gate.passage, "s", threaded=False)
        wait_until(lambda: daemon.words("s") == ["started"], "the job runs")
        assert daemon.is_alive()
        assert not waiting.done()
        gate.open()
        assert waiting.result(DEADLINE_S).json()["status"] is True


@pytest.mark.slow
def test_defect_16_port_in_use_ends_the_second_daemon(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    database = str(tmp_path / "other")
    second = run_pman("--ip", "127.0.0.1", "--port", str(daemon.port), "--DBpath", database)
    assert second.returncode == 1
    (line,) = second.stderr.strip().splitlines()
    assert f"127.0.0.1:{daemon.port}" in line
    assert daemon.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "shown", "code"),
    [
        (("--ip", "192.0.2.1", "--port", "5010"), "192.0.2.1", 1),  # TEST-NET-1, RFC 5737
        (("--ip", "no such address", "--port", "5010"), "no such address", 1),
        (("--port", "99999"), "99999", 2),
        (("--port", "none"), "none", 2),
    ],
)
def test_defect_16_bad_address_ends_the_daemon(
    tmp_path: Path, flags: tuple[str, ...], shown: str, code: int
) -> None:
    ended = run_pman(*flags, "--DBpath", str(tmp_path / "db"))
    assert ended.returncode in (code, 2)
    assert shown in ended.stderr.strip().splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("bad", ['{"payload":{}}', '{"action":"nosuch","meta":{}}', "[]", "{"])
def test_defect_17_bad_directive_is_set_aside(
    shared_daemon: DaemonProcess, tmp_path: Path, bad: str
) -> None:
    path = drop_directive(shared_daemon, bad)
    wait_until(lambda: list(path.parent.glob("d_msg.json*.rejected")), "it is set aside")
    mark = tmp_path / "carried-out"
    run = {"cmd": f"touch {mark}", "auid": "t", "jid": "directive"}
    drop_directive(shared_daemon, json.dumps({"action": "run", "meta": run}))
    wait_until(mark.exists, "the next directive is carried out")
    wait_until(lambda: not path.exists(), "its file is gone")
    for rejected in path.parent.glob("d_msg.json*.rejected"):
        rejected.unlink()


@pytest.mark.slow
def test_defect_18_jobs_that_arrive_during_a_save(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--DBsavePeriod", "1")
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda n: daemon.run("true", f"x{n}"), range(200)))
    assert all(reply.json()["status"] for reply in replies)
    for n in range(200):
        assert daemon.wait_finished(f"x{n}") == ["finishedSuccessfully"]
    names = set(daemon.request("GET", "/api/v1/").json()["GET"])
    assert len(names) == 200
    wait_until(
        lambda: {path.stem for path in (daemon.db_path / "jobs").glob("*/*.json")} == names,
        "every job is in the snapshot",
    )
    assert "Traceback" not in daemon.log_text()


@pytest.mark.slow
def test_defect_19_quit_while_a_job_runs(daemon: DaemonProcess, gate: Gate, tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    daemon.run(f"{gate.passage} && touch {mark}", "q")
    wait_until(lambda: daemon.words("q") == ["started"], "the job runs")
    assert daemon.post("quit").json()["status"] is True
    assert daemon.process is not None
    assert daemon.process.wait(5) == 0
    gate.open()
    wait_until(mark.exists, "the job has run on to its end")


def in_empty_network(*command: str) -> list[str]:
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("unshare -n is not permitted here")
    return ["unshare", "-n", *command]


def test_defect_20_version_without_network_and_home(new_daemon: NewDaemon) -> None:
    version = [sys.executable, "-m", "pman", "--version"]
    homeless = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_STATE_HOME")}
    for command in (version, in_empty_network(*version)):
        ended = subprocess.run(
            command, env=homeless, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert pman.__version__ in ended.stdout


@pytest.mark.slow
def test_defect_20_daemon_without_network(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(is_started=False)
    daemon.command = in_empty_network(*daemon.command)
    daemon.start()  # waits until it listens
    assert daemon.stop() == 0


@pytest.mark.slow
def test_defect_21_idle_daemon_burns_no_cpu(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--listenerSleep", "0", "--DBsavePeriod", "0")
    assert daemon.is_alive()
    before = cpu_ticks(daemon.pid)
    time.sleep(2)  # what is measured is what happens while nothing happens
    used = (cpu_ticks(daemon.pid) - before) / os.sysconf("SC_CLK_TCK")
    assert used < 0.1 * 2, f"{used} s of CPU in 2 s"
    mark = daemon.folder / "carried-out"
    run = {"cmd": f"touch {mark}", "auid": "t", "jid": "directive"}
    drop_directive(daemon, json.dumps({"action": "run", "meta": run}))
    wait_until(mark.exists, "directives are read")


@pytest.mark.slow
def test_defect_22_large_output_stays_out_of_memory(daemon: DaemonProcess) -> None:
    daemon.run("head -c 30000000 /dev/zero | tr '\\0' a", "big")
    assert daemon.wait_finished("big") == ["finishedSuccessfully"]
    for action in ("status", "info", "done"):
        assert len(daemon.post(action, key="jid", value="big").body) < 10_000
    search = {"key": "jid", "value": "big", "job": "0", "field": "stdout"}
    reply = daemon.post("search", **search)
    assert len(reply.body) < 1.5 * 1024 * 1024
    assert "bytes before this are not shown" in reply.body.decode()
    (name,) = daemon.request("GET", "/api/v1/").json()["GET"]
    assert len(daemon.request("GET", f"/api/v1/{name}").body) < 8 * 1024 * 1024
    daemon.post("DBctl", do="save")
    assert memory_bytes(daemon.pid) < 150_000_000
    on_disk = sum(p.stat().st_size for p in (daemon.db_path / "output").rglob("*.stdout"))
    assert on_disk == 30_000_000


def test_a_connection_that_is_refused_says_so() -> None:
    """`Connection` must not hide that nobody listens: every test above relies on it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            Connection(free.getsockname())
