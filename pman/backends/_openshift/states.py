"""A Job and its pods as a `View`; pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pman.backends._engine.codes import signal_of
from pman.backends._engine.port import JOB_LABEL, Phase, View
from pman.backends._openshift.objects import Condition, KubeJob, KubePod
from pman.backends._openshift.pods import DELETED, PodView, epoch, pod_view
from pman.job.record import Worker
from pman.job.state import JobState

#: Annotations of a Job that pman has ended: why, in its word and in a sentence.
ENDED_BY, ENDED_BECAUSE = "pman.ended-by", "pman.ended-because"
#: Value of `ENDED_BY` for a job that somebody wanted to end.
CANCELED = "canceled"


def view_of(job: KubeJob, pods: list[KubePod], now: datetime) -> View:
    """Say how a Job stands.

    Args:
        job: As the API server has it.
        pods: All that were seen of it, those that are gone included.
        now: To tell a pod that is being deleted from one whose node is lost.
    """
    seen = [pod_view(pod, now) for pod in in_order(pods)]
    workers = _workers(seen, job.spec.completions)
    view = View(
        job_name=job.metadata.labels.get(JOB_LABEL, ""),
        handle=handle_of(job),
        phase=_phase(job, seen),
        count=job.spec.completions,
        workers=[pod.worker for pod in workers],
        started_at=epoch(min((p.started_at for p in workers if p.started_at), default=None)),
        extra={"state": _summary(job)},
    )
    if view.phase is Phase.ENDED:
        _judge(job, workers, view)
    else:
        stuck = next((pod.worker for pod in workers if pod.worker.reason), Worker(""))
        if stuck.reason not in ("", "ok"):
            view.reason, view.message = stuck.reason, stuck.message
    return view


def _workers(seen: list[PodView], count: int) -> list[PodView]:
    """Return one pod for each worker.

    There are more where some were deleted: one that can't have started is replaced; another is
    not, and of its successor matters only whether it runs.
    """
    if len(seen) > count:
        seen = [pod for pod in seen if pod.may_have_run or not pod.is_deleted] or seen
    return seen[:count]


def handle_of(job: KubeJob) -> dict[str, Any]:
    """Return what finds a Job again."""
    pod = job.spec.template.spec
    containers = [container.name for container in (*pod.init_containers, *pod.containers)]
    return {"job": job.metadata.name, "uid": job.metadata.uid, "containers": containers}


def in_order(pods: list[KubePod]) -> list[KubePod]:
    """Return pods in an order that stays when more are seen."""
    return sorted(pods, key=lambda pod: (str(pod.metadata.creation_timestamp), pod.metadata.name))


def condition(job: KubeJob, kind: str) -> Condition | None:
    """Return a condition of a Job if it is true."""
    for found in job.status.conditions:
        if found.type == kind and found.status == "True":
            return found
    return None


def is_finished(job: KubeJob) -> bool:
    """Whether the Job controller is done with it."""
    return any(condition(job, kind) is not None for kind in ("Complete", "Failed"))


def _phase(job: KubeJob, pods: list[PodView]) -> Phase:
    ended_by_us = ENDED_BY in job.metadata.annotations and not job.status.active
    if (is_finished(job) or ended_by_us) and all(pod.phase is Phase.ENDED for pod in pods):
        return Phase.ENDED
    # A pod that was deleted before its container has started has not begun the job.
    if any(pod.phase is Phase.RUNNING or pod.started_at is not None for pod in pods):
        return Phase.RUNNING
    # All pods of a job that has begun may be gone, and the next ones not yet made.
    has_begun = job.status.succeeded or (job.status.failed and not pods)
    return Phase.RUNNING if has_begun else Phase.WAITING


def _judge(job: KubeJob, pods: list[PodView], view: View) -> None:
    """Fill in how a Job has ended."""
    failed = condition(job, "Failed")
    ends = [pod.ended_at for pod in pods if pod.ended_at is not None]
    done_at = [job.status.completion_time, *(c.last_transition_time for c in job.status.conditions)]
    view.ended_at = epoch(max(ends or [at for at in done_at if at is not None], default=None))
    if condition(job, "Complete") is not None:
        view.outcome, view.exit_code, view.reason = JobState.COMPLETED, 0, "ok"
        return
    view.outcome = JobState.FAILED
    first = _first_failure(pods)
    if first is not None:
        view.reason, view.message = first.worker.reason, _with_worker(first.worker, pods)
        view.exit_code = first.worker.returncode
        view.signal = signal_of(first.worker.returncode)
    if failed is not None and failed.reason == "DeadlineExceeded":
        view.reason, view.message = "deadline_exceeded", failed.message
    elif failed is None or _is_failed_by_us(job, first):
        view.reason = job.metadata.annotations[ENDED_BY]
        view.message = job.metadata.annotations.get(ENDED_BECAUSE, "")
    elif first is None:
        view.reason, view.message = "error", failed.message or failed.reason
    for pod in pods:
        if pod is not first and pod.worker.reason == DELETED:
            pod.worker.reason, pod.worker.message = "stopped", "ended along with its job"


def _is_failed_by_us(job: KubeJob, first: PodView | None) -> bool:
    """Whether a Job counts as failed for the pods that were deleted when pman ended it.

    Source: Kubernetes 1.26 and later, pkg/controller/job, where a deleted pod is a failed one.
    """
    is_deleted = first is None or (first.is_deleted and first.worker.reason == DELETED)
    return is_deleted and ENDED_BY in job.metadata.annotations


def _first_failure(pods: list[PodView]) -> PodView | None:
    """Return the pod that failed first; those deleted along with a failed one don't count."""
    failed = [pod for pod in pods if pod.has_failed]
    own = [pod for pod in failed if not (pod.is_deleted and pod.worker.reason == DELETED)]
    return min(own or failed, key=lambda pod: epoch(pod.ended_at) or float("inf"), default=None)


def _with_worker(worker: Worker, pods: list[PodView]) -> str:
    return f"{worker.name}: {worker.message}" if len(pods) > 1 else worker.message


def _summary(job: KubeJob) -> dict[str, Any]:
    """Return the status of a Job with the keys of 2.2. Source: WIRE.md 15.3."""
    status = job.status
    failed = condition(job, "Failed")
    word, state = "inactive", "inactive"
    if failed is not None:
        word, state = "finished", "failed"
    elif condition(job, "Complete") is not None:
        word, state = "finished", "complete"
    elif status.active:
        word, state = "started", "running"
    return {
        "Message": word,
        "State": state,
        "Reason": failed.reason if failed is not None else None,
        "Active": status.active,
        "Failed": status.failed,
        "Succeeded": status.succeeded,
        "StartTime": _text(status.start_time),
        "CompletionTime": _text(status.completion_time),
    }


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
