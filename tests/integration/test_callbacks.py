"""Callbacks of the real daemon: receivers that are down, hang, fail or redirect; `kill -9`."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from callback_receiver import Receiver, is_ours
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until

pytestmark = pytest.mark.slow

ALLOW = ("--callbackHosts", "127.0.0.1:*")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def run(daemon: DaemonProcess, jid: str, url: str, cmd: str = "true") -> None:
    reply = daemon.run(cmd, jid, callback=url).json()
    assert reply["status"] is True, reply


def wait_taken(receiver: Receiver, count: int) -> Counter[str]:
    """Return how often each job's end was taken, once there are `count` jobs."""

    def look() -> Counter[str] | None:
        found = Counter(each.data["jid"] for each in receiver.taken())
        return found if len(found) >= count else None

    found: Counter[str] = wait_until(look, f"the end of {count} jobs is told")
    return found


def secret(daemon: DaemonProcess) -> str:
    return (daemon.db_path / "callback.secret").read_text().strip()


def test_end_is_told_signed(new_daemon: NewDaemon, receiver: Receiver) -> None:
    daemon = new_daemon(*ALLOW)
    run(daemon, "good", receiver.url("/hook?x=1"), "echo hello")
    run(daemon, "bad", receiver.url("/hook?x=2"), "exit 3")
    wait_taken(receiver, 2)
    by_jid = {each.data["jid"]: each for each in receiver.got}
    for delivery in receiver.got:
        assert is_ours(delivery, secret(daemon))
        delivery.body += b" "
        assert not is_ours(delivery, secret(daemon))
    good, bad = by_jid["good"], by_jid["bad"]
    assert (good.path, good.headers["content-type"]) == ("/hook?x=1", "application/json")
    assert (good.data["state"], good.data["exitCode"]) == ("COMPLETED", 0)
    assert (bad.data["state"], bad.data["exitCode"]) == ("FAILED", 3)
    document = json.loads(good.body)
    assert (document["type"], document["id"]) == ("job.ended", good.headers["webhook-id"])
    events = daemon.post("events", since=0, job=good.data["id"]).json()["d_ret"]["events"]
    assert [each["seq"] for each in events if each["state"] == "COMPLETED"] == [good.data["seq"]]


def test_what_is_not_allowed_is_refused(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--callbackHosts", "example.com,127.0.0.1:81")
    for url, code in (
        ("http://127.0.0.1:80/", 403),
        ("http://169.254.169.254/latest", 403),
        ("http://example.com.evil.org/", 403),
        ("http://example.com@evil.org/", 400),
        ("ftp://example.com/", 400),
        (5, 400),
    ):
        reply = daemon.run("true", "x", callback=url)
        assert reply.status == code, (url, reply.body)
        assert reply.json()["error"]["field"] == "callback"
    assert daemon.post("status", key="jid", value="x").json()["status"] is False


def test_without_the_flag_callbacks_are_refused(daemon: DaemonProcess) -> None:
    assert daemon.run("true", "x", callback="http://127.0.0.1/").status == 403
    assert not (daemon.db_path / "callback.secret").exists()


def test_receiver_that_is_down_gets_each_end_once_over_a_kill(
    new_daemon: NewDaemon, receiver: Receiver
) -> None:
    receiver.close()
    daemon = new_daemon(*ALLOW)
    for n in range(20):
        run(daemon, f"j{n}", receiver.url())
    for n in range(20):
        daemon.wait_finished(f"j{n}")
    daemon.post("delete", value="j0")
    daemon.kill()
    daemon.start()
    for n in range(20, 30):
        run(daemon, f"j{n}", receiver.url())
    receiver.open()
    assert wait_taken(receiver, 30) == {f"j{n}": 1 for n in range(30)}
    daemon.stop()
    daemon.start()
    run(daemon, "last", receiver.url())
    assert wait_taken(receiver, 31) == {"last": 1} | {f"j{n}": 1 for n in range(30)}


@pytest.mark.parametrize("seed", [1, 2])
def test_no_end_is_lost_when_the_daemon_is_killed(
    new_daemon: NewDaemon, receiver: Receiver, seed: int
) -> None:
    """Sent again is only what was not answered, or answered at the very moment of the end."""
    chance = random.Random(seed)
    daemon = new_daemon(*ALLOW)
    failed: set[str] = set()

    def answer(path: str) -> int:
        if path in failed or chance.random() < 0.5:
            return 200
        failed.add(path)
        return 500

    receiver.answer = answer
    count = 0
    for _ in range(3):
        for _ in range(15):
            run(daemon, f"j{count}", receiver.url(f"/{count}"))
            count += 1
        time.sleep(chance.uniform(0, 0.3))
        daemon.kill()
        daemon.start()
    found = wait_taken(receiver, count)
    assert set(found) == {f"j{n}" for n in range(count)}
    ids = {(each.data["jid"], each.id) for each in receiver.got}
    assert len(ids) == count  # the id says that it is the same end
    assert sum(found.values()) <= count + 3 * 4


@pytest.mark.parametrize("code", [500, 302])
def test_receiver_that_fails_is_tried_again_and_no_redirect_is_followed(
    new_daemon: NewDaemon, receiver: Receiver, code: int
) -> None:
    codes = [code]
    receiver.answer = lambda path: codes.pop() if codes else 204
    daemon = new_daemon(*ALLOW)
    run(daemon, "a", receiver.url("/here"))
    wait_taken(receiver, 1)
    assert [each.code for each in receiver.got] == [code, 204]
    assert {each.path for each in receiver.got} == {"/here"}
    assert len({each.id for each in receiver.got}) == 1
    assert f"answered with {code}" in daemon.log_text()


def test_receiver_that_hangs_holds_up_neither_others_nor_the_stop(
    new_daemon: NewDaemon, receiver: Receiver
) -> None:
    other = Receiver()
    receiver.answer = lambda path: 0
    daemon = new_daemon(*ALLOW)
    for n in range(20):
        run(daemon, f"h{n}", receiver.url())
        run(daemon, f"o{n}", other.url())
    assert wait_taken(other, 20) == {f"o{n}": 1 for n in range(20)}
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5
    receiver.close()
    receiver.answer = lambda path: 200
    receiver.open()
    daemon.start()
    assert set(wait_taken(receiver, 20)) == {f"h{n}" for n in range(20)}
    assert len(other.got) == 20
    other.close()


def test_gone_is_tried_once(new_daemon: NewDaemon, receiver: Receiver) -> None:
    receiver.answer = lambda path: 410 if path == "/gone" else 200
    daemon = new_daemon(*ALLOW)
    run(daemon, "gone", receiver.url("/gone"))
    daemon.wait_for_log("answered with 410; given up after 1 tries")
    daemon.stop()
    daemon.start()
    assert "1 callbacks were given up and stay in the outbox" in daemon.log_text()
    run(daemon, "good", receiver.url("/good"))
    wait_taken(receiver, 1)
    assert [each.path for each in receiver.got] == ["/gone", "/good"]


def test_secret_that_others_can_read_stops_the_start(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(*ALLOW)
    daemon.stop()
    (daemon.db_path / "callback.secret").chmod(0o644)
    daemon.launch()
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    assert "mode 0644, expected 0600" in daemon.log_text()
