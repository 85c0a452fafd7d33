"""Ends the containers of a job: those of this engine one by one, others with their service."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from pman.backends._engine.port import Sink, View
from pman.backends._swarm import output
from pman.backends._swarm.client import READ_TIMEOUT_S, EngineClient, filters, url_path
from pman.backends._swarm.logs import Pieces
from pman.backends._swarm.problems import Missing, Refused
from pman.backends._swarm.tasks import STAGES, Stage, container_id, newest
from pman.errors import BackendUnavailable

#: Containers that are ended at the same time.
MAX_THREADS = 100

#: Longest wait for followers of output to be connected, seconds.
FOLLOW_TIMEOUT_S = 10.0


def stop_tasks(client: EngineClient, view: View, grace_s: float, sink: Sink, node_id: str) -> bool:
    """End all containers of a job; arguments and result as of `Engine.stop`.

    Args:
        node_id: The node of this engine; containers of others it can't end.
    """
    service_id = view.handle["service"]
    tasks = newest(client.get("/tasks", filters(service=[service_id])) or [])
    stages = [STAGES.get(task["Status"]["State"], Stage.WAITING) for task in tasks]
    running = [task for task, stage in zip(tasks, stages, strict=True) if stage is Stage.RUNNING]
    has_waiting = Stage.WAITING in stages or not tasks
    if all(task.get("NodeID") == node_id for task in running) and not has_waiting:
        _stop_here(client, running, grace_s)
        return False
    _stop_service(client, service_id, view, tasks, sink, grace_s)
    return True


def _stop_here(client: EngineClient, tasks: Sequence[Mapping[str, Any]], grace_s: float) -> None:
    """Ask each container to end, and force it after the grace, all at the same time."""
    if not tasks:
        return

    def stop(task: Mapping[str, Any]) -> None:
        path = url_path("/containers/{}/stop", container_id(task))
        try:
            client.post(path, params={"t": round(grace_s)}, timeout_s=grace_s + READ_TIMEOUT_S)
        except Missing:
            return  # it has just been removed

    with ThreadPoolExecutor(min(len(tasks), MAX_THREADS), "swarm-stop") as threads:
        for stopped in [threads.submit(stop, task) for task in tasks]:
            stopped.result()


def _stop_service(
    client: EngineClient,
    service_id: str,
    view: View,
    tasks: Sequence[Mapping[str, Any]],
    sink: Sink,
    grace_s: float,
) -> None:
    """Scale the service to nothing, and write down what its containers print until they have ended.

    A task that is scaled away takes its container and output with it as soon as it has ended.
    """
    timeout_s = grace_s + READ_TIMEOUT_S
    followers = _Followers(client, view, sink, timeout_s)
    with ThreadPoolExecutor(max(1, len(tasks)), "swarm-follow") as threads:
        for index, task in enumerate(tasks):
            if container_id(task):
                followers.add(threads, index, task)
        followers.wait_opened()
        _scale_to_0(client, service_id)
        followers.wait_ended(timeout_s)


def _scale_to_0(client: EngineClient, service_id: str) -> None:
    """Try until nobody else changes the service at the same moment."""
    while True:
        try:
            service = client.get(url_path("/services/{}", service_id))
            service["Spec"]["Mode"]["Replicated"]["Replicas"] = 0
            version = {"version": service["Version"]["Index"]}
            client.post(url_path("/services/{}/update", service_id), service["Spec"], version)
            return
        except Missing:
            return
        except Refused as exc:
            if "out of sequence" not in exc.words:
                raise BackendUnavailable(exc.message) from exc


class _Followers:
    """Threads that write output into a sink, which is not asked for more than one at a time."""

    def __init__(self, client: EngineClient, view: View, sink: Sink, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client = client
        self._is_plain = output.is_plain(view)
        self._sink = sink
        self._lock = threading.Lock()
        self._opened: list[threading.Event] = []
        self._ended: list[Future[None]] = []

    def add(self, threads: ThreadPoolExecutor, index: int, task: Mapping[str, Any]) -> None:
        """Begin to follow the n-th task."""
        opened = threading.Event()
        self._opened.append(opened)
        self._ended.append(threads.submit(self._follow, index, task["ID"], opened))

    def _follow(self, index: int, task_id: str, opened: threading.Event) -> None:
        def take(pieces: Pieces) -> None:
            with self._lock:
                for stream, raw in pieces:
                    self._sink.write(index, stream, raw)

        try:
            output.read_task(
                self._client,
                task_id,
                self._is_plain,
                take,
                opened=opened.set,
                timeout_s=self._timeout_s,
            )
        finally:
            opened.set()

    def wait_opened(self) -> None:
        for opened in self._opened:
            if not opened.wait(FOLLOW_TIMEOUT_S):
                raise BackendUnavailable("the output of a job that is to end can't be followed")

    def wait_ended(self, timeout_s: float) -> None:
        ended, left = wait(self._ended, timeout_s)
        for each in ended:
            each.result()
        if left:
            raise BackendUnavailable("a job that was told to end has not ended")
