"""`KubernetesEngine` alone against a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from api_proxy import ApiProxy
from daemon_process import wait_until
from engines import need_kubernetes
from kube_harness import DEADLINE_S, KeptOutput, KubeBox, kube_box

from pman.backends._engine.halt import Halt
from pman.backends._engine.port import Phase, Unanswered
from pman.backends._engine.wish import Wish
from pman.errors import BackendUnavailable, RequestError, SubmitFailed
from pman.job.state import JobState

pytestmark = pytest.mark.slow

#: Waits for SIGTERM, says so, and ends.
PATIENT = 'trap "echo bye; exit 5" TERM; echo here; sleep 100 & wait'
JOBS = "/jobs$"


@pytest.fixture(autouse=True)
def _cluster() -> None:
    need_kubernetes()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[KubeBox]:
    with kube_box(tmp_path) as made:
        yield made


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[ApiProxy]:
    made = ApiProxy(tmp_path)
    yield made
    made.close()


@pytest.fixture
def proxied(tmp_path: Path, proxy: ApiProxy) -> Iterator[KubeBox]:
    """A box that reaches the cluster through the proxy."""
    with kube_box(tmp_path, kubeconfig=proxy.kubeconfig) as made:
        yield made
        proxy.heal()


def test_a_job_ends_well_with_its_output(box: KubeBox) -> None:
    order = box.shell(
        "echo out; sleep 0.2; echo err >&2; sleep 0.2; id -u; echo x > /share/x && printf end"
    )
    handle = box.run(order)
    view = box.ended(order, handle)
    assert (view.outcome, view.exit_code, view.reason) == (JobState.COMPLETED, 0, "ok")
    assert (view.job_name, view.handle) == (order.job_name, handle)
    assert view.started_at is not None
    assert view.ended_at is not None
    assert [worker.returncode for worker in view.workers] == [0]
    assert view.extra is not None
    assert view.extra["state"]["State"] == "complete"
    expected = {(0, "stdout"): b"out\nerr\n1000\nend"}
    assert box.collected(view) == expected
    assert box.collected(view) == expected  # the same call gives the same bytes
    assert box.engine.look_all() == {order.job_name: view}


def test_what_was_ordered_reaches_the_container(box: KubeBox) -> None:
    script = 'echo "$GREETING" "$NUMBER_OF_WORKERS" "$CPU_LIMIT" "$MEMORY_LIMIT" "$(echo $$)"'
    order = box.shell(script, env={"GREETING": "good $(CPU_LIMIT) $$ day"})
    view = box.ended(order, box.run(order))
    said = box.collected(view)[0, "stdout"]
    assert said == b"good $(CPU_LIMIT) $$ day 1 100m 64Mi 1\n"


def test_an_exit_code_is_the_containers(box: KubeBox) -> None:
    order = box.shell("exit 3")
    view = box.ended(order, box.run(order))
    assert (view.outcome, view.exit_code, view.signal) == (JobState.FAILED, 3, None)
    assert (view.reason, view.workers[0].returncode) == ("error", 3)


def test_a_program_that_is_not_there(box: KubeBox) -> None:
    order = box.order("/nosuchprogram")
    view = box.ended(order, box.run(order))
    assert (view.outcome, view.reason) == (JobState.FAILED, "error")
    assert "/nosuchprogram" in view.message
    assert box.collected(view) == {}


def test_a_long_output_comes_whole(box: KubeBox) -> None:
    order = box.shell("i=0; while [ $i -lt 50000 ]; do echo line $i; i=$((i+1)); done")
    view = box.ended(order, box.run(order))
    said = box.collected(view)[0, "stdout"]
    assert said.splitlines() == [b"line %d" % number for number in range(50_000)]
    assert said.endswith(box.engine.peek(view, 1000))


def test_the_same_job_is_made_once(box: KubeBox) -> None:
    order = box.order("true")
    handle = box.run(order)
    assert box.run(order) == handle
    assert len(box.names("jobs")) == 1


def test_a_name_that_is_taken_gets_a_suffix(box: KubeBox) -> None:
    first, second = box.order("true", "Same_Name"), box.order("true", "Same_Name")
    one, two = box.run(first), box.run(second)
    assert two["job"].startswith("same-name-")
    assert one["job"] != two["job"]
    assert box.run(second) == two
    for order, handle in ((first, one), (second, two)):
        assert box.ended(order, handle).outcome is JobState.COMPLETED


def test_what_the_server_refuses_is_said_in_its_words(box: KubeBox) -> None:
    with pytest.raises(SubmitFailed, match="large"):
        box.run(box.order("true", env={"A": "x" * (4 << 20)}))
    assert box.names("jobs") == []


def test_labels_of_kubernetes_are_refused(box: KubeBox) -> None:
    with pytest.raises(RequestError, match="job-name"):
        box.engine.check(box.order("true", labels={"job-name": "x"}))
    box.engine.check(box.order("true", labels={"team": "blue"}))


def test_removed_means_that_nothing_is_left(box: KubeBox) -> None:
    order = box.order("true")
    handle = box.run(order)
    box.ended(order, handle)
    box.engine.remove(order.job_name, handle)
    box.engine.remove(order.job_name, handle)  # nothing there is not an error
    box.engine.remove(order.job_name, {})
    words = ("wait", "--for=delete", "pods", "-l", f"pman.job={order.job_name}")
    box.kubectl(*words, f"--timeout={DEADLINE_S:g}s")
    assert box.names("jobs,pods,configmaps") == []
    assert box.engine.look(order.job_name, handle) is None


# --- what can't start -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"image": "local/nosuch:9"}, "image_pull_failed"),
        ({"cpu_limit": "100000m"}, "unschedulable"),
    ],
)
def test_a_job_that_can_not_start_says_why(box: KubeBox, meta: dict[str, Any], reason: str) -> None:
    order = box.order("true", **meta)
    view = box.until(order, box.run(order), lambda view: view.reason != "")
    assert (view.phase, view.reason) == (Phase.WAITING, reason)
    assert view.message
    box.engine.stop(view, Wish(1.0), KeptOutput())
    assert box.ended(order, view.handle).reason == "canceled"


def test_an_image_of_root_needs_a_user_id(tmp_path: Path) -> None:
    with kube_box(tmp_path, job_uid=None) as box:
        order = box.order("true")
        view = box.until(order, box.run(order), lambda view: view.reason != "")
        assert (view.phase, view.reason) == (Phase.WAITING, "config_error")
        assert "--jobUID" in view.message


def test_a_project_that_takes_no_pods_is_the_reason(tmp_path: Path) -> None:
    name = f"kt-{tmp_path.name}-{os.getpid()}".lower().replace("_", "-")[:50].strip("-")
    subprocess.run(("kubectl", "create", "namespace", name), check=True, capture_output=True)
    try:
        with kube_box(tmp_path, project=name) as box:
            box.kubectl("create", "quota", "none", "--hard=pods=0")
            order = box.order("true")
            view = box.until(order, box.run(order), lambda view: view.reason != "")
            assert (view.phase, view.reason) == (Phase.WAITING, "rejected")
            assert "quota" in view.message
    finally:
        subprocess.run(("kubectl", "delete", "namespace", name, "--wait=false"), check=True)


# --- how running ones end -------------------------------------------------------------------


def test_one_of_three_workers_fails_and_no_log_is_lost(box: KubeBox) -> None:
    script = PATIENT.replace("sleep 100", "while [ ! -e /share/fail ]; do sleep 0.1; done; kill 1")
    order = box.shell(script.replace("exit 5", "exit 7"), number_of_workers=3)
    handle = box.run(order)
    workers = box.running(order, handle).workers
    box.kubectl("exec", workers[1].name, "--", "touch", "/share/fail")
    view = box.ended(order, handle)
    assert (view.outcome, view.exit_code, view.reason) == (JobState.FAILED, 7, "error")
    assert [worker.name for worker in view.workers] == [worker.name for worker in workers]
    assert set(box.collected(view).values()) == {b"here\nbye\n"}
    assert len(box.collected(view)) == 3


def test_a_deadline_ends_a_job_with_its_output(tmp_path: Path) -> None:
    with kube_box(tmp_path, job_deadline_s=4.0) as box:
        order = box.shell(PATIENT)
        view = box.ended(order, box.run(order))
        assert (view.outcome, view.reason) == (JobState.FAILED, "deadline_exceeded")
        assert box.collected(view) == {(0, "stdout"): b"here\nbye\n"}


def test_a_job_that_is_out_of_memory_says_so(box: KubeBox) -> None:
    order = box.order("tail /dev/zero", memory_limit="20Mi")
    view = box.ended(order, box.run(order))
    assert (view.outcome, view.reason) == (JobState.FAILED, "oom_killed")
    assert (view.exit_code, view.signal) == (137, 9)


def test_a_pod_that_is_deleted_ends_its_job_and_does_not_run_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "one").mkdir(parents=True)
    (store / "one").chmod(0o777)
    tmp_path.chmod(0o755)
    with kube_box(tmp_path, storage_type="hostPath", store_base=str(store)) as box:
        script = f"echo ran >> /share/runs; {PATIENT}"
        order = box.shell(script, manager_env={"shareDir": "/x/one"})
        handle = box.run(order)
        pod = box.running(order, handle).workers[0].name
        box.kubectl("delete", "pod", pod, "--wait=false")
        view = box.ended(order, handle)
        assert (view.outcome, view.reason) == (JobState.FAILED, "pod_deleted")
        assert pod in view.message
        assert box.collected(view) == {(0, "stdout"): b"here\nbye\n"}
        assert (store / "one" / "runs").read_text() == "ran\n"
    # It says so itself: a later daemon sees the same.
    assert view.handle["job"]


def test_a_job_that_is_deleted_is_gone(box: KubeBox) -> None:
    order = box.shell(PATIENT)
    handle = box.run(order)
    box.running(order, handle)
    box.kubectl("delete", "job", handle["job"], "--wait=false")
    with pytest.raises(AssertionError, match="gone"):
        box.until(order, handle, lambda _: False)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_is_stopped_leaves_its_output(box: KubeBox, workers: int) -> None:
    order = box.shell(PATIENT, number_of_workers=workers)
    handle = box.run(order)
    view = box.running(order, handle)
    sink = KeptOutput()
    assert box.engine.stop(view, Wish(2.0), sink)
    assert sink.streams == {(n, "stdout"): b"here\nbye\n" for n in range(workers)}
    view = box.ended(order, handle)
    assert (view.outcome, view.reason) == (JobState.FAILED, "canceled")


def test_a_job_that_does_not_listen_is_killed(box: KubeBox) -> None:
    order = box.shell("echo here; sleep 1000")
    handle = box.run(order)
    sink = KeptOutput()
    assert box.engine.stop(box.running(order, handle), Wish(1.0), sink)
    assert sink.streams == {(0, "stdout"): b"here\n"}


@pytest.mark.parametrize("signal", [15, 9])
def test_a_pod_can_be_asked_with_two_signals_only(box: KubeBox, signal: int) -> None:
    box.engine.check_signal(signal)
    with pytest.raises(RequestError, match="SIGTERM") as refused:
        box.engine.check_signal(2)
    assert refused.value.field == "signal"
    order = box.shell("trap true TERM; echo here; while :; do sleep 0.1; done")
    handle = box.run(order)
    sink = KeptOutput()
    grace_s = 1.0 if signal == 15 else 1000.0
    assert box.engine.stop(box.running(order, handle), Wish(grace_s, signal), sink)
    assert sink.streams == {(0, "stdout"): b"here\n"}


# --- what is printed while it runs ----------------------------------------------------------


def test_output_comes_while_a_container_runs(box: KubeBox) -> None:
    script = "echo one; while [ ! -e /share/go ]; do sleep 0.1; done; echo two"
    order = box.shell(script, number_of_workers=2)
    handle = box.run(order)
    view = box.running(order, handle)
    assert view.count == 2
    sink, halt = KeptOutput(), Halt()
    follow = partial(box.engine.follow, view, 1, sink, halt, waits=True)
    thread = threading.Thread(target=follow)
    thread.start()
    said = {(1, "stdout"): b"one\n"}
    wait_until(lambda: sink.streams == said, "the first words")
    now = KeptOutput()
    box.engine.follow(view, 1, now, Halt(), waits=False)
    assert now.streams == said
    for worker in view.workers:
        box.kubectl("exec", worker.name, "--", "touch", "/share/go")
    ended = box.ended(order, handle)
    halt.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    whole = box.collected(ended)
    assert whole == {(n, "stdout"): b"one\ntwo\n" for n in range(2)}
    assert whole[1, "stdout"].startswith(sink.streams[1, "stdout"])
    assert {box.engine.stage_of(worker) for worker in ended.workers} == {Phase.ENDED}


def test_following_ends_when_it_is_halted(box: KubeBox) -> None:
    order = box.shell("echo one; sleep 1000")
    view = box.running(order, box.run(order))
    sink, halt = KeptOutput(), Halt()
    follow = partial(box.engine.follow, view, 0, sink, halt, waits=True)
    thread = threading.Thread(target=follow)
    thread.start()
    wait_until(lambda: sink.streams == {(0, "stdout"): b"one\n"}, "the first words")
    halt.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


# --- run in full ----------------------------------------------------------------------------


def test_words_and_working_directory_reach_the_container(box: KubeBox) -> None:
    words = ["sh", "-c", "pwd; printf '%s|' \"$@\"", "-", "a b", "$HOME", "$(CPU_LIMIT)", ""]
    order = box.order("", argv=words, cwd="/tmp")
    view = box.ended(order, box.run(order))
    assert box.collected(view)[0, "stdout"] == b"/tmp\na b|$HOME|$(CPU_LIMIT)||"


def test_what_is_told_is_what_is_made(tmp_path: Path) -> None:
    with kube_box(tmp_path, storage_type="claim") as box:
        order = box.order("true", env={"A": "$(B)"}, labels={"team": "blue"}, cwd="/tmp")
        told = box.engine.describe(order, None)
        assert box.names("jobs,configmaps,persistentvolumeclaims") == []
        box.run(order)
        for kind, thing in told.items():
            plural = "persistentvolumeclaim" if kind == "claim" else kind.lower()
            made = json.loads(box.kubectl("get", plural, thing["metadata"]["name"], "-o", "json"))
            assert _lacking(made, thing, kind) == []
        taken = box.engine.describe(box.order("true"), None)["job"]["metadata"]["name"]
        assert taken != told["job"]["metadata"]["name"]


def _lacking(made: Any, told: Any, path: str) -> list[str]:
    """Return where an object differs from what was told; the server may add to it."""
    if isinstance(told, dict) and isinstance(made, dict):
        return [
            line for key in told for line in _lacking(made.get(key), told[key], f"{path}.{key}")
        ]
    if isinstance(told, list) and isinstance(made, list) and len(told) == len(made):
        pairs = zip(made, told, strict=True)
        return [line for n, pair in enumerate(pairs) for line in _lacking(*pair, f"{path}.{n}")]
    return [] if made == told else [f"{path}: {made!r} is not {told!r}"]


def test_a_later_try_runs_beside_what_is_left_of_the_former(box: KubeBox) -> None:
    first = box.shell("exit 3", "same")
    handle = box.run(first)
    box.ended(first, handle)
    again = box.shell("echo again", "same")
    again = msgspec.structs.replace(again, job_name=f"{first.job_name}_r2")
    later = box.run(again)
    assert later["job"] != handle["job"]
    view = box.ended(again, later)
    assert (view.job_name, view.exit_code) == (again.job_name, 0)
    assert box.collected(view) == {(0, "stdout"): b"again\n"}
    assert set(box.engine.look_all()) == {first.job_name, again.job_name}
    box.engine.remove(first.job_name, handle)
    assert box.engine.look(again.job_name, later) is not None
    box.engine.remove(again.job_name, later)
    wait_until(lambda: not box.names("jobs,configmaps"), "the removal of both", DEADLINE_S)


# --- the way to the server ------------------------------------------------------------------


def test_a_version_that_is_too_old_leads_to_a_new_list(proxied: KubeBox, proxy: ApiProxy) -> None:
    proxy.age_watches(2)
    proxy.cut_connections()
    proxied.wait_watching()
    order = proxied.order("true")
    assert proxied.ended(order, proxied.run(order)).outcome is JobState.COMPLETED
    aged = [request for request in proxy.requests if request.is_aged]
    assert len(aged) == 2
    assert len(proxied.failures) <= 1  # the cut, not the age


def test_a_server_that_was_away_is_watched_again(proxied: KubeBox, proxy: ApiProxy) -> None:
    order = proxied.shell("read _ < /share/never || true; sleep 3; exit 4")
    handle = proxied.run(order)
    proxy.cut()
    with pytest.raises(BackendUnavailable, match="API server"):
        proxied.engine.look_all()
    with pytest.raises(BackendUnavailable):
        proxied.run(proxied.order("true"))
    proxy.heal()
    proxied.wait_watching()
    assert proxied.ended(order, handle).exit_code == 4
    assert len(proxied.names("jobs")) == 1


def test_a_lost_answer_is_no_second_job(proxied: KubeBox, proxy: ApiProxy) -> None:
    order = proxied.order("true")
    proxy.lose_answers("POST", JOBS)
    with pytest.raises(Unanswered):
        proxied.run(order)
    handle = proxied.run(order)
    assert proxied.ended(order, handle).outcome is JobState.COMPLETED
    assert len(proxied.names("jobs")) == 1


@pytest.mark.parametrize(("code", "words"), [(401, "oc login"), (403, "403"), (500, "500")])
def test_an_error_of_the_server_is_said(
    proxied: KubeBox, proxy: ApiProxy, code: int, words: str
) -> None:
    proxy.refuse("GET", "/pods$", code, count=1, with_watches=False)
    with pytest.raises(BackendUnavailable, match=words):
        proxied.engine.look_all()
    assert proxied.engine.look_all() == {}


def test_a_log_that_breaks_off_is_asked_for_again(proxied: KubeBox, proxy: ApiProxy) -> None:
    order = proxied.order("echo whole")
    view = proxied.ended(order, proxied.run(order))
    proxy.lose_answers("GET", "/log$")
    with pytest.raises(BackendUnavailable):
        proxied.collected(view)
    assert proxied.collected(view) == {(0, "stdout"): b"whole\n"}


def test_fifty_jobs_at_once_all_end_right(box: KubeBox) -> None:
    orders = [box.shell(f"echo {n}; exit {n % 3}", f"{box.instance}-{n}") for n in range(50)]
    handles: dict[str, dict[str, Any]] = {}

    def create(number: int) -> None:
        for order in orders[number::5]:
            handles[order.job_name] = box.run(order)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    for number, order in enumerate(orders):
        view = box.ended(order, handles[order.job_name])
        assert view.exit_code == number % 3
        assert box.collected(view) == {(0, "stdout"): b"%d\n" % number}
