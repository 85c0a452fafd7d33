"""Containers of one engine, ended at the same time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pman.backends._swarm import stopping
from pman.backends._swarm.problems import Missing, Refused
from pman.backends._swarm.stopping import signal_here, stop_here
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


def test_what_goes_wrong_with_one_is_raised_after_the_others() -> None:
    containers = Containers(3)
    containers.errors["/containers/c1/stop"] = BackendUnavailable("no answer")
    containers.errors["/containers/c2/stop"] = Missing(404, "no such container")
    with pytest.raises(BackendUnavailable, match="no answer"):
        containers.stop(3)
    assert len(containers.told) == 3
