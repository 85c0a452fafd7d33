"""`Cache`: the Jobs and pods of this instance as the watches have brought them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from pman.backends._engine.port import JOB_LABEL
from pman.backends._openshift.objects import KubeJob, KubePod
from pman.backends._openshift.pods import is_over


class Cache:
    """Jobs by the name of pman's job, and their pods. Thread-safe.

    A pod that is gone is kept as long as its Job is there: its exit code counts.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[str, KubeJob] = {}
        self._pods: dict[str, dict[str, KubePod]] = {}
        self._is_live = False

    def get(self, job_name: str) -> tuple[KubeJob, list[KubePod]] | None:
        """Return a Job and its pods; None when it is not known or nobody watches."""
        with self._changed:
            job = self._jobs.get(job_name) if self._is_live else None
            return None if job is None else (job, list(self._pods.get(job_name, {}).values()))

    def gone_pods(self, job_name: str) -> list[KubePod]:
        """Return the pods of a job that are no more."""
        with self._changed:
            return [pod for pod in self._pods.get(job_name, {}).values() if pod.is_gone]

    def is_pod_over(self, job_name: str, pod_name: str) -> bool:
        """Whether a pod has ended, or is not known."""
        with self._changed:
            pod = self._pods.get(job_name, {}).get(pod_name)
            return pod is None or is_over(pod)

    def replace(self, jobs: Iterable[KubeJob], pods: Iterable[KubePod]) -> None:
        """Take over what two lists have brought; from now on it is kept up to date."""
        with self._changed:
            self._jobs = {job_label(job): job for job in jobs}
            for job_name, known in list(self._pods.items()):
                if job_name in self._jobs:
                    self._pods[job_name] = {name: _gone(pod) for name, pod in known.items()}
                else:
                    del self._pods[job_name]
            for pod in pods:
                self._put(pod)
            self._is_live = True
            self._changed.notify_all()

    def mark_stale(self) -> None:
        """Say that nobody watches any more."""
        with self._changed:
            self._is_live = False
            self._changed.notify_all()

    def put_job(self, job: KubeJob) -> None:
        """Keep a Job that was added or changed."""
        with self._changed:
            self._jobs[job_label(job)] = job
            self._changed.notify_all()

    def drop_job(self, job: KubeJob) -> None:
        """Forget a Job that is no more, and its pods."""
        with self._changed:
            self._jobs.pop(job_label(job), None)
            self._pods.pop(job_label(job), None)
            self._changed.notify_all()

    def put_pod(self, pod: KubePod) -> None:
        """Keep a pod that was added or changed."""
        with self._changed:
            self._put(pod)
            self._changed.notify_all()

    def drop_pod(self, pod: KubePod) -> None:
        """Keep how a pod was that is no more, or forget it along with its Job."""
        with self._changed:
            if job_label(pod) in self._jobs:
                self._put(_gone(pod))
            else:
                self._forget_pod(pod)
            self._changed.notify_all()

    def wait(self, is_done: Callable[[], bool], timeout_s: float, look_s: float) -> bool:
        """Wait until `is_done()`, asked at each change and every `look_s` seconds.

        Returns:
            False after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not is_done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            with self._changed:
                self._changed.wait(min(left_s, look_s))
        return True

    def _put(self, pod: KubePod) -> None:
        self._pods.setdefault(job_label(pod), {})[pod.metadata.name] = pod

    def _forget_pod(self, pod: KubePod) -> None:
        pods = self._pods.get(job_label(pod), {})
        pods.pop(pod.metadata.name, None)
        if not pods:
            self._pods.pop(job_label(pod), None)


def job_label(thing: KubeJob | KubePod) -> str:
    """Return the name of pman's job that an object belongs to."""
    return thing.metadata.labels.get(JOB_LABEL, "")


def _gone(pod: KubePod) -> KubePod:
    return pod if pod.is_gone else msgspec.structs.replace(pod, is_gone=True)
