"""How the daemon ends: in time, with everything written, and without its jobs."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from daemon_process import DEADLINE_S, DaemonProcess, wait_until
from gate import Gate
from leftovers import shepherds
from probes import job_names, output_of

pytestmark = pytest.mark.slow

#: How long an orderly end may take, seconds. Source: ARCHITECTURE, row 13.4.
END_TIMEOUT_S = 5.0


def ask_for_the_end(daemon: DaemonProcess, how: str) -> None:
    if how.startswith("SIG"):
        os.kill(daemon.pid, getattr(signal, how))
        return
    reply = daemon.post("quit", **({"saveDB": True} if "saveDB" in how else {}))
    assert reply.json()["status"] is True
    assert reply.json()["d_ret"] == {}


def exit_status(daemon: DaemonProcess, timeout_s: float = END_TIMEOUT_S) -> int:
    assert daemon.process is not None
    return daemon.process.wait(timeout_s)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "quit", "quit saveDB"])
def test_orderly_end(daemon: DaemonProcess, how: str) -> None:
    daemon.run("true", "e")
    daemon.wait_finished("e")
    (name,) = job_names(daemon)
    idle = daemon.connect()  # a client that says nothing holds nobody up
    ask_for_the_end(daemon, how)
    assert exit_status(daemon) == 0
    assert idle.is_closed_by_peer()
    with pytest.raises(ConnectionRefusedError):
        daemon.connect()
    (snapshot,) = (daemon.db_path / "jobs").glob("*/*.json")
    assert snapshot.stem == name
    assert json.loads(snapshot.read_text())
    assert "Traceback" not in daemon.log_text()
    daemon.start()  # and nothing is in the way of the next one
    assert job_names(daemon) == [name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once(
    daemon: DaemonProcess, gate: Gate, number: signal.Signals
) -> None:
    daemon.run(gate.passage, "w")
    os.kill(daemon.pid, number)
    os.kill(daemon.pid, number)
    exit_status(daemon)
    gate.open()
    daemon.start()
    assert daemon.wait_finished("w") == ["finishedSuccessfully"]


def test_end_leaves_running_jobs_alone(daemon: DaemonProcess, gate: Gate) -> None:
    daemon.run(f"echo before && {gate.passage} && echo after && exit 7", "r")
    wait_until(lambda: daemon.words("r") == ["started"], "the job runs")
    (shepherd,) = shepherds(daemon.db_path)
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.words("r") == ["started"]
    # One that is started in vain, because the other lives, is there for a moment.
    wait_until(lambda: shepherds(daemon.db_path) == [shepherd], "the shepherd is the same")
    gate.open()
    assert daemon.wait_finished("r") == ["finishedWithError"]
    assert daemon.status("r")["0.end"]["returncode"] == [7]
    assert output_of(daemon, "r") == "before\nafter\n"


def test_compound_job_goes_on_without_a_daemon(daemon: DaemonProcess, gate: Gate) -> None:
    daemon.run(f"echo one; {gate.passage} && echo two; echo three && exit 4", "c")
    wait_until(lambda: daemon.status("c")["0.end"]["returncode"] == [0], "the first part has ended")
    daemon.kill()
    gate.open()
    daemon.start()
    assert daemon.wait_finished("c") == ["finishedWithError"]
    assert daemon.status("c")["0.end"]["returncode"] == [0, 0, 4]
    assert [output_of(daemon, "c", part) for part in range(3)] == ["one\n", "two\n", "three\n"]


def test_client_that_waits_for_a_job_is_not_left_waiting(daemon: DaemonProcess, gate: Gate) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(daemon.run, gate.passage, "n", threaded=False)
        wait_until(lambda: daemon.words("n") == ["started"], "the job runs")
        ask_for_the_end(daemon, "SIGTERM")
        assert exit_status(daemon) == 0
        try:
            reply = waiting.result(DEADLINE_S)
        except OSError:
            pass  # closed: as good an answer
        else:
            assert reply.status == 503
            assert reply.json()["status"] is False
    gate.open()
    daemon.start()
    assert daemon.wait_finished("n") == ["finishedSuccessfully"]


def test_shepherd_without_daemon_and_jobs_ends(daemon: DaemonProcess) -> None:
    daemon.run("true", "s")
    daemon.wait_finished("s")
    assert len(shepherds(daemon.db_path)) == 1
    assert daemon.stop() == 0
    wait_until(lambda: not shepherds(daemon.db_path), "the shepherd has ended")


def test_who_waits_for_a_job_is_told_how_far_it_is(daemon: DaemonProcess, gate: Gate) -> None:
    daemon.run(gate.passage, "lasts")
    body = b'{"payload": {"action": "wait", "meta": {"jid": "lasts", "timeout": 600}}}'
    with daemon.connect() as waiting:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        waiting.send(head.encode() + body)
        assert daemon.is_alive()
        assert daemon.stop() == 0
        reply = waiting.read_reply()
    assert (reply.status, reply.json()["d_ret"]["isDone"]) == (200, False)
    gate.open()
