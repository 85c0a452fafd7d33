"""`--swarmManager container`: services made and removed by a manager image, on a real swarm."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import need_swarm
from swarm_harness import DEADLINE_S, IMAGE, MANAGER, SwarmBox, swarm_box

from pman.backends._engine.order import Manager, Order
from pman.backends._engine.port import JID_LABEL, JOB_LABEL, Unanswered
from pman.backends._swarm.manager import Managers
from pman.backends._swarm.spec import service_name
from pman.errors import JobConflict, RequestError, SubmitFailed
from pman.job.state import JobState

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "swarm_manager"


@pytest.fixture(scope="module")
def manager_image() -> str:
    """The manager image, built once."""
    need_swarm()
    docker("build", "--quiet", "--tag", MANAGER.image, str(FOLDER))
    return MANAGER.image


@pytest.fixture
def box(manager_image: str) -> Iterator[SwarmBox]:
    """An engine that has managers do its work; none of their containers may be left."""
    with swarm_box(swarm_manager="container") as made:
        yield made
    assert manager_containers(made) == []


def docker(*words: str) -> str:
    """Run the docker command line; return what it prints."""
    done = subprocess.run(("docker", *words), capture_output=True, text=True, check=True)
    return done.stdout


def manager_containers(box: SwarmBox) -> list[str]:
    """Return the containers of managers that there are, ended ones too."""
    label = f"label=pman.instance={box.instance}"
    found = docker("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()
    return [name for name in found if name.startswith("pman-")]


def managed(box: SwarmBox, script: str, **fields: Any) -> Order:
    """Return an order that names the manager."""
    values: dict[str, Any] = {"cmd": script, "manager": MANAGER, "command": ["unused"]}
    return box.order(script, **(values | fields))


def spec(handle: dict[str, Any]) -> dict[str, Any]:
    """Return the service as the engine has it."""
    found: dict[str, Any] = json.loads(docker("service", "inspect", handle["service"]))[0]["Spec"]
    return found


def test_a_manager_makes_the_service_and_we_read_it(box: SwarmBox, tmp_path: Path) -> None:
    script = """sh -c 'echo "two  words" | tee /share/said; exit 3'"""
    order = managed(box, script)
    handle = box.run(order, str(tmp_path))
    made = spec(handle)
    view = box.ended(order, handle)
    assert (view.outcome, view.exit_code, view.reason) == (JobState.FAILED, 3, "error")
    assert box.collected(view) == {(0, "stdout"): b"two  words\n"}
    assert (tmp_path / "said").read_text() == "two  words\n"
    assert made["Labels"][JOB_LABEL] == order.job_name
    assert made["Labels"][JID_LABEL] == order.jid
    container = made["TaskTemplate"]["ContainerSpec"]
    assert container["TTY"] is True  # so a manager made it
    assert container["Command"][:2] == ["sh", "-c"]
    assert manager_containers(box) == []


def test_labels_do_not_start_a_job_again(box: SwarmBox, tmp_path: Path) -> None:
    order = managed(box, "sh -c 'echo once >> /share/runs; sleep 1000'")
    handle = box.run(order, str(tmp_path))
    box.seen(order, handle, lambda view: box.engine.peek(view, 10) == b"" and view.started_at)
    assert box.engine.create(order, str(tmp_path)) == handle
    assert box.new_engine().create(order, str(tmp_path)) == handle
    tasks = docker("service", "ps", "--quiet", handle["service"]).split()
    assert len(tasks) == 1


def test_a_managed_job_is_removed_by_its_manager(
    box: SwarmBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Manager, str]] = []
    remove = Managers.remove

    def seen(managers: Managers, manager: Manager, name: str, job_name: str) -> None:
        asked.append((manager, name))
        remove(managers, manager, name, job_name)
        assert docker("service", "ls", "--quiet", "--filter", f"name={name}") == ""

    monkeypatch.setattr(Managers, "remove", seen)
    order = managed(box, "sleep 1000")
    handle = box.run(order)
    box.engine.remove(order.job_name, handle)
    assert asked == [(MANAGER, service_name(order))]
    assert box.engine.look(order.job_name, handle) is None
    box.engine.remove(order.job_name, handle)


def test_a_service_that_is_being_removed_takes_the_next_one_not_along(
    box: SwarmBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next job of the same jid is run while the manager that removes the first one starts."""
    removes, waits, goes_on = threading.Event(), threading.Event(), threading.Event()
    remove, turn = Managers.remove, Managers.turn

    def slow(managers: Managers, manager: Manager, name: str, job_name: str) -> None:
        removes.set()
        assert goes_on.wait(DEADLINE_S)
        remove(managers, manager, name, job_name)

    def seen(managers: Managers, name: str) -> threading.Lock:
        if removes.is_set():
            waits.set()
        return turn(managers, name)

    monkeypatch.setattr(Managers, "remove", slow)
    monkeypatch.setattr(Managers, "turn", seen)
    box.engine.may_replace = lambda _job_name: True
    first = managed(box, "true")
    handle = box.run(first)
    second = managed(box, "sleep 1000", jid=first.jid)
    made: list[dict[str, Any]] = []
    steps = [
        threading.Thread(target=box.engine.remove, args=(first.job_name, handle)),
        threading.Thread(target=lambda: made.append(box.engine.create(second, None))),
    ]
    steps[0].start()
    assert removes.wait(DEADLINE_S)
    steps[1].start()
    assert waits.wait(DEADLINE_S)
    goes_on.set()
    for step in steps:
        step.join(DEADLINE_S)
    assert box.engine.look(second.job_name, made[0]) is not None


