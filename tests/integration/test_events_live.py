"""The log of events of the real daemon: killed at random, resumed, waited for."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until

pytestmark = pytest.mark.slow

ORDER = ["NEW", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELED", "LOST"]


def ask(daemon: DaemonProcess, **meta: Any) -> dict[str, Any]:
    reply = daemon.post("events", **meta).json()
    assert reply["status"] is True, reply
    d_ret: dict[str, Any] = reply["d_ret"]
    return d_ret


def read_all(daemon: DaemonProcess, since: int = 0) -> list[dict[str, Any]]:
    """Return all events behind a number, page by page."""
    found = []
    while page := ask(daemon, since=since, limit=50)["events"]:
        found += page
        since = page[-1]["seq"]
    return found


class Follower(threading.Thread):
    """Reads events with a long poll, and goes on from the last one when the daemon is back."""

    def __init__(self, daemon: DaemonProcess) -> None:
        super().__init__(daemon=True)
        self.seen: list[dict[str, Any]] = []
        self.gaps = 0
        self.since = 0
        self.is_over = threading.Event()
        self._pman = daemon

    def run(self) -> None:
        while not self.is_over.is_set():
            with contextlib.suppress(OSError):
                page = ask(self._pman, since=self.since, wait=1, limit=20)
                self.seen += page["events"]
                self.gaps += page["gap"]
                self.since = page["next"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_daemon_misses_nothing_and_tells_nothing_twice(
    new_daemon: NewDaemon, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    daemon = new_daemon()
    follower = Follower(daemon)
    follower.start()
    acknowledged = []
    for kill in range(4):
        with contextlib.suppress(OSError):
            killer = threading.Timer(chance.uniform(0.1, 0.6), daemon.kill)
            killer.start()
            for n in range(200):
                jid = f"{kill}-{n}"
                if daemon.run("true", jid).json()["status"]:
                    acknowledged.append(jid)
        killer.join()
        daemon.start()
    for jid in acknowledged:
        daemon.wait_finished(jid)
    everything = wait_until(lambda: all_are_final(daemon), "all ends are told")
    wait_until(lambda: follower.since >= everything[-1]["seq"], "the follower has all")
    follower.is_over.set()
    follower.join()
    assert follower.gaps == 0
    assert follower.seen == everything
    seqs = [event["seq"] for event in everything]
    assert seqs == sorted(set(seqs))
    assert set(acknowledged) <= {event["jid"] for event in everything}
    by_job: dict[str, list[str]] = {}
    for event in everything:
        by_job.setdefault(event["job"], []).append(event["state"])
    for states in by_job.values():
        assert (states[0], states[-1]) == ("NEW", "COMPLETED")
        assert states == sorted(set(states), key=ORDER.index)


def all_are_final(daemon: DaemonProcess) -> list[dict[str, Any]] | None:
    """Return all events, once those are there of the ends of all jobs."""
    events = read_all(daemon)
    ended = {event["job"] for event in events if event["state"] == "COMPLETED"}
    return events if ended == {event["job"] for event in events} else None


def test_wait_wakes_soon_and_holds_no_listener(daemon: DaemonProcess) -> None:
    since = ask(daemon)["next"]
    answers: list[tuple[float, dict[str, Any]]] = []

    def wait(jid: str) -> None:
        page = ask(daemon, since=since, jid=jid, state=["COMPLETED"], wait=60)
        answers.append((time.time(), page))

    threads = [threading.Thread(target=wait, args=(f"j{n}",)) for n in range(20)]
    for thread in threads:
        thread.start()
    for n in range(20):
        daemon.run("true", f"j{n}")  # though there are more who wait than listeners
    for thread in threads:
        thread.join(30)
    assert sorted(page["events"][0]["jid"] for _, page in answers) == sorted(
        f"j{n}" for n in range(20)
    )
    late = sorted(at - page["events"][0]["at"] for at, page in answers)
    assert late[len(late) // 2] < 0.5


def test_stop_lets_go_of_who_waits(daemon: DaemonProcess) -> None:
    answers: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(ask(daemon, wait=300)))
    thread.start()
    time.sleep(0.2)  # most likely it waits by now; if not, it is refused a connection below
    began = time.monotonic()
    assert daemon.stop() == 0
    thread.join(30)
    assert time.monotonic() - began < 3
    assert answers[0]["events"] == []


def test_delete_and_clear_are_told(daemon: DaemonProcess) -> None:
    for jid in ("a", "b"):
        daemon.run("true", jid)
        daemon.wait_finished(jid)
    daemon.post("delete", value="a")
    daemon.post("DBctl", do="clear")
    events = ask(daemon, fromStart=True, kind="deleted")["events"]
    assert [event["jid"] for event in events] == ["a", "b"]


def test_rebuilt_job_db_goes_on_above_all_numbers(daemon: DaemonProcess) -> None:
    daemon.run("true", "a")
    daemon.wait_finished("a")
    before = wait_until(lambda: all_are_final(daemon), "the end is told")
    daemon.stop()
    for path in daemon.db_path.glob("pman.db*"):
        path.write_bytes(b"noise" * 1000)
    daemon.start()
    daemon.run("true", "b")
    page = ask(daemon, since=before[-1]["seq"], wait=30)
    assert page["gap"] is True
    assert page["events"][0]["jid"] == "b"
    assert page["events"][0]["seq"] > before[-1]["seq"]
