"""Ends the pods of one Job and keeps what they print until then."""

from __future__ import annotations

import logging
import math
import threading
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pman.backends._engine.port import JOB_LABEL, Sink, View
from pman.backends._engine.wish import Wish
from pman.backends._openshift.cache import Cache
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.guard import end_job
from pman.backends._openshift.logs import chunks_of, containers_of, open_log
from pman.backends._openshift.objects import KubePod
from pman.backends._openshift.pods import has_run, is_over, pod_view
from pman.backends._openshift.removal import remove_object
from pman.backends._openshift.states import CANCELED, in_order
from pman.errors import BackendUnavailable

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api, Stream

_log = logging.getLogger(__name__)

#: More than the grace period that pods may take to end; a kubelet may report it late, seconds.
SLACK_S = 60.0
#: How long to wait until all logs are being followed, seconds.
BEGIN_S = 5.0
#: How long the logs may take to come in once the pods have ended, seconds.
REST_S = 30.0
#: Between looks at pods while the watch brings nothing, seconds.
LOOK_S = 0.5
#: Why a container waits that will not start once its pod is being deleted; a kubelet may take half
#: a minute to let go of such a pod.
NEVER_STARTS = ("image_pull_failed", "config_error")
#: How long past its time a pod that has not started may take to go before it is forced: the kubelet
#: of Kubernetes 1.20 may take a minute.
FORCED_AFTER = timedelta(seconds=2)
#: How long past its shortened grace a pod that runs on may take to end before it is forced: a
#: kubelet gives containers 2 seconds at least, and tells some time later.
STUCK_AFTER_S = 4.0
#: Most logs that are followed at a time; of further pods what they have printed by now is kept.
MAX_FOLLOWED = 64


