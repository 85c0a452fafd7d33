"""What one pod says about its container; pure.

A worker of a job is one pod: its first container runs the command, others only help.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from pman.backends._engine.port import Phase
from pman.backends._openshift.objects import ContainerStatus, KubePod, Terminated, Waiting
from pman.job.record import Worker

#: Why a container waits -> why it can't start. What is not here passes by itself.
#: Source: Kubernetes, pkg/kubelet/images/types.go, pkg/kubelet/container/sync_result.go
WAITING_REASONS = {
    "ErrImagePull": "image_pull_failed",
    "ImagePullBackOff": "image_pull_failed",
    "InvalidImageName": "image_pull_failed",
    "ErrImageNeverPull": "image_pull_failed",
    "ImageInspectError": "image_pull_failed",
    "RegistryUnavailable": "image_pull_failed",
    "SignatureValidationFailed": "image_pull_failed",
    "CreateContainerConfigError": "config_error",
    "CreateContainerError": "config_error",
    "RunContainerError": "config_error",
    "CreatePodSandboxError": "config_error",
    "ConfigPodSandboxError": "config_error",
}

#: `status.reason` of a pod -> how it ended. Source: Kubernetes, pkg/kubelet, pkg/util/node
POD_REASONS = {
    "Evicted": "evicted",
    "Preempting": "evicted",
    "NodeLost": "node_lost",
    "Shutdown": "node_lost",
    "NodeShutdown": "node_lost",
    "Terminated": "node_lost",
    "DeadlineExceeded": "deadline_exceeded",
    "NodeAffinity": "rejected",
    "OutOfcpu": "rejected",
    "OutOfmemory": "rejected",
    "OutOfpods": "rejected",
    "UnexpectedAdmissionError": "rejected",
}

#: Reason of the condition `DisruptionTarget` -> how it ended.
#: Source: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
DISRUPTIONS = {
    "PreemptionByScheduler": "evicted",
    "EvictionByEvictionAPI": "evicted",
    "TerminationByKubelet": "evicted",
    "DeletionByTaintManager": "node_lost",
    "DeletionByPodGC": "node_lost",
}

#: Reasons of ends whose exit code was made up by the kubelet: the container was gone.
UNKNOWN_ENDS = ("ContainerStatusUnknown",)

#: What a pod is said to have been ended by that somebody has deleted.
DELETED = "pod_deleted"

#: How long after its time a pod may go on being deleted before its node counts as lost.
STUCK_AFTER = timedelta(seconds=60)

#: Words of `_state` -> how far the container is that runs the command; others: it has not started.
STAGES = {
    "Running": Phase.RUNNING,
    "Terminating": Phase.RUNNING,
    "Succeeded": Phase.ENDED,
    "Failed": Phase.ENDED,
    "Deleted": Phase.ENDED,
}

_ROOT_WORDS = "runAsNonRoot"
_ROOT_ADVICE = "; --jobUID sets a user id"


class PodView(msgspec.Struct):
    """How one pod stands.

    Attributes:
        worker: For the record.
        phase: Of its containers.
        started_at, ended_at: Of its containers, or None.
        is_deleted: Somebody has deleted the pod.
        may_have_run: Its command has been started, or may have been.
        has_failed: It ended, and not well.
    """

    worker: Worker
    phase: Phase
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_deleted: bool = False
    may_have_run: bool = False
    has_failed: bool = False


def pod_view(pod: KubePod, now: datetime) -> PodView:
    """Say how a pod stands."""
    statuses = [*pod.status.init_container_statuses, *_main_first(pod)]
    view = PodView(
        worker=Worker(name=pod.metadata.name, state=_state(pod, statuses)),
        phase=_phase(pod, statuses, now),
        started_at=_first_start(statuses),
        is_deleted=is_deleted(pod),
        may_have_run=may_have_run(pod),
    )
    if view.phase is Phase.ENDED:
        _judge(pod, statuses, view, now)
    else:
        view.worker.reason, view.worker.message = _trouble(pod, statuses)
    return view


def is_over(pod: KubePod) -> bool:
    """Whether the containers of a pod have ended for good, as the API server says."""
    return pod.is_gone or pod.status.phase in ("Succeeded", "Failed")


def is_deleted(pod: KubePod) -> bool:
    """Whether somebody has deleted a pod, be it still there or not."""
    return pod.is_gone or pod.metadata.deletion_timestamp is not None


def has_run(pod: KubePod) -> bool:
    """Whether the command of a pod has been started, as far as its node has told."""
    if is_over(pod) and not is_deleted(pod):
        return True
    main = _main_first(pod)[:1]
    return any(s.state.running is not None or _terminated(s) is not None for s in main)


def may_have_run(pod: KubePod) -> bool:
    """Whether the command of a pod may have been started: a busy node tells so late, or never."""
    statuses = [*pod.status.init_container_statuses, *pod.status.container_statuses]
    is_placed = any((c.type, c.status) == ("PodScheduled", "True") for c in pod.status.conditions)
    return has_run(pod) or (is_placed and _trouble(pod, statuses) == ("", ""))


def is_waiting_without_word(pod: KubePod) -> bool:
    """Whether a pod has been given a node, and does not say why it has not started.

    A volume that can't be mounted is such a reason: only events tell.
    """
    if is_over(pod) or not pod.status.container_statuses:
        return False
    statuses = [*pod.status.init_container_statuses, *pod.status.container_statuses]
    words = ("", "ContainerCreating", "PodInitializing")
    return all(s.state.waiting is not None and s.state.waiting.reason in words for s in statuses)


def _main_first(pod: KubePod) -> list[ContainerStatus]:
    names = [container.name for container in pod.spec.containers]
    order = {name: index for index, name in enumerate(names)}
    return sorted(pod.status.container_statuses, key=lambda s: order.get(s.name, len(order)))


def _terminated(status: ContainerStatus) -> Terminated | None:
    # Kubernetes 1.20 may set a container that has ended back to waiting while its pod is deleted.
    return status.state.terminated or status.last_state.terminated


def _phase(pod: KubePod, statuses: list[ContainerStatus], now: datetime) -> Phase:
    if is_over(pod) or _is_stuck(pod, now):
        return Phase.ENDED
    if any(s.state.running is not None or _terminated(s) is not None for s in statuses):
        return Phase.RUNNING
    return Phase.RUNNING if pod.status.phase == "Running" else Phase.WAITING


def _is_stuck(pod: KubePod, now: datetime) -> bool:
    """Whether a pod is past the moment at which its deletion should have been over."""
    deadline = pod.metadata.deletion_timestamp
    return deadline is not None and now > deadline + STUCK_AFTER


def _state(pod: KubePod, statuses: list[ContainerStatus]) -> str:
    """Return the word that `kubectl get pods` would show, roughly."""
    if is_over(pod):
        return "Deleted" if pod.is_gone and pod.status.phase == "Running" else pod.status.phase
    if pod.metadata.deletion_timestamp is not None:
        return "Terminating"
    reasons = [s.state.waiting.reason for s in statuses if s.state.waiting is not None]
    stuck = [reason for reason in reasons if reason in WAITING_REASONS]
    return (stuck or [pod.status.phase or "Pending"])[0]


def _first_start(statuses: list[ContainerStatus]) -> datetime | None:
    starts = [s.state.running.started_at for s in statuses if s.state.running is not None]
    ended = [end for s in statuses if (end := _terminated(s)) is not None]
    found = [at for at in [*starts, *(end.started_at for end in ended)] if at is not None]
    return min(found, default=None)


def _trouble(pod: KubePod, statuses: list[ContainerStatus]) -> tuple[str, str]:
    """Return why a pod can't start, in our word and in the engine's words; ("", "") if it can."""
    for status in statuses:
        waiting = status.state.waiting
        if waiting is not None and waiting.reason in WAITING_REASONS:
            return WAITING_REASONS[waiting.reason], _waiting_words(waiting, status.image)
    for condition in pod.status.conditions:
        if (condition.type, condition.status) == ("PodScheduled", "False"):
            return "unschedulable", condition.message or condition.reason
    return "", ""


def _waiting_words(waiting: Waiting, image: str) -> str:
    message = waiting.message or waiting.reason
    if WAITING_REASONS[waiting.reason] == "image_pull_failed" and image not in message:
        message = f"image {image!r}: {message}"  # some words of an engine name its registry only
    return message + _ROOT_ADVICE if _ROOT_WORDS in message else message


def _judge(pod: KubePod, statuses: list[ContainerStatus], view: PodView, now: datetime) -> None:
    """Fill in how a pod has ended."""
    ends = [end for s in statuses if (end := _terminated(s)) is not None]
    bad = next((end for end in _by_weight(pod, statuses) if end.exit_code != 0), None)
    view.ended_at = max((end.finished_at for end in ends if end.finished_at), default=None)
    worker = view.worker
    if pod.status.phase == "Succeeded":
        worker.returncode, worker.reason = 0, "ok"
        return
    view.has_failed = True
    if bad is not None and bad.reason not in UNKNOWN_ENDS:
        worker.returncode = bad.exit_code
    worker.reason, worker.message = _cause(pod, ends, bad, now)


def _by_weight(pod: KubePod, statuses: list[ContainerStatus]) -> list[Terminated]:
    """Return the ends of containers: that of the command first, then those that help."""
    helpers = len(pod.status.init_container_statuses)
    ordered = [*statuses[helpers:], *statuses[:helpers]]
    return [end for status in ordered if (end := _terminated(status)) is not None]


def _cause(
    pod: KubePod, ends: list[Terminated], bad: Terminated | None, now: datetime
) -> tuple[str, str]:
    status = pod.status
    if any(end.reason == "OOMKilled" for end in ends):
        return "oom_killed", "the container was killed because it needs more than its memory limit"
    if status.reason in POD_REASONS:
        return POD_REASONS[status.reason], status.message or status.reason
    for condition in status.conditions:
        if (condition.type, condition.status) == ("DisruptionTarget", "True"):
            word = DISRUPTIONS.get(condition.reason, "evicted")
            return word, condition.message or condition.reason
    if not is_over(pod) and _is_stuck(pod, now):
        return "node_lost", f"the node of pod {pod.metadata.name} does not answer"
    if pod.metadata.deletion_timestamp is not None or pod.is_gone:
        return DELETED, f"pod {pod.metadata.name} was deleted before it had ended"
    if bad is not None:
        return "error", bad.message.strip() or f"the container ended with exit code {bad.exit_code}"
    return "error", status.message or f"pod {pod.metadata.name} has failed"


def epoch(at: datetime | None) -> float | None:
    """Return UTC epoch seconds."""
    return None if at is None else at.timestamp()


def utc_now() -> datetime:
    """Return the time of this machine; that of the objects is `Api.now`."""
    return datetime.now(UTC)
