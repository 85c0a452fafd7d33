"""`Guard`: sees to it that no job runs twice, and that no log is lost with its pod.

A Job controller before 1.26 replaces a pod that was deleted, `backoffLimit: 0` notwithstanding. A
job must not run twice without being asked: `tickets` keeps the new pod from starting, and its Job
is told here to have no pods, and ends with the reason.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pman.backends._openshift.cache import Cache
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.logs import containers_of
from pman.backends._openshift.objects import KubeJob, KubePod
from pman.backends._openshift.pods import (
    has_run,
    is_deleted,
    is_over,
    may_have_run,
    pod_view,
)
from pman.backends._openshift.rescue import Rescue
from pman.backends._openshift.states import ENDED_BECAUSE, ENDED_BY, handle_of, is_finished
from pman.backends._openshift.tickets import Tickets
from pman.errors import BackendUnavailable

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

_log = logging.getLogger(__name__)

#: Source: RFC 7396
MERGE_PATCH = "application/merge-patch+json"
#: So much before its deadline a Job may begin to delete its pods, as our clock sees it.
DEADLINE_SLACK = timedelta(seconds=5)


class Guard:
    """Looks at each Job when something happens to one of its pods."""

    def __init__(self, cache: Cache, rescue: Rescue, tickets: Tickets) -> None:
        self._tickets = tickets
        self._cache = cache
        self._rescue = rescue
        self._lock = threading.Lock()
        self._spared: set[str] = set()

    def spare(self, job_name: str) -> None:
        """Leave a job alone from now on: we end or remove it ourselves."""
        with self._lock:
            self._spared.add(job_name)

    def forget(self, job_name: str) -> None:
        """Forget a job that is no more."""
        with self._lock:
            self._spared.discard(job_name)
        self._tickets.forget(job_name)
        self._rescue.drop(job_name)

    def keep_only(self, job_names: Collection[str]) -> None:
        """Forget all jobs but these."""
        with self._lock:
            self._spared.intersection_update(job_names)
        self._tickets.keep_only(job_names)
        self._rescue.keep_only(job_names)

    def saw(self, api: Api, job_name: str) -> None:
        """Look at a job. A failure is logged: the next event brings the next look."""
        known = self._cache.get(job_name)
        with self._lock:
            if known is None or job_name in self._spared:
                return
        job, pods = known
        for pod in vanishing(pods):
            name = pod.metadata.name
            is_over = functools.partial(self._cache.is_pod_over, job_name, name)
            for container, _ in containers_of(handle_of(job)):
                self._rescue.begin(api, job_name, name, container, is_over)
        deleted = deleted_by_others(job, pods, api.now())
        try:
            if deleted is not None or have_all_started(job, pods):
                self._tickets.take(api, job_name)
            if deleted is not None:
                self._end(api, job_name, job, deleted)
        except BackendUnavailable as exc:
            _log.warning("Job %s could not be guarded: %s", job.metadata.name, exc)

    def _end(self, api: Api, job_name: str, job: KubeJob, deleted: KubePod) -> None:
        """Have a Job make no more pods, unless it has ended meanwhile."""
        path = f"{api.jobs}/{job.metadata.name}"
        try:
            now = api.get(path, KubeJob)
            if now.metadata.uid != job.metadata.uid or _is_settled(now):
                return
            worker = pod_view(deleted, api.now()).worker
            message = f"pod {deleted.metadata.name} was deleted before the job had ended"
            reason = worker.reason if worker.reason in ("evicted", "node_lost") else "pod_deleted"
            end_job(api, job.metadata.name, reason, message)
        except Answered as exc:
            if exc.status == 404:
                return  # its pods go because it has gone
            raise
        _log.info("job %s is ended: %s", job_name, message)


def end_job(api: Api, name: str, reason: str, message: str) -> None:
    """Have a Job delete its running pods and make no more, and note why.

    Raises:
        BackendUnavailable: It can't be told.
    """
    patch: dict[str, Any] = {
        "metadata": {"annotations": {ENDED_BY: reason, ENDED_BECAUSE: message}},
        "spec": {"parallelism": 0},
    }
    api.request("PATCH", f"{api.jobs}/{name}", body=patch, content_type=MERGE_PATCH)


def vanishing(pods: list[KubePod]) -> list[KubePod]:
    """Return the pods that may run, and whose logs may soon be gone.

    One that is said to be pending may run already: a node that is busy tells so late, or never.
    """
    running = [pod for pod in pods if not is_over(pod)]
    if any(pod.status.phase == "Failed" for pod in pods):
        return running
    return [pod for pod in running if pod.metadata.deletion_timestamp is not None]


def deleted_by_others(job: KubeJob, pods: list[KubePod], now: datetime) -> KubePod | None:
    """Return a pod that was deleted although its Job is not done, and not by the Job itself.

    One that can't have started may be replaced.
    """
    if _is_settled(job) or _is_past_deadline(job, now):
        return None
    deleted = [pod for pod in pods if is_deleted(pod) and may_have_run(pod)]
    # One that has failed by itself makes the Job controller delete all others.
    if any(pod.status.phase == "Failed" and pod not in deleted for pod in pods):
        return None
    return min(deleted, key=lambda pod: str(pod.metadata.creation_timestamp), default=None)


def have_all_started(job: KubeJob, pods: list[KubePod]) -> bool:
    """Whether each worker has begun, so that a further pod could only be a second run."""
    return sum(has_run(pod) for pod in pods) >= job.spec.completions or is_finished(job)


def _is_settled(job: KubeJob) -> bool:
    return (
        is_finished(job)
        or ENDED_BY in job.metadata.annotations
        or job.metadata.deletion_timestamp is not None
        or job.spec.parallelism == 0
        or any(c.type in ("FailureTarget", "SuccessCriteriaMet") for c in job.status.conditions)
    )


def _is_past_deadline(job: KubeJob, now: datetime) -> bool:
    limit_s, start = job.spec.active_deadline_seconds, job.status.start_time
    if limit_s is None or start is None:
        return False
    return now >= start + timedelta(seconds=limit_s) - DEADLINE_SLACK
