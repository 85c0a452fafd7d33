"""Outputs of containers that somebody else ends: kept whole, with the exit code, or not at all."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import wait_until

from pman.backends._engine.port import JOB_LABEL
from pman.backends._swarm import rescue as module
from pman.backends._swarm.engine import SwarmEngine
from pman.backends._swarm.facts import Fact, Facts
from pman.backends._swarm.rescue import LANES, Death, Rescue
from pman.backends._swarm.tasks import view_of
from pman.config import Settings
from pman.errors import BackendUnavailable
from pman.job.state import JobState

DEATH = Death("task", 5, 2.0)


class Output:
    """What the engine sends of one container. Attributes: gate: opened when it has ended."""

    def __init__(self, *chunks: bytes, is_broken: bool = False) -> None:
        self.gate = threading.Event()
        self._chunks = chunks
        self._is_broken = is_broken

    def chunks(self) -> Iterator[bytes]:
        yield from self._chunks
        assert self.gate.wait(30.0)
        if self._is_broken:
            raise BackendUnavailable("the connection broke")


class Session:
    def close(self) -> None:
        pass


class FakeClient:
    """The part of an `EngineClient` that is used here. Attributes: asked: paths."""

    def __init__(self, output: Output) -> None:
        self.asked: list[str] = []
        self._output = output

    def connected_session(self) -> Session:
        return Session()

    @contextlib.contextmanager
    def stream(self, _method: str, path: str, *_: Any, own: Session, **__: Any) -> Iterator[Output]:
        assert isinstance(own, Session)
        self.asked.append(path)
        yield self._output


class Scene:
    """A `Rescue` that is ready, one container, and what is known of it."""

    def __init__(self, folder: Path, output: Output) -> None:
        self.folder = folder
        self.output = output
        self.client = FakeClient(output)
        self.facts = Facts()
        self.rescue = self.new_rescue()
        self.rescue.prepare()

    def new_rescue(self) -> Rescue:
        return Rescue(self.client, self.folder, self.facts)  # type: ignore[arg-type]

    def told(self) -> None:
        self.rescue.told("service", "task", "container")
        wait_until(lambda: self.client.asked, "a question")

    def wait_kept(self) -> Path:
        path: Path = wait_until(lambda: self.rescue.path("service", "task"), "a kept output")
        return path


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "rescued", Output(b"one", b"two"))
    yield made
    made.output.gate.set()
    made.rescue.close()


@pytest.mark.parametrize("dies_first", [False, True])
def test_output_and_code_are_kept_once_both_are_whole(scene: Scene, dies_first: bool) -> None:
    scene.told()
    steps = [scene.output.gate.set, lambda: scene.rescue.died(DEATH)]
    for step in reversed(steps) if dies_first else steps:
        assert scene.rescue.path("service", "task") is None
        step()
    assert scene.wait_kept().read_bytes() == b"onetwo"
    wait_until(lambda: scene.facts.get("task") == Fact(ended_at=2.0, exit_code=5), "the facts")
    assert scene.client.asked == ["/containers/container/logs"]


def test_the_next_daemon_has_them_too(scene: Scene) -> None:
    scene.told()
    scene.rescue.died(DEATH)
    scene.output.gate.set()
    scene.wait_kept()
    scene.facts = Facts()
    path = scene.new_rescue().path("service", "task")
    assert path is not None
    assert path.read_bytes() == b"onetwo"
    assert scene.facts.get("task").exit_code == 5


def test_half_an_output_is_none_but_the_code_is_kept(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Output(b"half", is_broken=True))
    scene.told()
    scene.rescue.died(DEATH)
    scene.output.gate.set()
    wait_until(lambda: scene.facts.get("task").exit_code == 5, "the facts")
    scene.rescue.close()
    assert scene.rescue.path("service", "task") is None


def test_what_we_end_ourselves_is_left_to_the_engine(scene: Scene) -> None:
    scene.rescue.expect("service")
    scene.rescue.told("service", "task", "container")
    scene.rescue.died(DEATH)
    scene.rescue.told("another", "other", "container-2")  # would come after it
    wait_until(lambda: scene.client.asked, "a question")
    assert scene.client.asked == ["/containers/container-2/logs"]


def test_what_ends_by_itself_is_left_to_the_engine(scene: Scene) -> None:
    scene.rescue.died(DEATH)
    assert scene.client.asked == []
    assert not scene.folder.exists()


def test_nothing_is_left_of_a_service_that_is_forgotten(scene: Scene) -> None:
    scene.told()
    scene.rescue.died(DEATH)
    scene.output.gate.set()
    scene.wait_kept()
    scene.rescue.forget("service")
    assert list(scene.folder.iterdir()) == []


def test_no_more_are_followed_than_there_are_connections(scene: Scene) -> None:
    for number in range(LANES + 5):
        scene.rescue.told("service", f"task-{number}", f"container-{number}")
    wait_until(lambda: len(scene.client.asked) == LANES, "as many as can be")
    scene.output.gate.set()
    wait_until(lambda: len(scene.client.asked) == LANES + 5, "the rest")


# --- what it means for the job --------------------------------------------------------------


def gone(code: int | None = 0) -> dict[str, Any]:
    """Return a task as an engine lists it that took its container along as it stopped."""
    status = {"State": "failed", "Err": "No such container: name.1.task", "Timestamp": None}
    container = {"ContainerID": "container", "PID": 7, "ExitCode": code}
    return {"ID": "task", "Slot": 1, "Status": status | {"ContainerStatus": container}}


SERVICE = {"ID": "service", "Spec": {"Name": "name", "Labels": {JOB_LABEL: "job"}}}


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (Fact(exit_code=5), (JobState.FAILED, 5, "error")),
        (Fact(exit_code=143), (JobState.FAILED, 143, "error")),
        (Fact(exit_code=0), (JobState.COMPLETED, 0, "ok")),
        (Fact(), (JobState.FAILED, None, "error")),
    ],
)
def test_a_container_that_is_gone_ended_as_it_was_seen_to_end(
    fact: Fact, expected: tuple[JobState, int | None, str]
) -> None:
    view = view_of(SERVICE, [gone()], lambda _: fact)
    assert (view.outcome, view.exit_code, view.reason) == expected


def test_an_engine_that_knows_the_code_is_believed() -> None:
    view = view_of(SERVICE, [gone(code=3)], lambda _: Fact(exit_code=5))
    assert (view.exit_code, view.message) == (3, "No such container: name.1.task")


@pytest.mark.parametrize("is_ending", [True, False])
def test_an_engine_that_stops_need_not_answer_while_it_tells_of_ends(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_ending: bool
) -> None:
    """Else we would leave before we hear how they end."""

    def silent(*_: object) -> None:
        raise BackendUnavailable("no answer")

    engine = SwarmEngine(Settings(db_path=tmp_path), "lab", tmp_path)
    monkeypatch.setattr(engine, "_rescue", scene.rescue)
    monkeypatch.setattr(engine._elsewhere, "beat", silent)
    scene.told()
    if is_ending:
        engine._beat()
        monkeypatch.setattr(module, "STOP_S", 0.0)  # that is over
    else:
        scene.rescue.died(DEATH)
        scene.output.gate.set()
        scene.wait_kept()
    with pytest.raises(BackendUnavailable):
        engine._beat()