def test_a_manager_that_never_ends_is_removed_with_its_job(
    box: SwarmBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise Unanswered("the manager has not ended")

    order = managed(box, "true")
    with monkeypatch.context() as patched:
        patched.setattr(Managers, "_run", silent)
        with pytest.raises(Unanswered):
            box.engine.create(order, None)
    assert len(manager_containers(box)) == 1
    box.engine.remove(order.job_name, {})
    assert manager_containers(box) == []


def test_a_job_outlives_its_managers_image(box: SwarmBox) -> None:
    image = f"local/{box.instance}-manager:1"
    docker("tag", MANAGER.image, image)
    try:
        order = managed(box, "sleep 1000", manager=Manager(image, MANAGER.app))
        handle = box.run(order)
    finally:
        docker("rmi", image)
    box.engine.remove(order.job_name, handle)
    assert box.engine.look(order.job_name, handle) is None


def test_a_missing_manager_image_is_named(box: SwarmBox) -> None:
    order = managed(box, "true", manager=Manager("local/nosuchmanager:1", "swarm.py"))
    with pytest.raises(SubmitFailed, match=r"container\.manager\.image 'local/nosuchmanager:1'"):
        box.run(order)


def test_a_manager_that_fails_is_quoted(box: SwarmBox) -> None:
    order = managed(box, "true", manager=Manager(MANAGER.image, "nosuchscript.py"))
    with pytest.raises(SubmitFailed, match=r"nosuchscript\.py") as failed:
        box.run(order)
    assert "exit code 2" in failed.value.message
    assert manager_containers(box) == []


def test_the_manager_is_told_what_was_sent_as_it_was_sent(box: SwarmBox) -> None:
    order = managed(box, """sleep" --remove "x 'a b' -c""")
    made = spec(box.run(order))
    assert made["TaskTemplate"]["ContainerSpec"]["Command"] == ["sleep --remove x", "a b", "-c"]


def test_a_name_that_is_taken_is_refused(box: SwarmBox) -> None:
    name = f"{box.instance}-foreign"
    docker("service", "create", "--detach", "--name", name, IMAGE, "sleep", "1000")
    try:
        order = managed(box, "true", service_name=name)
        with pytest.raises(JobConflict):
            box.engine.check(order)
        with pytest.raises(JobConflict):
            box.engine.create(order, None)
    finally:
        docker("service", "rm", name)


def test_what_a_manager_has_no_option_for_is_refused(box: SwarmBox) -> None:
    with pytest.raises(RequestError, match="cpu_limit can't be passed to a manager"):
        box.engine.check(managed(box, "true", cpu_millis=100))
    with pytest.raises(RequestError, match=r"container\.manager\.image and \.app"):
        box.engine.check(managed(box, "true", manager=None))


@pytest.mark.parametrize("moment", ["label", "forget", "_run"])
def test_a_job_is_scheduled_once_whatever_dies_in_between(
    box: SwarmBox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str
) -> None:
    """A daemon that is killed just before a step leaves what the next one goes on with."""

    class Killed(BaseException):
        """Ends a step as kill -9 would: nothing is tidied up."""

    def die(*_: object) -> None:
        raise Killed

    order = managed(box, "sh -c 'echo ran >> /share/runs'")
    box.engine.check(order)
    with monkeypatch.context() as patched:
        patched.setattr(Managers, moment, die)
        with pytest.raises(Killed):
            box.engine.create(order, str(tmp_path))
    handle = box.new_engine().create(order, str(tmp_path))
    view = box.ended(order, handle)
    assert view.outcome is JobState.COMPLETED
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert manager_containers(box) == []
