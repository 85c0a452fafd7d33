"""Health, metrics, JSON log, drain and service manager, with the real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import DEADLINE_S, DaemonProcess, wait_until
from gate import Gate
from prometheus_client.parser import text_string_to_metric_families as parse

pytestmark = pytest.mark.slow

#: More than any test takes, so that what ends before was ended.
LONG_DRAIN_S = "300"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(daemon: DaemonProcess) -> Samples:
    reply = daemon.request("GET", "/metrics")
    assert reply.status == 200
    assert str(reply.header("content-type")).startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(reply.body.decode())
        for sample in family.samples
    }


def engine_errors(found: Samples, backend: str, call: str, reason: str) -> float:
    labels = (("backend", backend), ("call", call), ("reason", reason))
    return found["pman_engine_errors_total", labels]


def json_lines(daemon: DaemonProcess, logger: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in daemon.log_text().splitlines()]
    return [line for line in lines if line["logger"] == logger]


def exit_status(daemon: DaemonProcess) -> int:
    assert daemon.process is not None
    return daemon.process.wait(DEADLINE_S)


# --- metrics --------------------------------------------------------------------------------


def test_numbers_are_those_of_what_was_done(daemon: DaemonProcess, gate: Gate) -> None:
    for n in range(3):
        daemon.run("true", f"secret-jid-{n}", auid="secret-auid")
    daemon.run("exit 3", "secret-jid-bad")
    daemon.run(gate.passage, "secret-jid-runs")
    for jid in ("0", "1", "2", "bad"):
        daemon.wait_finished(f"secret-jid-{jid}")
    wait_until(lambda: daemon.words("secret-jid-runs") == ["started"], "the job runs")
    before = scrape(daemon)
    with daemon.connect():
        for _ in range(5):
            assert daemon.is_alive()
        daemon.post("no-such-action")
        daemon.request("GET", "/api/v1/nobody")
        with daemon.connect() as garbage:
            garbage.send(b"garbage\r\n\r\n")
            assert garbage.read_reply().status == 400
        after = scrape(daemon)

    def rise(name: str, **labels: str) -> float:
        key = name, tuple(sorted(labels.items()))
        return after[key] - before.get(key, 0)

    requests = "pman_requests_total"
    assert rise(requests, action="hello", method="POST", status="200") == 5
    assert rise(requests, action="other", method="POST", status="400") == 1
    assert rise(requests, action="get", method="GET", status="404") == 1
    assert rise(requests, action="metrics", method="GET", status="200") == 1
    assert rise("pman_request_duration_seconds_count", action="hello") == 5
    assert rise("pman_connections_accepted_total") == 10
    assert after["pman_connections", ()] >= 2
    assert after["pman_clients_dropped_total", ()] == 0
    host = ("backend", "host")
    assert after["pman_jobs_accepted_total", (host,)] == 5
    assert after["pman_jobs_ended_total", (host, ("reason", "ok"))] == 3
    assert after["pman_jobs_ended_total", (host, ("reason", "error"))] == 1
    assert after["pman_jobs", (host, ("state", "COMPLETED"))] == 3
    assert after["pman_jobs", (host, ("state", "RUNNING"))] == 1
    assert after["pman_backend_up", (host,)] == 1
    assert after["pman_db_commit_changes_sum", ()] >= 5 + 4
    assert after["pman_db_commit_duration_seconds_count", ()] > 0
    assert after["process_resident_memory_bytes", ()] > 0
    assert not any("secret" in str(key) for key in after)
    gate.open()


def test_a_dropped_and_a_refused_client_are_counted(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--maxConnections", "2", "--maxUnread", "64KiB")
    with daemon.connect() as greedy:
        asked = b"GET /api/v1/ HTTP/1.1\r\n\r\n" * 20_000  # and reads nothing
        with contextlib.suppress(ConnectionError):  # which is how it learns of it
            for _ in range(100):
                greedy.send(asked)
    wait_until(lambda: scrape(daemon)["pman_clients_dropped_total", ()] == 1, "it was dropped")
    with daemon.connect(), daemon.connect(), daemon.connect() as third:
        assert third.read_reply().status == 503
    wait_until(
        lambda: daemon.request("GET", "/healthz").status == 200, "there is room for one again"
    )
    assert scrape(daemon)["pman_connections_refused_total", ()] >= 1


def test_an_engine_that_is_not_there_is_counted_by_call_and_reason(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/no-socket"}
    daemon = new_daemon(container_env="swarm", environment=environment)
    wait_until(
        lambda: engine_errors(scrape(daemon), "swarm", "connect", "unavailable") >= 2,
        "it was tried twice",
    )
    container = {"target": {"image": "some/image"}, "manager": {"env": {}}}
    assert daemon.run("true", "secret-jid", container=container).status == 503
    assert daemon.run("true", "here").status == 200
    found = scrape(daemon)
    errors = {key[1]: count for key, count in found.items() if key[0] == "pman_engine_errors_total"}
    failed = {dict(labels)["call"] for labels, count in errors.items() if count}
    assert failed == {"connect"}  # nothing else was asked of it
    assert found["pman_backend_outages_total", (("backend", "swarm"),)] == 1
    assert not any("secret" in str(key) for key in found)


# --- ready ----------------------------------------------------------------------------------


def test_not_ready_without_a_shepherd(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(is_started=False)
    folder = daemon.db_path / "backends" / "host"
    folder.mkdir(parents=True)
    for part in (daemon.db_path, daemon.db_path / "backends", folder):
        part.chmod(0o700)
    (folder / "jobs").mkdir()
    (folder / "jobs").chmod(0o777)
    daemon.start()
    reply = wait_until(
        lambda: (got := daemon.request("GET", "/readyz")).status == 503 and got, "it is not ready"
    )
    assert "others may write" in reply.json()["backends"]["host"]
    assert reply.json()["draining"] is False
    assert daemon.request("GET", "/healthz").status == 200
    found = scrape(daemon)
    assert found["pman_backend_up", (("backend", "host"),)] == 0
    assert found["pman_backend_outages_total", (("backend", "host"),)] == 1
    assert engine_errors(found, "host", "connect", "unavailable") >= 1
    assert engine_errors(found, "host", "submit", "refused") == 0
    (folder / "jobs").chmod(0o700)
    wait_until(lambda: daemon.request("GET", "/readyz").status == 200, "it is ready")


def test_head(daemon: DaemonProcess) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        reply = daemon.request("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")
        assert int(reply.header("content-length") or 0) > 0


# --- drain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGTERM", "quit"])
def test_drain_serves_on_until_a_second_signal(new_daemon: NewDaemon, how: str) -> None:
    daemon = new_daemon("--drain", LONG_DRAIN_S)
    if how == "quit":
        assert daemon.post("quit").json()["status"] is True
    else:
        os.kill(daemon.pid, signal.SIGTERM)
    reply = wait_until(
        lambda: (got := daemon.request("GET", "/readyz")).status == 503 and got, "it drains"
    )
    assert reply.json() == {"ready": False, "backends": {"host": "ok"}, "draining": True}
    assert daemon.request("GET", "/healthz").status == 200
    assert daemon.run("true", "late").json()["status"] is True
    assert daemon.wait_finished("late") == ["finishedSuccessfully"]
    assert scrape(daemon)["pman_draining", ()] == 1
    os.kill(daemon.pid, signal.SIGTERM)
    assert exit_status(daemon) == 0
    assert "stopping; host jobs run on" in daemon.log_text()


def test_a_third_signal_ends_at_once(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--drain", LONG_DRAIN_S)
    daemon.run("true", "before")
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.wait_for_log("requests are still served")  # signals that pend are not counted
    for _ in range(2):
        os.kill(daemon.pid, signal.SIGTERM)
    exit_status(daemon)
    daemon.start()
    assert daemon.wait_finished("before") == ["finishedSuccessfully"]


def test_drain_ends_by_itself(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--drain", "0.2")
    assert daemon.stop() == 0
    assert "requests are still served for 0.2 s" in daemon.log_text()


# --- the log --------------------------------------------------------------------------------


def test_the_json_log_tells_of_requests_and_jobs(new_daemon: NewDaemon, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("very-secret-token\n")
    tokens.chmod(0o600)
    flags = ("--logFormat", "json", "--enableTokenAuth", "--tokenPath", str(tokens))
    daemon = new_daemon(*flags)
    me = {"Authorization": "Bearer very-secret-token", "X-Request-Id": "run-7"}
    reply = daemon.post("run", me, cmd="exit 3", auid="me", jid="j7")
    assert reply.header("x-request-id") == "run-7"
    daemon.request("GET", "/api/v1/very-secret-token")
    daemon.request("GET", "/healthz")
    wait_until(lambda: len(json_lines(daemon, "pman.access")) == 3, "three lines")
    run, refused, health = json_lines(daemon, "pman.access")
    assert (run["method"], run["path"], run["action"]) == ("POST", "/api/v1/cmd", "run")
    assert (run["status"], run["requestId"], run["peer"]) == (200, "run-7", "127.0.0.1")
    assert run["bytes"] == len(reply.body)
    assert run["jid"] == "j7"
    assert "jid" not in refused
    assert 0 < run["seconds"] < DEADLINE_S
    assert (refused["status"], refused["path"]) == (401, "/api/v1/***")
    assert (health["action"], health["status"]) == ("healthz", 200)
    jobs = json_lines(daemon, "pman.jobs")
    assert [line["state"] for line in jobs] == ["NEW", "RUNNING", "FAILED"]
    assert {(line["jid"], line["requestId"]) for line in jobs} == {("j7", "run-7")}
    assert {line["job"] for line in jobs} == {run["job"]}
    assert (jobs[-1]["reason"], jobs[-1]["exitCode"], jobs[-1]["attempt"]) == ("error", 3, 1)
    assert "very-secret-token" not in daemon.log_text()
    assert daemon.stop() == 0
    assert json_lines(daemon, "pman.daemon")[-1]["message"] == "stopping; host jobs run on"


def test_the_text_log_is_silent_about_them_unless_asked(new_daemon: NewDaemon) -> None:
    for verbosity, is_heard in (("1", False), ("2", True)):
        daemon = new_daemon("--verbosity", verbosity, name=f"v{verbosity}")
        daemon.run("true", "j\nk")
        daemon.wait_finished("j\nk")
        daemon.stop()
        heard = re.findall(r"\| (pman\.access|pman\.jobs) \|", daemon.log_text())
        assert bool(heard) is is_heard
        told = re.findall(
            r"POST /api/v1/cmd status: 200, .*, job \S+ \(jid 'j\\nk'\)$", daemon.log_text(), re.M
        )
        assert bool(told) is is_heard


# --- the service manager --------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(DEADLINE_S)
        yield listening


def wait_for(manager: socket.socket, line: str) -> list[str]:
    """Return the message that holds a line."""
    while line not in (lines := manager.recv(4096).decode().split("\n")):
        pass
    return lines


def test_what_systemd_is_told(
    new_daemon: NewDaemon, manager: socket.socket, tmp_path: Path
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
    daemon = new_daemon("--drain", LONG_DRAIN_S, environment=environment, is_started=False)
    daemon.launch()
    ready = wait_for(manager, "READY=1")
    daemon.port = int(daemon.wait_for_log(r"listening on \S+?:(\d+)")[1])
    assert f"STATUS=listening on tcp://127.0.0.1:{daemon.port}" in ready
    for _ in range(3):
        wait_for(manager, "WATCHDOG=1")
    daemon.run("env > seen; cat seen", "e")
    daemon.wait_finished("e")
    os.kill(daemon.pid, signal.SIGTERM)
    assert any("drain" in line for line in wait_for(manager, "STOPPING=1"))
    wait_for(manager, "WATCHDOG=1")  # while it drains, too
    os.kill(daemon.pid, signal.SIGTERM)
    assert "STATUS=stopping" in wait_for(manager, "STOPPING=1")
    assert exit_status(daemon) == 0


def test_jobs_can_not_report_for_pman(
    new_daemon: NewDaemon, manager: socket.socket, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
    daemon = new_daemon(environment=environment)
    daemon.run(f"cat /proc/$PPID/environ /proc/$$/environ > {seen}", "e")
    daemon.wait_finished("e")
    assert b"PATH=" in seen.read_bytes()
    assert b"NOTIFY_SOCKET" not in seen.read_bytes()
    assert b"WATCHDOG" not in seen.read_bytes()
