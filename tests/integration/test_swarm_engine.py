"""`SwarmEngine` alone against a real Docker Swarm."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from daemon_process import wait_until
from engines import need_swarm
from swarm_harness import DEADLINE_S, Kept, SwarmBox, swarm_box

from pman.backends._engine.halt import Halt
from pman.backends._engine.port import JOB_LABEL, Phase, View
from pman.backends._engine.wish import Wish
from pman.errors import BackendUnavailable, JobConflict, RequestError, SubmitFailed
from pman.job.state import JobState

pytestmark = pytest.mark.slow


@pytest.fixture
def box() -> Iterator[SwarmBox]:
    """An engine of an instance of its own."""
    need_swarm()
    with swarm_box() as made:
        yield made


def docker(*words: str) -> str:
    """Run the docker command line; return what it prints."""
    done = subprocess.run(("docker", *words), capture_output=True, text=True, check=True)
    return done.stdout


def inspect(view_handle: dict[str, Any]) -> dict[str, Any]:
    """Return a service as the command line shows it."""
    found: dict[str, Any] = json.loads(docker("service", "inspect", view_handle["service"]))[0]
    return found


def test_a_job_ends_well_with_its_output(box: SwarmBox) -> None:
    order = box.shell("echo out; echo err >&2; printf end")
    view = box.ended(order, box.run(order))
    assert (view.outcome, view.exit_code, view.reason) == (JobState.COMPLETED, 0, "ok")
    assert view.job_name == order.job_name
    assert view.started_at is not None
    assert view.ended_at is not None
    assert view.started_at <= view.ended_at
    assert view.extra is not None
    assert view.extra["state"]["Status"]["State"] == "complete"
    expected = {(0, "stdout"): b"out\nend", (0, "stderr"): b"err\n"}
    assert box.collected(view) == expected
    assert box.collected(view) == expected  # the same call gives the same bytes


def test_an_exit_code_is_the_containers(box: SwarmBox) -> None:
    order = box.shell("exit 3")
    view = box.ended(order, box.run(order))
    assert (view.outcome, view.exit_code, view.signal) == (JobState.FAILED, 3, None)
    assert (view.reason, view.message) == ("error", "task: non-zero exit (3)")


def test_a_signal_is_told_beside_the_code(box: SwarmBox) -> None:
    order = box.shell("sh -c 'kill -15 $$'; exit $?")
    view = box.ended(order, box.run(order))
    assert (view.exit_code, view.signal, view.reason) == (143, 15, "error")


def test_a_program_that_is_not_there(box: SwarmBox) -> None:
    order = box.order("/nosuchprogram")
    view = box.ended(order, box.run(order))
    assert (view.outcome, view.exit_code) == (JobState.FAILED, 127)
    assert "/nosuchprogram" in view.message
    assert box.collected(view) == {}


def test_a_job_that_is_out_of_memory_says_so(box: SwarmBox) -> None:
    # An engine may overlook what happens within some 30 ms of the start.
    order = box.shell("sleep 0.5; x=a; while true; do x=$x$x; done", memory_bytes=16 << 20)
    view = box.ended(order, box.run(order))
    assert (view.outcome, view.exit_code, view.reason) == (JobState.FAILED, 137, "oom_killed")


def test_one_of_three_workers_fails(box: SwarmBox, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    script = "if mkdir /share/one 2>/dev/null; then echo first; exit 4; fi; echo other"
    order = box.shell(script, workers=3)
    view = box.ended(order, box.run(order, str(tmp_path)))
    assert (view.outcome, view.exit_code) == (JobState.FAILED, 4)
    assert sorted(worker.returncode or 0 for worker in view.workers) == [0, 0, 4]
    assert sorted(box.collected(view).values()) == [b"first\n", b"other\n", b"other\n"]


def test_all_of_a_long_output_is_there_as_soon_as_the_task_has_ended(box: SwarmBox) -> None:
    lines = 200_000
    order = box.shell(f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done")
    view = box.ended(order, box.run(order))
    assert box.collected(view)[0, "stdout"].count(b"\n") == lines


def test_output_is_binary_but_for_what_json_can_not_hold(box: SwarmBox) -> None:
    order = box.shell(r"printf 'a\0b\r\303\244'; printf '\377'")
    view = box.ended(order, box.run(order))
    assert box.collected(view)[0, "stdout"] == "a\0b\rä\N{REPLACEMENT CHARACTER}".encode()


def test_the_service_carries_what_was_ordered(box: SwarmBox, tmp_path: Path) -> None:
    order = box.shell(
        'echo "$GREETING" > /share/said',
        cpu_millis=500,
        memory_bytes=64 << 20,
        env={"GREETING": "good day = 1"},
        labels={"project": "blue"},
    )
    handle = box.run(order, str(tmp_path))
    box.ended(order, handle)
    assert (tmp_path / "said").read_text() == "good day = 1\n"
    spec = inspect(handle)["Spec"]
    assert spec["Labels"]["project"] == "blue"
    assert spec["Labels"][JOB_LABEL] == order.job_name
    limits = spec["TaskTemplate"]["Resources"]["Limits"]
    assert limits == {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20}


def test_a_job_is_made_once_however_often_it_is_asked_for(box: SwarmBox) -> None:
    order = box.order("sleep", "100")
    handle = box.run(order)
    assert box.engine.create(order, None) == handle
    assert box.new_engine().create(order, None) == handle
    assert list(box.engine.look_all()) == [order.job_name]


def test_a_job_is_found_without_its_handle(box: SwarmBox) -> None:
    order = box.order("sleep", "100")
    handle = box.run(order)
    view = box.new_engine().look(order.job_name, {})
    assert view is not None
    assert view.handle == handle


def test_a_name_that_another_job_has_is_refused(box: SwarmBox) -> None:
    first = box.order("sleep", "100")
    box.run(first)
    second = box.order("true", jid=first.jid)
    with pytest.raises(JobConflict, match=first.jid) as refused:
        box.engine.check(second)
    assert refused.value.field == "jid"
    with pytest.raises(JobConflict):
        box.engine.create(second, None)


def test_a_name_that_somebody_else_has_is_refused(box: SwarmBox) -> None:
    name = f"{box.instance}-foreign"
    docker("service", "create", "--detach", "--name", name, "local/busybox:1", "sleep", "100")
    try:
        order = box.order("true", service_name=name)
        with pytest.raises(JobConflict, match="pman did not make") as refused:
            box.engine.check(order)
        assert refused.value.field == "container.manager.env.serviceName"
        with pytest.raises(JobConflict):
            box.engine.create(order, None)
    finally:
        docker("service", "rm", name)


def test_a_finished_job_of_the_same_jid_makes_room(box: SwarmBox) -> None:
    first = box.order("true")
    box.ended(first, box.run(first))
    second = box.shell("echo second", jid=first.jid)
    with pytest.raises(JobConflict):
        box.engine.create(second, None)
    box.engine.may_replace = {first.job_name}.__contains__
    view = box.ended(second, box.run(second))
    assert box.collected(view) == {(0, "stdout"): b"second\n"}
    assert list(box.engine.look_all()) == [second.job_name]


def test_an_image_that_is_not_there_can_be_tried_again(box: SwarmBox) -> None:
    image = f"local/{box.instance}:1"
    order = box.order("true", image=image, workers=2)
    handle = box.run(order)
    view = box.seen(
        order, handle, lambda seen: {each.state for each in seen.workers} == {"rejected"}
    )
    assert (view.phase, view.reason, view.outcome) == (Phase.WAITING, "image_pull_failed", None)
    assert image in view.message
    assert box.collected(view) == {}
    docker("tag", "local/busybox:1", image)
    try:
        assert box.engine.retry(view)
        ended = box.ended(order, handle)
    finally:
        docker("rmi", image)
    assert ended.outcome is JobState.COMPLETED
    assert len(ended.workers) == 2
    assert not box.engine.retry(ended)


def test_a_folder_that_is_not_there_is_rejected(box: SwarmBox) -> None:
    order = box.order("true")
    view = box.ended(order, box.run(order, "/no/such/folder"))
    assert (view.outcome, view.exit_code, view.reason) == (JobState.FAILED, None, "rejected")
    assert "/no/such/folder" in view.message


@pytest.mark.parametrize(
    ("field", "value"),
    [("cpu_limit", {"cpu_millis": 10**6}), ("memory_limit", {"memory_bytes": 1 << 20})],
)
def test_what_no_node_can_give_is_refused(box: SwarmBox, field: str, value: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        box.engine.check(box.order("true", **value))
    assert refused.value.field == field


def test_what_the_engine_refuses_is_told_in_its_words(box: SwarmBox) -> None:
    with pytest.raises(SubmitFailed, match="not a valid repository/tag"):
        box.engine.create(box.order("true", image="Not An Image"), None)


def test_a_running_job_is_stopped_and_its_last_words_kept(box: SwarmBox) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    order = box.shell(script, workers=2)
    handle = box.run(order)
    view = box.seen(
        order,
        handle,
        lambda seen: (
            seen.phase is Phase.RUNNING and box.engine.peek(seen, 1000) == b"ready\nready\n"
        ),
    )
    kept = box.collected(view)
    assert box.engine.stop(view, Wish(30.0), kept) is False
    ended = box.engine.look(order.job_name, handle)
    assert ended is not None
    assert (ended.phase, ended.exit_code) == (Phase.ENDED, 7)
    said = {(0, "stdout"): b"ready\nbye\n", (1, "stdout"): b"ready\nbye\n"}
    assert box.collected(ended) == said


def test_a_job_that_does_not_listen_is_killed(box: SwarmBox) -> None:
    order = box.order("sleep", "1000")  # the first process of a container gets no SIGTERM
    handle = box.run(order)
    view = box.seen(order, handle, lambda seen: seen.phase is Phase.RUNNING)
    box.engine.stop(view, Wish(1.0), box.collected(view))
    ended = box.ended(order, handle)
    assert (ended.outcome, ended.exit_code, ended.signal) == (JobState.FAILED, 137, 9)
    assert ended.reason == "error"  # no lack of memory


def test_a_job_that_waits_is_stopped_before_it_starts(box: SwarmBox) -> None:
    order = box.order("true", image=f"local/{box.instance}:none")
    handle = box.run(order)
    view = box.seen(order, handle, lambda seen: seen.reason == "image_pull_failed")
    kept = box.collected(view)
    assert box.engine.stop(view, Wish(1.0), kept) is False
    ended = box.engine.look(order.job_name, handle)
    assert ended is not None
    assert ended.phase is Phase.ENDED
    assert not box.engine.retry(view)
    assert kept == {}


def test_a_removed_job_is_gone(box: SwarmBox) -> None:
    order = box.order("sleep", "100")
    handle = box.run(order)
    box.engine.remove(order.job_name, handle)
    box.engine.remove(order.job_name, handle)
    assert box.engine.look(order.job_name, handle) is None
    assert box.engine.look(order.job_name, {}) is None
    assert box.engine.look_all() == {}


def test_output_of_a_container_that_somebody_removed_is_empty(box: SwarmBox) -> None:
    order = box.shell("echo lost")
    handle = box.run(order)
    view = box.ended(order, handle)
    assert view.extra is not None
    docker("rm", view.extra["state"]["Status"]["ContainerStatus"]["ContainerID"])
    assert box.collected(view) == {}


def test_output_of_a_service_that_somebody_removed_is_missed(box: SwarmBox) -> None:
    order = box.shell("echo lost")
    handle = box.run(order)
    view = box.ended(order, handle)
    docker("service", "rm", handle["service"])
    deadline = time.monotonic() + DEADLINE_S
    while docker("ps", "--all", "--quiet", "--filter", f"label={JOB_LABEL}={order.job_name}"):
        assert time.monotonic() < deadline
        box.wait_change(0.1)
    with pytest.raises(BackendUnavailable, match="the service is gone"):
        box.collected(view)
    assert not box.engine.stop(view, Wish(1.0), Kept())


def test_events_name_the_job_as_soon_as_something_happens(box: SwarmBox) -> None:
    with box.watching():
        order = box.order("true")
        handle = box.run(order)
        box.wait_until(lambda: (order.job_name, True) in box.changes)
        view = box.ended(order, handle)
        box.changes.clear()
        box.engine.remove(order.job_name, handle)
        box.wait_until(lambda: (order.job_name, False) in box.changes)
    assert view.outcome is JobState.COMPLETED
    foreign = {name for name, _ in box.changes} - {order.job_name, None}
    assert foreign == set()


def test_a_watch_ends_at_once_when_it_is_interrupted(box: SwarmBox) -> None:
    with box.watching() as watcher:
        assert watcher.is_alive()
    assert not watcher.is_alive()


def test_an_interrupt_before_the_watch_is_not_lost(box: SwarmBox) -> None:
    stop = threading.Event()
    stop.set()
    box.engine.interrupt()
    watcher = threading.Thread(target=box.engine.watch, args=(lambda _name, _hot: None, stop))
    watcher.start()
    watcher.join(DEADLINE_S)
    assert not watcher.is_alive()


def test_many_threads_may_use_one_engine(box: SwarmBox) -> None:
    orders = [box.shell(f"echo {number}") for number in range(12)]
    said: dict[int, bytes] = {}

    def run(number: int) -> None:
        view = box.ended(orders[number], box.run(orders[number]))
        said[number] = box.collected(view)[0, "stdout"]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(orders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert said == {number: f"{number}\n".encode() for number in range(len(orders))}


# --- what is printed while it runs ----------------------------------------------------------

#: Prints to both streams, waits until it is let go, and prints again.
TALKS = "echo one; echo oops >&2; while [ ! -e /share/go ]; do sleep 0.05; done; printf two"


@contextmanager
def followed(
    box: SwarmBox, view: View, worker: int, halt: Halt
) -> Iterator[tuple[Kept, threading.Thread]]:
    """Follow a container in a thread, which has ended afterwards."""
    kept = Kept()
    follow = partial(box.engine.follow, view, worker, kept, halt, waits=True)
    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield kept, thread
    finally:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("is_here", [True, False])
def test_output_comes_while_a_container_runs(
    box: SwarmBox, tmp_path: Path, *, is_here: bool
) -> None:
    tmp_path.chmod(0o777)
    order = box.shell(TALKS, workers=2)
    handle = box.run(order, str(tmp_path))
    view = box.seen(order, handle, lambda seen: _are_running(box, seen, 2))
    if not is_here:
        box.engine._inspector.node_id = "another"  # through the swarm, as from another node
    said = {(1, "stdout"): b"one\n", (1, "stderr"): b"oops\n"}
    halt = Halt()
    with followed(box, view, 1, halt) as (kept, _):
        wait_until(lambda: kept == said, "the first words")
        (tmp_path / "go").touch()
        ended = box.ended(order, handle)
        halt.set()
    assert {box.engine.stage_of(worker) for worker in ended.workers} == {Phase.ENDED}
    whole = {key: raw for key, raw in box.collected(ended).items() if key[0] == 1}
    assert whole == said | {(1, "stdout"): b"one\ntwo"}
    assert all(whole[key].startswith(raw) for key, raw in kept.items())
    again = Kept()
    box.engine.follow(ended, 1, again, Halt(), waits=False)
    assert again == whole


def _are_running(box: SwarmBox, view: View, count: int) -> bool:
    stages = [box.engine.stage_of(worker) for worker in view.workers]
    return view.count == count and stages == [Phase.RUNNING] * count


def test_following_ends_when_it_is_halted_or_is_not_to_wait(box: SwarmBox) -> None:
    order = box.shell("echo one; sleep 1000")
    view = box.seen(order, box.run(order), lambda seen: _are_running(box, seen, 1))
    halt = Halt()
    with followed(box, view, 0, halt) as (kept, thread):
        wait_until(lambda: kept == {(0, "stdout"): b"one\n"}, "the first words")
        assert thread.is_alive()
        halt.set()
    now = Kept()
    box.engine.follow(view, 0, now, Halt(), waits=False)
    assert now == kept


# --- run in full ----------------------------------------------------------------------------


def test_words_and_working_directory_reach_the_container(box: SwarmBox) -> None:
    order = box.order("sh", "-c", "pwd; printf '%s|' \"$@\"", "-", "a b", "$HOME", "", cwd="/tmp")
    view = box.ended(order, box.run(order))
    assert box.collected(view)[0, "stdout"] == b"/tmp\na b|$HOME||"


def test_what_is_told_is_what_is_made(box: SwarmBox, tmp_path: Path) -> None:
    order = box.shell("true", env={"A": "1"}, labels={"team": "blue"}, cwd="/tmp", workers=2)
    told = box.engine.describe(order, str(tmp_path))["service"]
    assert box.engine.look_all() == {}
    made = inspect(box.run(order, str(tmp_path)))["Spec"]
    assert _lacking(made, told) == []


def _lacking(made: Any, told: Any, path: str = "") -> list[str]:
    """Return where an object differs from what was told; the engine may add to it."""
    if isinstance(told, dict) and isinstance(made, dict):
        return [
            line for key in told for line in _lacking(made.get(key), told[key], f"{path}.{key}")
        ]
    return [] if made == told else [f"{path}: {made!r} is not {told!r}"]


@pytest.mark.parametrize(
    ("script", "signal", "code"),
    [
        ("trap 'echo bye; exit 42' INT; echo ready; while :; do sleep 0.1; done", 2, 42),
        ("trap '' INT; echo ready; while :; do sleep 0.1; done", 2, 137),
        ("trap 'exit 1' TERM; echo ready; while :; do sleep 0.1; done", 9, 137),
    ],
)
def test_a_job_is_stopped_by_the_signal_that_was_asked_for(
    box: SwarmBox, script: str, signal: int, code: int
) -> None:
    order = box.shell(script)
    handle = box.run(order)
    view = box.seen(order, handle, lambda seen: _has_said(box, seen, b"ready\n"))
    box.engine.stop(view, Wish(1.0 if code == 137 else 30.0, signal), Kept())
    assert box.ended(order, handle).exit_code == code


def _has_said(box: SwarmBox, view: View, raw: bytes) -> bool:
    return view.phase is Phase.RUNNING and box.engine.peek(view, 1000) == raw


def test_a_later_try_takes_the_place_of_the_former(box: SwarmBox) -> None:
    first = box.shell("exit 3")
    box.ended(first, box.run(first))
    again = box.shell("echo again", jid=first.jid, job_name=f"{first.job_name}_r2")
    with pytest.raises(JobConflict):
        box.engine.create(again, None)
    box.engine.may_replace = {first.job_name}.__contains__
    handle = box.run(again)
    view = box.ended(again, handle)
    assert (view.job_name, view.exit_code) == (again.job_name, 0)
    assert box.collected(view) == {(0, "stdout"): b"again\n"}
    assert list(box.engine.look_all()) == [again.job_name]
    found = box.new_engine().look(again.job_name, {})
    assert found is not None
    assert found.handle == handle
