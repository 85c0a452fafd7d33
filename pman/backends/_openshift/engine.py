"""`KubernetesEngine`: Jobs of one namespace of a Kubernetes or OpenShift cluster."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any

from pman.backends._engine.halt import Halt
from pman.backends._engine.order import Order
from pman.backends._engine.port import (
    INSTANCE_LABEL,
    Changed,
    Engine,
    Phase,
    Sink,
    View,
)
from pman.backends._engine.wish import Wish
from pman.backends._openshift import logs, stopping, sweeping
from pman.backends._openshift.access import TICKET_NEED, Said, check_access, may_all
from pman.backends._openshift.cache import Cache, job_label
from pman.backends._openshift.creating import Creator, find_job, remove_claim
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.guard import Guard
from pman.backends._openshift.manifest import check_env, check_labels
from pman.backends._openshift.objects import KubeJob, KubePod
from pman.backends._openshift.pods import STAGES, is_over, is_waiting_without_word
from pman.backends._openshift.removal import remove_object
from pman.backends._openshift.rescue import Rescue
from pman.backends._openshift.states import is_finished, view_of
from pman.backends._openshift.storage import CLAIM_SUFFIX, CLAIM_TYPES, check_storage
from pman.backends._openshift.tickets import Tickets, are_needed
from pman.backends._openshift.watching import Watch
from pman.backends._openshift.why import warnings_of, why
from pman.errors import BackendUnavailable, RequestError
from pman.job.record import Worker
from pman.settings import Settings

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

_log = logging.getLogger(__name__)

#: How long a job may wait without saying why before events are asked.
SILENT_FOR = timedelta(seconds=3)

_NO_SDK = "the Kubernetes SDK is not installed ({}): pip install 'pman[openshift]'"


class KubernetesEngine(Engine):
    """See `Engine`. One connection pool for all threads; it is made in `connect`.

    Attributes:
        route_url: Where OpenShift's router serves pman, or None.
    """

    noun = "Job"

    def __init__(self, settings: Settings, instance: str) -> None:
        """Prepare; connects to nothing.

        Args:
            settings: The daemon's.
            instance: Value of the label of all objects made here.
        """
        self._settings = settings
        self._selector = f"{INSTANCE_LABEL}={instance}"
        self._tickets = Tickets()
        self._creator = Creator(settings, instance, self._tickets)
        self._cache = Cache()
        self._rescue = Rescue(settings.db_path, settings.max_output_bytes)
        self._guard = Guard(self._cache, self._rescue, self._tickets)
        self._said = Said()
        self._lock = threading.Lock()  # of `_client` and `_watch`
        self._client: Api | None = None
        self._watch: Watch | None = None
        self.route_url: str | None = None

    def connect(self) -> None:
        """Find the server and see whether we may do what we must; see `Engine`."""
        with self._lock:
            if self._client is not None:
                return
        try:
            from pman.backends._openshift.client import Api
        except ImportError as exc:
            raise BackendUnavailable(_NO_SDK.format(exc)) from exc
        if self._settings.storage_type == "pvc" and not self._settings.share_claim:
            raise BackendUnavailable("storage type pvc needs the name of a claim: --shareClaim")
        api = Api(self._settings)
        self.route_url = check_access(api, self._settings, self._said)
        self._tickets.are_used = are_needed(api) and may_all(api, TICKET_NEED)
        with self._lock:
            self._client = api

    def check(self, order: Order) -> None:
        """Refuse what Kubernetes or the storage can't take."""
        check_labels(order)
        check_env(order)
        check_storage(order, self._settings)

    def create(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """Make the Job, and its claim before it; where `/share` is depends on the settings."""
        return self._creator.create(self._api, order)

    def describe(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """Return the Job, and the claim and the ConfigMap that go with it."""
        return self._creator.describe(self._api, order)

    def look_all(self) -> dict[str, View]:
        """List Jobs and pods; what has lost its Job is removed on the way."""
        api = self._api
        query = {"labelSelector": self._selector}
        left = sweeping.listed(
            api,
            self._selector,
            with_claims=self._settings.storage_type in CLAIM_TYPES,
            with_tickets=self._tickets.are_used,
        )
        being_made = self._creator.being_made()  # before the Jobs: see `Leftovers`
        jobs, _ = api.list(api.jobs, KubeJob, query)
        pods, _ = api.list(api.pods, KubePod, query)
        names = {job_label(job) for job in jobs} | being_made
        sweeping.sweep(api, left, pods, names, self._settings.orphan_grace_s)
        of_job: dict[str, list[KubePod]] = {}
        for pod in pods:
            of_job.setdefault(job_label(pod), []).append(pod)
        return {
            name: self._view(job, of_job.get(name, [])) for job in jobs if (name := job_label(job))
        }

    def look(self, job_name: str, handle: dict[str, Any]) -> View | None:
        """Return a Job as the watch has it; ask the server where it has not, or not enough."""
        known = self._cache.get(job_name)
        if known is not None and not _lacks_pods(*known):
            return self._view(*known)
        job = self._find(job_name, handle)
        if job is None:
            return None
        return self._view(job, stopping.pods_of(self._api, job_name))

    def watch(self, changed: Changed, stop: threading.Event) -> None:
        """Follow Jobs and pods; see `Engine`."""
        api = self._api
        watch = Watch(api, self._selector, self._cache, self._guard)
        with self._lock:
            self._watch = watch
        try:
            watch.run(changed, stop)
        except Answered as exc:
            if exc.status in (401, 403):
                self._disconnect()  # credentials may have changed, or rights: look anew
            raise
        finally:
            with self._lock:
                self._watch = None

    def interrupt(self) -> None:
        """Make `watch` return soon."""
        with self._lock:
            watch = self._watch
        if watch is not None:
            watch.interrupt()

    def collect(self, view: View, sink: Sink) -> None:
        """Copy the logs of all containers; see `Engine`."""
        logs.collect(self._api, view, sink, self._rescue)

    def peek(self, view: View, max_bytes: int) -> bytes:
        """Return the end of the output so far; see `Engine`."""
        return logs.peek(self._api, view, max_bytes)

    def stage_of(self, worker: Worker) -> Phase:
        """Tell from the word of a pod how far its container is."""
        return STAGES.get(worker.state, Phase.WAITING)

    def follow(self, view: View, worker: int, sink: Sink, halt: Halt, *, waits: bool) -> None:
        """Copy the log of the command of one pod as it comes; see `Engine`."""
        logs.follow(self._api, view, worker, sink, halt, waits=waits)

    def check_signal(self, signal: int) -> None:
        """Refuse all but the two that a kubelet sends: it can't be asked for others."""
        if signal not in (SIGTERM, SIGKILL):
            raise RequestError(
                f"signal is {signal}, expected {SIGTERM:d} (SIGTERM) or {SIGKILL:d} (SIGKILL): pods"
                " can't be sent any other",
                field="signal",
            )

    def stop(self, view: View, wish: Wish, sink: Sink) -> bool:
        """End the pods, which takes their logs: those are written to the sink."""
        self._guard.spare(view.job_name)
        stopping.stop_job(self._api, self._cache, view, wish, sink)
        return True

    def remove(self, job_name: str, handle: dict[str, Any]) -> None:
        """Remove the Job; its pods and its claim go with it."""
        api = self._api
        self._guard.spare(job_name)
        self._tickets.take(api, job_name)
        self._creator.forget(job_name)
        job = self._find(job_name, handle)
        if job is None:
            self._guard.forget(job_name)  # else when the watch brings its end
            return
        path = f"{api.jobs}/{job.metadata.name}"
        remove_object(api, path, uid=job.metadata.uid, propagationPolicy="Background")
        if self._settings.storage_type in CLAIM_TYPES:
            remove_claim(api, job.metadata.name + CLAIM_SUFFIX, job_name)

    def close(self) -> None:
        """Let go of connections and of logs that nobody came for."""
        self.interrupt()
        self._rescue.keep_only(())
        self._disconnect()

    @property
    def _api(self) -> Api:
        with self._lock:
            if self._client is None:
                raise BackendUnavailable("the API server has not been reached yet")
            return self._client

    def _disconnect(self) -> None:
        with self._lock:
            api, self._client = self._client, None
        if api is not None:
            api.close()

    def _find(self, job_name: str, handle: dict[str, Any]) -> KubeJob | None:
        name = handle.get("job")
        if not isinstance(name, str):
            return find_job(self._api, job_name)
        try:
            job = self._api.get(f"{self._api.jobs}/{name}", KubeJob)
        except Answered as exc:
            if exc.status == 404:
                return None
            raise
        return job if job_label(job) == job_name else None

    def _view(self, job: KubeJob, pods: list[KubePod]) -> View:
        known = {pod.metadata.uid: pod for pod in self._cache.gone_pods(job_label(job))}
        known |= {pod.metadata.uid: pod for pod in pods}
        pods = list(known.values())
        view = view_of(job, pods, self._api.now())
        if view.phase is Phase.WAITING and not view.reason:
            view.reason, view.message = self._silent_trouble(job, pods)
        return view

    def _silent_trouble(self, job: KubeJob, pods: list[KubePod]) -> tuple[str, str]:
        """Return what events say of a Job without pods, or of pods that only wait."""
        things = [pod.metadata for pod in pods if is_waiting_without_word(pod)]
        for thing in things[:1] if pods else [job.metadata]:
            made_at = thing.creation_timestamp
            if made_at is not None and self._api.now() - made_at > SILENT_FOR:
                return why(warnings_of(self._api, thing.uid))
        return "", ""


def _lacks_pods(job: KubeJob, pods: list[KubePod]) -> bool:
    """Whether the watch has brought the end of a Job, and not yet that of all its pods."""
    ended = (job.status.succeeded or 0) + (job.status.failed or 0)
    return is_finished(job) and sum(is_over(pod) for pod in pods) < ended
