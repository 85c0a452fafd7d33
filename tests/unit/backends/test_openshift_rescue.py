"""Logs of pods that are about to vanish are kept, however late their node speaks of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_objects import AT, JOB_NAME, RUNNING, ended, job, pod, waiting

from pman.backends._openshift import rescue as module
from pman.backends._openshift.cache import Cache
from pman.backends._openshift.failures import answered
from pman.backends._openshift.guard import vanishing
from pman.backends._openshift.rescue import Rescue

CREATING = waiting("ContainerCreating")
MARKED = {"deletionTimestamp": AT.format(8)}


class Log:
    """A log that is being read."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def chunks(self) -> Iterator[bytes]:
        yield self._raw

    def interrupt(self) -> None:
        pass

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Server:
    """An API server whose node says a few times that the container has not started yet."""

    pods = "/pods"

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = threading.Semaphore(0)

    def stream(self, path: str, query: dict[str, Any], silence_s: float) -> Log:
        self.asked.release()
        if self.refusals:
            self.refusals -= 1
            words = 'container "kx" in pod "kx-a" is waiting to start: ContainerCreating'
            raise answered(400, words, "BadRequest", namespace="n")
        return Log(b"out\n")


@pytest.fixture
def rescue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rescue]:
    monkeypatch.setattr(module, "AGAIN_S", 0.001)
    made = Rescue(tmp_path)
    yield made
    made.keep_only(())


def read(rescue: Rescue) -> bytes | None:
    kept = rescue.read(JOB_NAME, "kx-a", "kx")
    return None if kept is None else b"".join(kept)


def test_a_container_that_is_said_to_wait_is_asked_again(rescue: Rescue) -> None:
    server: Any = Server(refusals=5)
    rescue.begin(server, JOB_NAME, "kx-a", "kx", lambda: False)
    assert read(rescue) == b"out\n"


def test_a_pod_that_has_ended_is_asked_once_more(rescue: Rescue) -> None:
    server: Any = Server(refusals=1_000_000)
    has_ended = threading.Event()
    rescue.begin(server, JOB_NAME, "kx-a", "kx", has_ended.is_set)
    for _ in range(3):
        assert server.asked.acquire(timeout=30)
    has_ended.set()
    assert read(rescue) is None


def test_a_log_that_nobody_wants_is_not_waited_for(rescue: Rescue) -> None:
    server: Any = Server(refusals=1_000_000)
    rescue.begin(server, JOB_NAME, "kx-a", "kx", lambda: False)
    assert server.asked.acquire(timeout=30)
    (thread,) = [t for t in threading.enumerate() if t.name == "openshift-log"]
    rescue.drop(JOB_NAME)
    thread.join(30)
    assert not thread.is_alive()


def test_a_disk_that_takes_no_file_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    rescue = Rescue(folder)
    folder.rmdir()
    server: Any = Server(refusals=0)
    for _ in range(module.MAX_FOLLOWED + 1):
        rescue.begin(server, JOB_NAME, "kx-a", "kx", lambda: True)
    assert read(rescue) is None
    folder.mkdir()
    rescue.begin(server, JOB_NAME, "kx-a", "kx", lambda: True)  # there is still room for it
    assert read(rescue) == b"out\n"
    rescue.keep_only(())


class LongServer(Server):
    """An API server with a log of 4 MiB."""

    def stream(self, path: str, query: dict[str, Any], silence_s: float) -> Log:
        return LongLog(b"")


class LongLog(Log):
    def chunks(self) -> Iterator[bytes]:
        for number in range(64):
            yield bytes([number + 1]) * 65536


def test_of_a_long_log_beginning_and_end_are_kept(tmp_path: Path) -> None:
    rescue = Rescue(tmp_path, max_bytes=2 * 65536)
    server: Any = LongServer(refusals=0)
    rescue.begin(server, JOB_NAME, "kx-a", "kx", lambda: True)
    raw = read(rescue) or b""
    assert len(raw) == 64 * 65536  # where the rest was is kept, so that the sink drops the same
    assert raw[:65536] == b"\x01" * 65536
    assert raw[-65536:] == b"\x40" * 65536
    assert raw.count(0) >= 32 * 65536
    rescue.keep_only(())


def test_pods_that_are_said_to_be_pending_may_run() -> None:
    failed = pod("kx-b", "Failed", ended(1))
    pending = pod(state=CREATING)
    marked = pod("kx-c", state=CREATING, **MARKED)
    assert vanishing([pending, failed]) == [pending]
    assert vanishing([pending, marked]) == [marked]


def test_the_cache_knows_which_pods_are_over() -> None:
    cache = Cache()
    cache.replace([job()], [pod(phase="Running", state=RUNNING), pod("kx-b", "Failed", ended(1))])
    assert not cache.is_pod_over(JOB_NAME, "kx-a")
    assert cache.is_pod_over(JOB_NAME, "kx-b")
    assert cache.is_pod_over(JOB_NAME, "kx-nosuch")
    cache.drop_pod(pod(phase="Running", state=RUNNING))
    assert cache.is_pod_over(JOB_NAME, "kx-a")
