"""Which failures of an engine are counted, as what."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_harness import Rig
from fakes.engine import FakeEngine, World

from pman.backends._engine.counted import CALLS, CountedEngine
from pman.backends._engine.halt import Halt
from pman.backends._engine.order import order_from_meta
from pman.backends._engine.port import Engine, Phase, Unanswered, View
from pman.backends._engine.sink import LogSink
from pman.backends._engine.wish import Wish
from pman.errors import BackendUnavailable, JobConflict, SubmitFailed
from pman.meters import ErrorMeter
from pman.output import OutputFiles

#: Methods of `Engine` that ask it nothing, or nothing that may fail.
SILENT = {"interrupt", "stage_of", "check_signal", "close", "may_replace"}

ORDER = order_from_meta({"cmd": "true", "jid": "1", "container": {"target": {"image": "i"}}})
VIEW = View(job_name="job", handle={}, phase=Phase.RUNNING)


class Scene:
    """A counted engine, and a sink that nothing is written to."""

    def __init__(self, folder: Path) -> None:
        self.world = World(is_acting=False)
        self.errors = ErrorMeter(CALLS)
        self.engine = CountedEngine(FakeEngine(self.world), self.errors)
        self.sink = LogSink(OutputFiles(folder, 1 << 20), "job", 0)
        self.stop = threading.Event()
        self.halt = Halt()

    def call(self, name: str) -> object:
        engine, sink = self.engine, self.sink
        calls: dict[str, Callable[[], object]] = {
            "connect": engine.connect,
            "check": lambda: engine.check(ORDER),
            "create": lambda: engine.create(ORDER, None),
            "describe": lambda: engine.describe(ORDER, None),
            "look_all": engine.look_all,
            "look": lambda: engine.look("job", {}),
            "watch": lambda: engine.watch(lambda _name, _is_hot: None, self.stop),
            "collect": lambda: engine.collect(VIEW, sink),
            "peek": lambda: engine.peek(VIEW, 10),
            "follow": lambda: engine.follow(VIEW, 0, sink, self.halt, waits=False),
            "stop": lambda: engine.stop(VIEW, Wish(0.0), sink),
            "remove": lambda: engine.remove("job", {}),
            "retry": lambda: engine.retry(VIEW),
        }
        return calls[name]()

    def fail(self, name: str, error: Exception) -> dict[tuple[str, str], int]:
        """Have a call fail, and return what was counted."""
        self.world.fail(name, error)
        with pytest.raises(type(error)):
            self.call(name)
        return {which: count for which, count in self.errors.counts() if count}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_all_that_an_engine_can_be_asked_is_counted() -> None:
    methods = {name for name, _ in inspect.getmembers(Engine, inspect.isfunction)}
    assert {name for name in methods if not name.startswith("_")} == {*CALLS, *SILENT}


@pytest.mark.parametrize("call", CALLS)
def test_each_call(scene: Scene, call: str) -> None:
    assert scene.fail(call, BackendUnavailable("away")) == {(call, "unavailable"): 1}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackendUnavailable("away"), "unavailable"),
        (Unanswered("silence"), "unanswered"),
        (SubmitFailed("no such network"), "refused"),
        (KeyError("Spec"), "failed"),
        (OSError("not translated"), "failed"),
    ],
)
def test_each_reason(scene: Scene, error: Exception, reason: str) -> None:
    assert scene.fail("create", error) == {("create", reason): 1}


def test_a_request_that_is_wrong_is_not_the_engines_failure(scene: Scene) -> None:
    assert scene.fail("create", JobConflict("the name is taken")) == {}


@pytest.mark.parametrize("call", ["collect", "follow", "stop"])
def test_a_full_disk_is_not_the_engines_failure(scene: Scene, call: str) -> None:
    assert scene.fail(call, OSError("no space left")) == {}


@pytest.mark.parametrize("call", ["watch", "follow"])
def test_a_connection_that_was_to_end_has_not_failed(scene: Scene, call: str) -> None:
    scene.stop.set()
    scene.halt.set()
    assert scene.fail(call, BackendUnavailable("cut")) == {}


def test_the_backend_counts_what_it_asks(rig: Rig) -> None:
    rig.world.fail("create", SubmitFailed("the engine refused"))
    with pytest.raises(SubmitFailed):
        rig.backend.submit(rig.job())
    rig.world.fail("collect", *[BackendUnavailable("cut")] * 3)
    rig.ended()
    found = dict(rig.backend.errors.counts())
    assert found["create", "refused"] == 1
    assert found["collect", "unavailable"] == 3
    assert sum(found.values()) == 4


def test_tries_to_connect_are_counted_each(rig: Rig) -> None:
    rig.world.go_away()
    rig.world.wait_call("connect", count=rig.world.calls.count(("connect", "")) + 3)
    found = dict(rig.backend.errors.counts())
    assert found["watch", "unavailable"] == 1
    assert found["connect", "unavailable"] >= 2
    assert rig.backend.outages == 1