class _SharedSink:
    """A sink for several threads, which nobody writes to once it is shut."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._is_shut = False
        self.failure: OSError | None = None

    def write(self, worker: int, stream: str, raw: bytes) -> bool:
        """Write; False when there is no more to be gained by that."""
        with self._lock:
            if self._is_shut or self.failure is not None:
                return False
            try:
                self._sink.write(worker, stream, raw)
            except OSError as exc:
                self.failure = exc
            return self.failure is None

    def shut(self) -> None:
        """Let nothing be written any more; raise what went wrong."""
        with self._lock:
            self._is_shut = True
        if self.failure is not None:
            raise self.failure


class _Follower:
    """A thread that copies one log to its end."""

    def __init__(
        self, api: Api, pod: str, container: str, target: tuple[int, str], sink: _SharedSink
    ) -> None:
        self._api = api
        self.pod = pod
        self._container = container
        self._target = target
        self._sink = sink
        self._stream: Stream | None = None
        self.begun = threading.Event()
        self.has_attached = False
        self.thread = threading.Thread(target=self._run, name="openshift-stop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._stream = open_log(self._api, self.pod, self._container, follow="true")
            if self._stream is None:
                return
            with self._stream:
                self.has_attached = True
                self.begun.set()
                for raw in chunks_of(self._stream):
                    if not self._sink.write(*self._target, raw):
                        return
        except BackendUnavailable as exc:
            _log.warning("the log of pod %s broke off: %s", self.pod, exc)
        finally:
            self.begun.set()

    @property
    def has_seen_end(self) -> bool:
        """Whether a container has run, and its log has ended."""
        return self.has_attached and not self.thread.is_alive()

    def interrupt(self) -> None:
        """Have it end now."""
        if self._stream is not None:
            self._stream.interrupt()


def stop_job(api: Api, cache: Cache, view: View, wish: Wish, sink: Sink) -> None:
    """End all pods of a Job; their logs are in the sink on return, those of ended ones too.

    Args:
        wish: How soon; pods are asked by SIGTERM, whatever it says.
    Raises:
        BackendUnavailable: They can't be told, or don't end.
        OSError: The sink could not keep it.
    """
    pods = in_order(pods_of(api, view.job_name))
    shared = _SharedSink(sink)
    followers = _follow_all(api, view, pods, shared)
    try:
        _end(api, cache, view, wish, followers)
        deadline = time.monotonic() + REST_S
        for follower in followers:
            follower.thread.join(max(0.0, deadline - time.monotonic()))
    finally:
        for follower in followers:
            follower.interrupt()
        shared.shut()


def _follow_all(api: Api, view: View, pods: list[KubePod], sink: _SharedSink) -> list[_Follower]:
    """Begin to copy the logs of all pods; those that run are followed."""
    index = {worker.name: number for number, worker in enumerate(view.workers)}
    running = {pod.metadata.name for pod in pods if not is_over(pod)}
    followers: list[_Follower] = []
    for pod in pods:
        name = pod.metadata.name
        for container, stream in containers_of(view.handle):
            target = index.get(name), stream
            if target[0] is None:
                continue
            if name in running and len(followers) < MAX_FOLLOWED:
                followers.append(_Follower(api, name, container, (target[0], stream), sink))
            else:
                _copy(api, name, container, (target[0], stream), sink)
    deadline = time.monotonic() + BEGIN_S
    for follower in followers:
        follower.begun.wait(max(0.0, deadline - time.monotonic()))
    return followers


def _copy(api: Api, pod: str, container: str, target: tuple[int, str], sink: _SharedSink) -> None:
    stream = open_log(api, pod, container)
    if stream is not None:
        with stream:
            for raw in chunks_of(stream):
                sink.write(*target, raw)


class _Haste:
    """Gives the pods of a Job that are being deleted no more time than is wished.

    A kubelet before 1.22 that has begun to end a pod does not hear that it has less time; it hears
    that the pod is gone from the API, and then ends it beside that, with the newer grace. So a pod
    that runs on past its time is forced. Source: tried with Kubernetes 1.20.
    """

    def __init__(self, api: Api, wish: Wish) -> None:
        self._api = api
        self._wish = wish
        #: {pod: when it should have ended, monotonic seconds}, once it has less time than at first.
        self._due: dict[str, float] = {}
        self._forced: set[str] = set()

    def urge(self, pod: KubePod) -> None:
        """Do what is to be done for a pod that is being deleted and has not ended."""
        name, now = pod.metadata.name, time.monotonic()
        wanted_s = max(1, math.ceil(self._wish.left_s()))
        given_s = pod.metadata.deletion_grace_period_seconds
        is_sooner = now + wanted_s < self._due.get(name, math.inf) - 1
        if is_sooner and (given_s is None or given_s > wanted_s):
            self._due[name] = now + wanted_s
            _delete(self._api, pod, wanted_s)
        elif name not in self._forced and self._is_overdue(pod):
            self._forced.add(name)
            _delete(self._api, pod, 0)

    def _is_overdue(self, pod: KubePod) -> bool:
        if not has_run(pod):
            return _is_overdue(pod, self._api.now())
        due = self._due.get(pod.metadata.name, math.inf)
        is_stuck = time.monotonic() > due + STUCK_AFTER_S
        # Of a node that does not answer, nobody knows what goes on there.
        return is_stuck and pod_view(pod, self._api.now()).worker.reason != "node_lost"


def _end(api: Api, cache: Cache, view: View, wish: Wish, followers: list[_Follower]) -> None:
    """Tell the Job and its pods to end, and wait until they have."""
    try:
        end_job(api, view.handle["job"], CANCELED, "canceled")
    except Answered as exc:
        if exc.status != 404:
            raise
    haste = _Haste(api, wish)

    def has_ended(pod: KubePod) -> bool:
        if is_over(pod):
            return True
        # Only once the Job controller has: it would replace one that is deleted before.
        if pod.metadata.deletion_timestamp is None:
            return False
        # The logs know it seconds before the kubelet reports the end of a pod.
        own = [follower for follower in followers if follower.pod == pod.metadata.name]
        if own and all(follower.has_seen_end for follower in own):
            return True
        haste.urge(pod)
        return pod_view(pod, api.now()).worker.reason in NEVER_STARTS

    def have_ended() -> bool:
        known = cache.get(view.job_name)
        if known is not None and not all(has_ended(pod) for pod in known[1]):
            return False
        return all(has_ended(pod) for pod in pods_of(api, view.job_name))

    if not cache.wait(have_ended, wish.left_s() + SLACK_S, LOOK_S):
        raise BackendUnavailable(f"the pods of Job {view.handle['job']} do not end")


def pods_of(api: Api, job_name: str) -> list[KubePod]:
    """Return the pods of one job.

    Raises:
        BackendUnavailable: The server can't be asked.
    """
    return api.list(api.pods, KubePod, {"labelSelector": f"{JOB_LABEL}={job_name}"})[0]


def _is_overdue(pod: KubePod, now: datetime) -> bool:
    """Whether a pod that has not started, as far as its node tells, should be gone by now."""
    deadline = pod.metadata.deletion_timestamp
    return deadline is not None and not has_run(pod) and now > deadline + FORCED_AFTER


def _delete(api: Api, pod: KubePod, grace_s: int) -> None:
    path = f"{api.pods}/{pod.metadata.name}"
    remove_object(api, path, uid=pod.metadata.uid, gracePeriodSeconds=grace_s)
