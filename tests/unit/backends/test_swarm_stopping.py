"""Containers of one engine, ended at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from daemon_process import wait_until

from pman.backends._engine.wish import Wish
from pman.backends._swarm import stopping
from pman.backends._swarm.problems import Missing, Refused
from pman.backends._swarm.stopping import heeding, signal_here, stop_here
from pman.errors import BackendUnavailable

DEADLINE_S = 30.0


class Containers:
    """A client whose containers end once all of them have been told to, or a number of them."""

    def __init__(self, at_once: int) -> None:
        self.told: list[str] = []
        self.threads: list[threading.Thread] = []
        self.barrier = threading.Barrier(at_once)
        self.errors: dict[str, Exception] = {}

    def post(self, path: str, params: Any, timeout_s: float) -> None:
        self.told.append(path)
        self.threads.append(threading.current_thread())
        self.barrier.wait(DEADLINE_S)
        if path in self.errors:
            raise self.errors[path]

    def stop(self, count: int) -> None:
        tasks = [{"Status": {"ContainerStatus": {"ContainerID": f"c{n}"}}} for n in range(count)]
        client: Any = self
        stop_here(client, tasks, lambda: True, 1.0)


def test_all_are_told_at_the_same_time_and_no_thread_holds_up_the_end_of_the_program() -> None:
    containers = Containers(20)
    containers.stop(20)
    assert sorted(containers.told) == sorted(f"/containers/c{n}/stop" for n in range(20))
    others = set(containers.threads) - {threading.current_thread()}
    assert len(others) == 19
    assert all(thread.daemon for thread in others)


def test_where_no_thread_is_free_they_are_told_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_free_threads", threading.BoundedSemaphore(1))
    containers = Containers(2)
    containers.stop(6)
    assert len(containers.told) == 6
    assert len(set(containers.threads)) == 2
    assert stopping._free_threads.acquire(blocking=False)


def test_a_signal_is_sent_to_all_that_still_run() -> None:
    sent: list[tuple[str, Any]] = []
    errors = {"c1": Missing(404, "gone"), "c2": Refused(409, "is not running")}

    class Client:
        def post(self, path: str, params: Any) -> None:
            sent.append((path, params["signal"]))
            if (error := errors.get(path.split("/")[2])) is not None:
                raise error

    tasks = [{"Status": {"ContainerStatus": {"ContainerID": f"c{n}"}}} for n in range(3)]
    client: Any = Client()
    signal_here(client, tasks, 2)
    assert sorted(sent) == [(f"/containers/c{n}/kill", 2) for n in range(3)]
    errors["c0"] = Refused(400, "invalid signal")
    with pytest.raises(Refused):
        signal_here(client, tasks, 99)


class Deaf:
    """A client whose containers end only when they are killed.

    Attributes:
        sent: Each call: the last word of its path, and what it asks for.
        fault: What the next call raises.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.fault: Exception | None = None
        self.is_stopping = threading.Event()
        self.is_killed = threading.Event()
        self.changed = threading.Condition()

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/containers/c/json"
        return {"Config": {"StopSignal": "SIGQUIT"}}

    def post(self, path: str, params: Any, timeout_s: float = 0.0) -> None:
        word = path.rpartition("/")[2]
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        with self.changed:
            self.sent.append((word, params.get("signal", params.get("t"))))
            self.changed.notify_all()
        if params.get("signal") == 9:
            self.is_killed.set()
        if word == "stop":
            self.is_stopping.set()
            assert self.is_killed.wait(min(timeout_s, DEADLINE_S))

    def wait_sent(self, *calls: Any) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.sent == list(calls), DEADLINE_S), self.sent


@pytest.fixture
def stopping_deaf() -> Iterator[tuple[Deaf, Wish]]:
    """A container that is being stopped and has an hour; it has ended afterwards."""
    client, wish = Deaf(), Wish(3600.0)
    any_client: Any = client
    tasks = [{"Status": {"ContainerStatus": {"ContainerID": "c"}}}]

    def stop() -> None:
        with heeding(any_client, tasks, wish):
            stop_here(any_client, tasks, client.is_killed.is_set, wish.left_s())

    thread = threading.Thread(target=stop)
    thread.start()
    assert client.is_stopping.wait(DEADLINE_S)
    yield client, wish
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_a_shorter_grace_counts_while_containers_are_stopped(
    stopping_deaf: tuple[Deaf, Wish],
) -> None:
    client, wish = stopping_deaf
    wish.add(7200.0)  # no more than what is known
    wish.add(0.0)
    client.wait_sent(("stop", 3600), ("kill", 9))


def test_another_signal_is_sent_while_containers_are_stopped(
    stopping_deaf: tuple[Deaf, Wish],
) -> None:
    client, wish = stopping_deaf
    wish.add(3600.0, 2)
    client.wait_sent(("stop", 3600), ("kill", 2))
    wish.add(3600.0)  # the image's own
    client.wait_sent(("stop", 3600), ("kill", 2), ("kill", "SIGQUIT"))
    threads = [each for each in threading.enumerate() if each.name == "swarm-further"]
    assert len(threads) == 1
    wish.add(0.0)
    client.wait_sent(("stop", 3600), ("kill", 2), ("kill", "SIGQUIT"), ("kill", 9))


def test_who_could_not_be_hurried_is_waited_for(
    stopping_deaf: tuple[Deaf, Wish], caplog: pytest.LogCaptureFixture
) -> None:
    client, wish = stopping_deaf
    client.fault = BackendUnavailable("no answer")
    wish.add(3600.0, 2)
    wait_until(lambda: "can't be ended sooner: no answer" in caplog.text, "the warning")
    assert not client.is_killed.is_set()
    wish.add(0.0, 2)
    client.wait_sent(("stop", 3600), ("kill", 9))


def test_what_goes_wrong_with_one_is_raised_after_the_others() -> None:
    containers = Containers(3)
    containers.errors["/containers/c1/stop"] = BackendUnavailable("no answer")
    containers.errors["/containers/c2/stop"] = Missing(404, "no such container")
    with pytest.raises(BackendUnavailable, match="no answer"):
        containers.stop(3)
    assert len(containers.told) == 3
