"""`kill -9` while clients wait for jobs: they ask again, and are told of each end."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import DEADLINE_S, DaemonProcess
from gate import Gate

pytestmark = pytest.mark.slow


def wait_for(
    daemon: DaemonProcess, is_there: threading.Event, jid: str, told: dict[str, Any]
) -> None:
    """Wait for a job as a client does that nothing can stop; keep what it is told."""
    while jid not in told:
        try:
            reply = daemon.post("wait", jid=jid, timeout=60)
        except OSError:  # the daemon has gone
            assert is_there.wait(DEADLINE_S)
            continue
        if reply.status == 200 and reply.json()["d_ret"]["isDone"]:
            (told[jid],) = reply.json()["d_ret"]["jobs"]


def test_who_waits_when_pman_is_killed_asks_again_and_is_told(
    new_daemon: NewDaemon, gate: Gate
) -> None:
    daemon = new_daemon()
    jids = [f"job-{n}" for n in range(10)]
    for n, jid in enumerate(jids):
        daemon.run(f"{gate.passage} && exit {n}", jid)
    told: dict[str, Any] = {}
    is_there = threading.Event()
    is_there.set()
    clients = [
        threading.Thread(target=wait_for, args=(daemon, is_there, jid, told)) for jid in jids
    ]
    for client in clients:
        client.start()
    for _ in range(3):
        assert daemon.is_alive()
        is_there.clear()
        daemon.kill()
        gate.open(2)  # they end while nobody is there
        daemon.start()
        is_there.set()
    gate.open(4)
    for client in clients:
        client.join(DEADLINE_S)
    assert {jid: told[jid]["exitCode"] for jid in jids} == {jid: n for n, jid in enumerate(jids)}
