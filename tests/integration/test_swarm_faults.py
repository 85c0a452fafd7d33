"""`SwarmEngine` while its connection is cut or silent; the engine behind it stays whole."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import need_swarm
from swarm_harness import DEADLINE_S, SwarmBox, swarm_box

from pman.backends._engine.port import Unanswered
from pman.backends._swarm import client, events
from pman.backends._swarm.problems import socket_path
from pman.errors import BackendUnavailable
from pman.job.state import JobState

pytestmark = pytest.mark.slow


class Proxy:
    """A unix socket before the engine's own, whose answers can be held back, or cut."""

    def __init__(self, path: Path, target: str) -> None:
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        #: Whether answers go through; requests always do.
        self.flows = threading.Event()
        self.flows.set()
        self.cuts_answers = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                with self._lock:
                    self._open += [near, far]
                for source, sink, is_answer in ((near, far, False), (far, near, True)):
                    arguments = (source, sink, is_answer)
                    threading.Thread(target=self._copy, args=arguments, daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):  # one side has gone: the other goes, too
            while raw := source.recv(65536):
                if is_answer:
                    self.flows.wait()
                    if self.cuts_answers:
                        break
                sink.sendall(raw)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._open.clear()

    def close(self) -> None:
        """Take no more connections, and break those there are."""
        self.flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that DOCKER_HOST leads to."""
    need_swarm()
    target = socket_path(os.environ.get("DOCKER_HOST", client.DEFAULT_HOST))
    if not target:
        pytest.skip("the engine listens on no unix socket")
    path = tmp_path / "proxy.sock"
    made = Proxy(path, target)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    yield made
    made.close()


@pytest.fixture
def box(proxy: Proxy) -> Iterator[SwarmBox]:
    """An engine behind the proxy."""
    with swarm_box() as made:
        yield made
        proxy.flows.set()
        proxy.cuts_answers = False


def watch_failure(box: SwarmBox) -> tuple[threading.Thread, list[BackendUnavailable]]:
    """Begin to watch; return the thread, and the list that will hold how it failed."""
    failures: list[BackendUnavailable] = []
    ready = threading.Event()

    def watch() -> None:
        try:
            box.engine.watch(lambda _name, _hot: ready.set(), threading.Event())
        except BackendUnavailable as exc:
            failures.append(exc)

    thread = threading.Thread(target=watch)
    thread.start()
    assert ready.wait(DEADLINE_S)
    return thread, failures


def test_a_watch_notices_that_the_connection_broke(box: SwarmBox, proxy: Proxy) -> None:
    thread, failures = watch_failure(box)
    proxy.cut()
    thread.join(DEADLINE_S)
    assert len(failures) == 1


def test_a_watch_notices_an_engine_that_is_frozen(
    box: SwarmBox, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BEAT_PERIOD_S", 0.01)
    monkeypatch.setattr(client, "PING_TIMEOUT_S", 0.3)
    thread, failures = watch_failure(box)
    proxy.flows.clear()
    thread.join(DEADLINE_S)
    assert "does not answer" in failures[0].message


def test_requests_to_a_frozen_engine_end(
    box: SwarmBox, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PING_TIMEOUT_S", 0.3)
    proxy.flows.clear()
    fresh = client.EngineClient()
    with pytest.raises(Unanswered, match="does not answer"):
        fresh.connect()


def test_connections_that_broke_are_replaced(box: SwarmBox, proxy: Proxy) -> None:
    order = box.order("true")
    handle = box.run(order)
    proxy.cut()
    assert box.ended(order, handle).outcome is JobState.COMPLETED


def test_a_create_without_an_answer_is_made_once(box: SwarmBox, proxy: Proxy) -> None:
    order = box.order("sleep", "1000")
    box.engine.check(order)
    proxy.cuts_answers = True
    with pytest.raises(Unanswered):
        box.engine.create(order, None)
    proxy.cuts_answers = False
    handle = box.engine.create(order, None)
    view = box.engine.look(order.job_name, {})
    assert view is not None
    assert view.handle == handle
    assert list(box.engine.look_all()) == [order.job_name]


def test_output_that_breaks_off_is_no_output(box: SwarmBox, proxy: Proxy) -> None:
    order = box.shell("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
    view = box.ended(order, box.run(order))

    class Cutting:
        """A sink that has the connection cut after the first piece."""

        def write(self, worker: int, stream: str, raw: bytes) -> None:
            proxy.cut()

    with pytest.raises(BackendUnavailable):
        box.engine.collect(view, Cutting())
    assert box.collected(view)[0, "stdout"].count(b"\n") == 20_000


def test_what_the_disk_refuses_is_not_the_engines_fault(box: SwarmBox) -> None:
    order = box.shell("echo x")
    view = box.ended(order, box.run(order))

    class Full:
        """A sink on a disk without room."""

        def write(self, worker: int, stream: str, raw: bytes) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        box.engine.collect(view, Full())
