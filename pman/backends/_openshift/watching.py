"""`Watch`: lists Jobs and pods, then follows what happens to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from pman.backends._engine.port import Changed
from pman.backends._openshift.cache import Cache, job_label
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.guard import Guard
from pman.backends._openshift.objects import Bookmark, KubeJob, KubePod, Status, WatchEvent
from pman.errors import BackendUnavailable

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api, Stream

#: After so long the server is asked to end a watch, which then goes on where it was, seconds.
WATCH_S = 60
#: How long a watch may be silent before the server counts as away; more than `WATCH_S`.
SILENCE_S = WATCH_S + 15.0

#: So long a list, or a watch, is to do at least: a server, or a proxy before it, that ends each at
#: once is not asked without a pause, seconds.
LEAST_S = 1.0

GONE = 410

_event = msgspec.json.Decoder(WatchEvent)
_job = msgspec.json.Decoder(KubeJob)
_pod = msgspec.json.Decoder(KubePod)
_bookmark = msgspec.json.Decoder(Bookmark)
_status = msgspec.json.Decoder(Status)


class _Expired(Exception):
    """The server does not remember the version to go on from: list again."""


class Watch:
    """One stay at the API server; made anew for each call of `Engine.watch`."""

    def __init__(self, api: Api, selector: str, cache: Cache, guard: Guard) -> None:
        """Prepare; sends nothing.

        Args:
            selector: Labels of the objects to follow.
            cache: Kept up to date.
            guard: Looks at a job when something happened to one of its pods.
        """
        self._api = api
        self._selector = selector
        self._cache = cache
        self._guard = guard
        self._lock = threading.Lock()  # of the next two
        self._streams: dict[str, Stream] = {}
        self._is_interrupted = False
        self._failure: Exception | None = None

    def run(self, changed: Changed, stop: threading.Event) -> None:
        """Follow until `stop` is set; see `Engine.watch`."""
        try:
            while not stop.is_set():
                self._failure = None
                self._is_interrupted = False
                began = time.monotonic()
                self._stay(changed, stop)
                _rest(began, stop)
        finally:
            self._cache.mark_stale()

    def interrupt(self) -> None:
        """End the streams that are open."""
        with self._lock:
            self._is_interrupted = True
            streams = list(self._streams.values())
        for stream in streams:
            stream.interrupt()

    def _stay(self, changed: Changed, stop: threading.Event) -> None:
        """List, and follow until the server forgets our place."""
        query = {"labelSelector": self._selector}
        jobs, jobs_version = self._api.list(self._api.jobs, KubeJob, query)
        pods, pods_version = self._api.list(self._api.pods, KubePod, query)
        self._cache.replace(jobs, pods)
        self._guard.keep_only({job_label(job) for job in jobs})
        for job in jobs:
            self._guard.saw(self._api, job_label(job))

        def follow_pods() -> None:
            self._guarded(lambda: self._follow(self._api.pods, pods_version, pod_event, stop))

        def job_event(kind: str, raw: msgspec.Raw) -> str:
            job = _job.decode(raw)
            if kind == "DELETED":
                self._cache.drop_job(job)
                self._guard.forget(job_label(job))
            else:
                self._cache.put_job(job)
            changed(job_label(job), False)
            return job.metadata.resource_version

        def pod_event(kind: str, raw: msgspec.Raw) -> str:
            pod = _pod.decode(raw)
            (self._cache.drop_pod if kind == "DELETED" else self._cache.put_pod)(pod)
            self._guard.saw(self._api, job_label(pod))
            changed(job_label(pod), False)
            return pod.metadata.resource_version

        second = threading.Thread(target=follow_pods, name="openshift-pods", daemon=True)
        second.start()
        try:
            changed(None, False)
            self._guarded(lambda: self._follow(self._api.jobs, jobs_version, job_event, stop))
        finally:
            self.interrupt()
            second.join()
        if self._failure is not None and not stop.is_set():
            raise self._failure

    def _guarded(self, follow: Callable[[], None]) -> None:
        """Run one of the two; when it ends, so does the other, and the first failure counts."""
        try:
            follow()
        except _Expired:
            with self._lock:
                self._is_interrupted = True
        except Exception as exc:  # noqa: BLE001  raised again by the thread that called `run`
            with self._lock:
                if not self._is_interrupted:
                    self._failure = exc
        self.interrupt()

    def _follow(
        self,
        path: str,
        version: str,
        take: Callable[[str, msgspec.Raw], str],
        stop: threading.Event,
    ) -> None:
        """Follow one kind of objects from a version on, over as many watches as it takes."""
        while not stop.is_set() and not self._is_interrupted:
            began = time.monotonic()
            query = {
                "watch": "true",
                "labelSelector": self._selector,
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": WATCH_S,
            }
            try:
                stream = self._api.stream(path, query, SILENCE_S)
            except Answered as exc:
                if exc.status == GONE:
                    raise _Expired from exc
                raise
            with stream:
                if not self._register(path, stream):
                    return
                for line in stream.lines():
                    version = _taken(line, take)
            if not self._is_interrupted:
                _rest(began, stop)

    def _register(self, path: str, stream: Stream) -> bool:
        with self._lock:
            self._streams[path] = stream
            return not self._is_interrupted


def _rest(began: float, stop: threading.Event) -> None:
    """Wait until `LEAST_S` seconds have passed, or `stop` is set."""
    stop.wait(max(0.0, began + LEAST_S - time.monotonic()))


def _taken(line: bytes, take: Callable[[str, msgspec.Raw], str]) -> str:
    """Pass an event on; return the version to go on from."""
    try:
        event = _event.decode(line)
        if event.type == "BOOKMARK":
            return _bookmark.decode(event.object).metadata.resource_version
        if event.type != "ERROR":
            return take(event.type, event.object)
        status = _status.decode(event.object)
    except msgspec.DecodeError as exc:
        raise BackendUnavailable(f"the API server sent an event that is none: {exc}") from exc
    if status.code == GONE:
        raise _Expired
    raise BackendUnavailable(f"the API server ended a watch: {status.message}")
