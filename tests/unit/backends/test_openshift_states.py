"""A Job and its pods become the view that they mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kube_objects import AT, JOB_NAME, RUNNING, condition, ended, job, pod, waiting

from pman.backends._engine.port import Phase, View
from pman.backends._openshift.guard import deleted_by_others, vanishing
from pman.backends._openshift.objects import KubeJob, KubePod
from pman.backends._openshift.states import view_of
from pman.job.state import JobState

NOW = datetime(2026, 11, 23, 9, 3, tzinfo=UTC)

FAILED = {"failed": 1, "conditions": [condition("Failed", "BackoffLimitExceeded", "too often")]}
COMPLETE = {
    "succeeded": 1,
    "startTime": AT.format(0),
    "completionTime": AT.format(9),
    "conditions": [condition("Complete")],
}


def view(job_object: KubeJob, *pods: KubePod) -> View:
    return view_of(job_object, list(pods), NOW)


def test_a_job_without_status_waits() -> None:
    seen = view(job())
    assert (seen.phase, seen.reason, seen.workers) == (Phase.WAITING, "", [])
    assert (seen.job_name, seen.handle["job"]) == (JOB_NAME, "kx")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("ErrImagePull", "image_pull_failed"),
        ("ImagePullBackOff", "image_pull_failed"),
        ("InvalidImageName", "image_pull_failed"),
        ("ErrImageNeverPull", "image_pull_failed"),
        ("CreateContainerConfigError", "config_error"),
        ("ContainerCreating", ""),
        ("PodInitializing", ""),
    ],
)
def test_a_waiting_container_says_why(reason: str, expected: str) -> None:
    seen = view(job({"active": 1}), pod(state=waiting(reason, "words")))
    assert (seen.phase, seen.reason) == (Phase.WAITING, expected)
    assert seen.message == ("words" if expected else "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ('Back-off pulling image "local/x:9"', 'Back-off pulling image "local/x:9"'),
        ("lookup registry: no such host", "image 'local/x:9': lookup registry: no such host"),
    ],
)
def test_an_image_that_can_not_be_pulled_is_named(words: str, message: str) -> None:
    status = {"name": "kx", "image": "local/x:9", "state": waiting("ErrImagePull", words)}
    seen = view(job({"active": 1}), pod(status={"containerStatuses": [status]}))
    assert (seen.reason, seen.message) == ("image_pull_failed", message)


def test_an_image_of_root_is_told_what_helps() -> None:
    words = "container has runAsNonRoot and image will run as root"
    seen = view(job({"active": 1}), pod(state=waiting("CreateContainerConfigError", words)))
    assert seen.reason == "config_error"
    assert "--jobUID" in seen.message


def test_an_init_container_that_can_not_start_counts() -> None:
    status = {
        "initContainerStatuses": [{"name": "init-storage", "state": waiting("ErrImagePull", "no")}]
    }
    seen = view(job({"active": 1}), pod(state=waiting("PodInitializing"), status=status))
    assert (seen.phase, seen.reason, seen.message) == (Phase.WAITING, "image_pull_failed", "no")


def test_a_pod_that_no_node_takes_is_unschedulable() -> None:
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available",
    }
    seen = view(job({"active": 1}), pod(status={"conditions": [scheduled]}))
    assert (seen.phase, seen.reason) == (Phase.WAITING, "unschedulable")
    assert seen.message == "0/1 nodes are available"


def test_a_running_container_runs() -> None:
    seen = view(job({"active": 1}), pod(phase="Running", state=RUNNING))
    assert (seen.phase, seen.reason) == (Phase.RUNNING, "")
    assert seen.started_at == datetime(2026, 11, 23, 9, 2, 2, tzinfo=UTC).timestamp()
    assert [(w.name, w.state, w.returncode) for w in seen.workers] == [("kx-a", "Running", None)]


def test_a_complete_job_has_completed() -> None:
    seen = view(job(COMPLETE), pod(phase="Succeeded", state=ended(0)))
    assert (seen.phase, seen.outcome, seen.exit_code) == (Phase.ENDED, JobState.COMPLETED, 0)
    assert (seen.reason, seen.signal) == ("ok", None)
    assert seen.ended_at == datetime(2026, 11, 23, 9, 2, 9, tzinfo=UTC).timestamp()


def test_a_complete_job_whose_pods_are_gone_has_completed() -> None:
    seen = view(job(COMPLETE))
    assert (seen.outcome, seen.exit_code, seen.workers) == (JobState.COMPLETED, 0, [])
    assert seen.ended_at == datetime(2026, 11, 23, 9, 2, 10, tzinfo=UTC).timestamp()


def test_a_complete_job_has_not_ended_before_its_pods_have() -> None:
    assert view(job(COMPLETE), pod(phase="Running", state=RUNNING)).phase is Phase.RUNNING


def test_pods_that_have_ended_do_not_end_a_job() -> None:
    assert view(job({"active": 1}), pod(phase="Succeeded", state=ended(0))).phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("code", "signal"), [(1, None), (126, None), (128, None), (137, 9), (143, 15), (255, None)]
)
def test_a_failed_job_has_the_code_of_its_pod(code: int, signal: int | None) -> None:
    seen = view(job(FAILED), pod(phase="Failed", state=ended(code)))
    assert (seen.outcome, seen.reason) == (JobState.FAILED, "error")
    assert (seen.exit_code, seen.signal) == (code, signal)
    assert str(code) in seen.message


def test_a_failed_job_whose_pods_are_gone_has_the_clusters_words() -> None:
    seen = view(job(FAILED))
    assert (seen.outcome, seen.reason, seen.message) == (JobState.FAILED, "error", "too often")
    assert seen.exit_code is None


def pod_condition(kind: str, reason: str, message: str) -> dict[str, Any]:
    return {"conditions": [condition(kind, reason, message)]}


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        (pod(phase="Failed", state=ended(137, "OOMKilled")), "oom_killed"),
        (pod(phase="Failed", status={"reason": "Evicted", "message": "low on memory"}), "evicted"),
        (pod(phase="Failed", status={"reason": "NodeLost"}), "node_lost"),
        (pod(phase="Failed", status={"reason": "OutOfcpu"}), "rejected"),
        (
            pod(
                phase="Failed",
                status=pod_condition("DisruptionTarget", "DeletionByTaintManager", "gone"),
            ),
            "node_lost",
        ),
        (
            pod(
                phase="Failed",
                status=pod_condition("DisruptionTarget", "PreemptionByScheduler", "less"),
            ),
            "evicted",
        ),
        (pod(phase="Failed", deletionTimestamp=AT.format(8), state=ended(143)), "pod_deleted"),
    ],
)
def test_a_failed_pod_says_why(failed: KubePod, reason: str) -> None:
    seen = view(job(FAILED), failed)
    assert (seen.outcome, seen.reason) == (JobState.FAILED, reason)
    assert seen.message


def test_a_code_that_the_kubelet_made_up_is_unknown() -> None:
    gone = pod(
        phase="Failed", state=ended(137, "ContainerStatusUnknown"), deletionTimestamp=AT.format(8)
    )
    seen = view(job(FAILED), gone)
    assert (seen.exit_code, seen.workers[0].returncode) == (None, None)


def test_a_passed_deadline_is_the_reason_whatever_the_code() -> None:
    late = {"failed": 1, "conditions": [condition("Failed", "DeadlineExceeded", "too long")]}
    killed = pod(phase="Failed", state=ended(143), deletionTimestamp=AT.format(8))
    seen = view(job(late), killed)
    assert (seen.outcome, seen.reason) == (JobState.FAILED, "deadline_exceeded")
    assert (seen.message, seen.exit_code) == ("too long", 143)


def test_the_worker_that_failed_by_itself_is_the_cause() -> None:
    workers = [
        pod("kx-a", "Failed", ended(143, second=5), deletionTimestamp=AT.format(4)),
        pod("kx-b", "Failed", ended(7, second=3)),
        pod("kx-c", "Succeeded", ended(0, second=2)),
    ]
    seen = view(job(FAILED, completions=3, parallelism=3), *workers)
    assert (seen.exit_code, seen.reason) == (7, "error")
    assert seen.message.startswith("kx-b: ")
    assert [w.returncode for w in seen.workers] == [143, 7, 0]
    assert [w.reason for w in seen.workers] == ["stopped", "error", "ok"]


def test_workers_are_in_the_order_in_which_they_were_made() -> None:
    pods = [pod("kx-z"), pod("kx-b", creationTimestamp=AT.format(3)), pod("kx-a")]
    seen = view(job({"active": 3}, completions=3), *pods)
    assert [worker.name for worker in seen.workers] == ["kx-a", "kx-z", "kx-b"]


def test_a_replacement_is_no_worker_but_must_have_ended_too() -> None:
    ours = {"pman.ended-by": "pod_deleted", "pman.ended-because": "pod kx-a was deleted"}
    first = pod("kx-a", "Failed", ended(143), deletionTimestamp=AT.format(4))
    second = pod("kx-b", "Running", RUNNING, creationTimestamp=AT.format(4))
    over = pod("kx-b", "Failed", ended(137), creationTimestamp=AT.format(4))
    assert view(job(annotations=ours), first, second).phase is Phase.RUNNING
    seen = view(job(annotations=ours), first, over)
    assert (seen.phase, seen.outcome) == (Phase.ENDED, JobState.FAILED)
    assert (seen.reason, seen.message) == ("pod_deleted", "pod kx-a was deleted")
    assert [(w.name, w.returncode) for w in seen.workers] == [("kx-a", 143)]


def test_a_pod_that_was_replaced_before_it_started_is_no_worker() -> None:
    first = pod("kx-a", state=waiting("ContainerCreating"), deletionTimestamp=AT.format(4))
    second = pod("kx-b", "Running", RUNNING, creationTimestamp=AT.format(4))
    assert deleted_by_others(job({"active": 1}), [first, second], NOW) is None
    assert [worker.name for worker in view(job({"active": 1}), first, second).workers] == ["kx-b"]
    assert [worker.name for worker in view(job({"active": 1}), first).workers] == ["kx-a"]


@pytest.mark.parametrize(
    ("reason", "may_have_run"),
    [("ContainerCreating", True), ("ImagePullBackOff", False), ("CreateContainerError", False)],
)
def test_a_node_may_not_have_told_that_a_pod_has_started(reason: str, may_have_run: bool) -> None:
    placed = {"type": "PodScheduled", "status": "True"}
    marked = pod(
        state=waiting(reason), status={"conditions": [placed]}, deletionTimestamp=AT.format(4)
    )
    found = deleted_by_others(job({"active": 1}), [marked], NOW)
    assert found is (marked if may_have_run else None)


def test_a_canceled_job_has_not_ended_while_pods_are_counted() -> None:
    ours = {"pman.ended-by": "canceled"}
    assert view(job({"active": 1}, annotations=ours)).phase is not Phase.ENDED
    assert view(job(annotations=ours)).reason == "canceled"


def test_a_newer_controller_counts_a_canceled_job_as_failed() -> None:
    ours = {"pman.ended-by": "canceled"}
    failed = {"conditions": [condition("Failed", "BackoffLimitExceeded")]}
    deleted = pod(phase="Failed", state=ended(143), deletionTimestamp=AT.format(8))
    assert view(job(failed, annotations=ours), deleted).reason == "canceled"
    assert view(job(failed, annotations=ours)).reason == "canceled"
    own = pod(phase="Failed", state=ended(3))
    assert view(job(failed, annotations=ours), own).reason == "error"
    late = {"conditions": [condition("Failed", "DeadlineExceeded")]}
    assert view(job(late, annotations=ours), deleted).reason == "deadline_exceeded"


def test_a_pod_that_can_not_be_deleted_is_on_a_lost_node() -> None:
    stuck = pod(phase="Running", state=RUNNING, deletionTimestamp=AT.format(1))
    ours = {"pman.ended-by": "node_lost"}
    assert view_of(job(annotations=ours), [stuck], NOW).phase is Phase.RUNNING
    seen = view_of(job(annotations=ours), [stuck], NOW + timedelta(minutes=5))
    assert (seen.phase, seen.workers[0].reason) == (Phase.ENDED, "node_lost")


def test_the_summary_has_the_keys_of_2_2() -> None:
    seen = view(job(COMPLETE), pod(phase="Succeeded", state=ended(0)))
    assert seen.extra == {
        "state": {
            "Message": "finished",
            "State": "complete",
            "Reason": None,
            "Active": None,
            "Failed": None,
            "Succeeded": 1,
            "StartTime": "2026-11-23T09:02:00+00:00",
            "CompletionTime": "2026-11-23T09:02:09+00:00",
        }
    }


# --- pods that others delete --------------------------------------------------------------


def test_a_pod_that_somebody_deletes_is_noticed() -> None:
    marked = pod(phase="Running", state=RUNNING, deletionTimestamp=AT.format(8))
    found = deleted_by_others(job({"active": 1}), [marked, pod("kx-b")], NOW)
    assert found is marked


@pytest.mark.parametrize(
    "done",
    [
        job(FAILED),
        job(COMPLETE),
        job(parallelism=0),
        job(annotations={"pman.ended-by": "canceled"}),
        job(deletionTimestamp=AT.format(8)),
        job({"conditions": [condition("FailureTarget")]}),
        job({"startTime": AT.format(0)}, activeDeadlineSeconds=30),
    ],
)
def test_a_job_that_ends_may_delete_its_pods(done: KubeJob) -> None:
    marked = pod(phase="Running", state=RUNNING, deletionTimestamp=AT.format(8))
    assert deleted_by_others(done, [marked], NOW) is None


def test_pods_go_along_with_one_that_has_failed() -> None:
    marked = pod(phase="Running", state=RUNNING, deletionTimestamp=AT.format(8))
    failed = pod("kx-b", "Failed", ended(1))
    assert deleted_by_others(job({"active": 1}), [marked, failed], NOW) is None
    assert vanishing([marked, failed]) == [marked]


def test_only_logs_that_may_vanish_are_kept() -> None:
    running = pod(phase="Running", state=RUNNING)
    marked = pod("kx-b", "Running", RUNNING, deletionTimestamp=AT.format(8))
    assert vanishing([running, pod("kx-c", "Succeeded", ended(0))]) == []
    assert vanishing([running, marked]) == [marked]
