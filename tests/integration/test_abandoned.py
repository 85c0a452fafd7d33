"""Clients that wait for something and leave: nothing of them stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from action_harness import Harness, harness
from daemon_process import wait_until
from front_harness import Daemon, post
from jobdb_builders import make_job

COUNT = 20


@pytest.fixture
def pman(tmp_path: Path) -> Iterator[Harness]:
    with harness(tmp_path) as made:
        yield made


def wait_request(size: int) -> bytes:
    meta = {"jid": "a", "timeout": 3600, "service": "x" * size}
    return post(json.dumps({"payload": {"action": "wait", "meta": meta}}).encode())


def waiters(pman: Harness) -> int:
    return sum(map(len, pman.store._waiters.values()))


def test_clients_that_leave_are_waited_for_no_longer(pman: Harness) -> None:
    pman.store.submit(make_job("a"), timeout_s=10)
    raw = wait_request(1_000_000)
    with Daemon(pman.dispatcher) as daemon:
        wires = [daemon.connect() for _ in range(COUNT)]
        for wire in wires:
            wire.send(raw)
        wait_until(lambda: waiters(pman) == COUNT, "all wait")
        clients = daemon.front._clients
        assert clients.buffered_bytes > COUNT * 1_000_000, "what they sent is charged"
        for wire in wires:
            wire.sock.close()
        wait_until(lambda: waiters(pman) == 0, "none is waited for")
        wait_until(lambda: not clients.buffered_bytes, "nothing is charged")
        assert not len(daemon.front.exchange)


def test_what_was_asked_for_behind_a_wait_is_carried_out(pman: Harness) -> None:
    pman.store.submit(make_job("a"), timeout_s=10)
    run = {"cmd": "true", "auid": "t", "jid": "b", "threaded": True}
    behind = post(json.dumps({"payload": {"action": "run", "meta": run}}).encode())
    with Daemon(pman.dispatcher) as daemon:
        with daemon.connect() as wire:
            wire.send(wait_request(10) + behind)
            wait_until(lambda: waiters(pman) == 1, "it waits")
            assert not pman.store.find("jid", "b")
        wait_until(lambda: bool(pman.store.find("jid", "b")), "the job is there")
        assert waiters(pman) <= 1, "that of the queue, if any"


def test_an_answer_takes_back_what_was_charged(pman: Harness) -> None:
    job = make_job("a")
    pman.store.submit(job, timeout_s=10)
    with Daemon(pman.dispatcher) as daemon, daemon.connect() as wire:
        wire.send(wait_request(500_000))
        wait_until(lambda: waiters(pman) == 1, "it waits")
        pman.store.remove([job.name])
        reply = json.loads(wire.reply().body)
        assert len(reply["meta"]["service"]) == 500_000
        assert not daemon.front._clients.buffered_bytes
        wire.send(post(b"{}"))
        assert wire.reply().status == 400
