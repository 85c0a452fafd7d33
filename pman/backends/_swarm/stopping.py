"""Ends the containers of a job: those of this engine one by one, others by a change of the service.

A task that is removed, or scaled away, takes its container and its output with it. One that is
replaced stays with its exit code and its output, as history. So the service is changed into one
that no node may run: its tasks are ended, and what replaces them waits for ever and is not shown.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from signal import SIGKILL
from typing import Any

from pman.backends._engine.wish import Wish
from pman.backends._swarm.client import READ_TIMEOUT_S, EngineClient, url_path
from pman.backends._swarm.problems import Missing, Refused
from pman.backends._swarm.tasks import STOPPED, Stage, container_id, stage_of
from pman.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

#: Containers that are ended at the same time, besides one of each job.
MAX_THREADS = 200

#: How often the swarm is asked whether all have ended, seconds; it sends no event of that.
LOOK_PERIOD_S = 0.1

#: Before the engine is asked again to kill what it could not be told to, seconds.
AGAIN_S = 1.0

#: What asks a container to end whose image names no other signal. Source: Docker's `docker stop`.
USUAL_SIGNAL = "SIGTERM"

#: Longest wait until a node has told the swarm of containers that have ended, seconds.
TOLD_TIMEOUT_S = 5.0

Task = Mapping[str, Any]

_free_threads = threading.BoundedSemaphore(MAX_THREADS)


def stop_here(
    client: EngineClient, tasks: Sequence[Task], is_over: Callable[[], bool], grace_s: float
) -> None:
    """Ask each container to end, and force it after the grace, all at the same time.

    Args:
        tasks: Running, on the engine that we talk to.
        is_over: Whether the swarm knows that all have ended; asked now and then.
        grace_s: From SIGTERM to SIGKILL.
    Raises:
        BackendUnavailable: The engine can't be told.
    """
    if not tasks:
        return
    _stop(client, tasks, grace_s)
    wait_until(is_over, TOLD_TIMEOUT_S)


def _stop(client: EngineClient, tasks: Sequence[Task], grace_s: float) -> None:
    def stop(task: Task) -> None:
        path = url_path("/containers/{}/stop", container_id(task))
        try:
            client.post(path, params={"t": round(grace_s)}, timeout_s=grace_s + READ_TIMEOUT_S)
        except Missing:
            return  # it has just been removed

    _do_at_once(stop, tasks)


def signal_here(client: EngineClient, tasks: Sequence[Task], signal: int | None) -> None:
    """Send each container a signal, and wait for nothing.

    Args:
        tasks: Running, on the engine that we talk to.
        signal: Its number; None for the one that the container's image names.
    Raises:
        BackendUnavailable: The engine can't be told.
    """

    def send(task: Task) -> None:
        name = container_id(task)
        try:
            word = _own_signal(client, name) if signal is None else signal
            client.post(url_path("/containers/{}/kill", name), params={"signal": word})
        except Missing:
            return  # it has just been removed
        except Refused as exc:
            if exc.status != 409:  # it has just ended
                raise

    _do_at_once(send, tasks)


def _own_signal(client: EngineClient, name: str) -> str:
    config = client.get(url_path("/containers/{}/json", name))["Config"]
    return str(config.get("StopSignal") or USUAL_SIGNAL)


@contextlib.contextmanager
def heeding(client: EngineClient, tasks: Sequence[Task], wish: Wish) -> Iterator[None]:
    """Do what is added to a wish while this lasts, in which containers are ended for it.

    The call of the engine that waits for their end goes on until then; another one beside it is
    carried out at once. Source: moby, daemon/stop.go, containerStop: it waits without a lock.

    Args:
        tasks: Running, on the engine that we talk to.
    """
    further = _Further(client, tasks, wish)
    try:
        with wish.heard_by(further.tell):
            yield
    finally:
        further.end()


class _Further:
    """Does what is asked for beyond the first wish, all of it in one thread."""

    def __init__(self, client: EngineClient, tasks: Sequence[Task], wish: Wish) -> None:
        self._client = client
        self._tasks = tasks
        self._wish = wish
        self._asked = wish.signal
        self._news = threading.Event()
        self._is_over = False
        self._has_thread = False

    def tell(self) -> None:
        """Learn that there is more to do."""
        self._news.set()
        if not self._has_thread:
            self._has_thread = True
            # A daemon thread, as in `_do_at_once`.
            threading.Thread(target=self._run, name="swarm-further", daemon=True).start()

    def end(self) -> None:
        """Do nothing more."""
        self._is_over = True
        self._news.set()

    def _run(self) -> None:
        is_killed = False
        while True:
            self._news.clear()
            if self._is_over:
                return
            signal, left_s = self._wish.signal, self._wish.left_s()
            try:
                if not left_s:
                    signal_here(self._client, self._tasks, SIGKILL)
                    is_killed = True
                elif signal != self._asked:
                    signal_here(self._client, self._tasks, signal)
            except BackendError as exc:
                # What was asked first goes on; if that fails too, all of it is tried again.
                _log.warning("containers can't be ended sooner: %s", exc.message)
                left_s = max(left_s, AGAIN_S)
            self._asked = signal
            self._news.wait(None if is_killed else left_s)


def _do_at_once(do: Callable[[Task], object], tasks: Iterable[Task]) -> None:
    """Do something with each task, in this thread and as many others as are free.

    They are daemon threads, unlike those of `concurrent.futures`, which the end of the program
    waits for: a container may take as long to end as its client has allowed.

    Raises:
        BackendError: What went wrong first.
    """
    waiting = collections.deque(tasks)
    errors: list[BackendError] = []

    def work() -> None:
        with contextlib.suppress(IndexError):  # of the one who finds nothing left
            while True:
                task = waiting.popleft()
                try:
                    do(task)
                except BackendError as exc:
                    errors.append(exc)

    def help_out() -> None:
        try:
            work()
        finally:
            _free_threads.release()

    helpers: list[threading.Thread] = []
    while len(helpers) < len(waiting) - 1 and _free_threads.acquire(blocking=False):
        helpers.append(threading.Thread(target=help_out, name="swarm-stop", daemon=True))
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]


def stop_everywhere(
    client: EngineClient, service_id: str, is_over: Callable[[], bool], grace_s: float
) -> None:
    """Have the swarm end all tasks of a service, on all nodes, also those that have not started.

    The grace is that of the service, not `grace_s`: to change it would begin its tasks anew.

    Args:
        is_over: Whether all have ended; asked now and then.
        grace_s: Longest time that is waited for them, but for what the engine needs itself.
    Raises:
        BackendUnavailable: The engine can't be told, or some have not ended.
    """
    if not _bar(client, service_id):
        return
    if not wait_until(is_over, grace_s + READ_TIMEOUT_S):
        raise BackendUnavailable("a job that was told to end has not ended")


def wait_until(is_over: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until it is over; return whether it was in time."""
    deadline = time.monotonic() + timeout_s
    never = threading.Event()
    while not is_over():
        if time.monotonic() > deadline:
            return False
        never.wait(LOOK_PERIOD_S)
    return True


def _bar(client: EngineClient, service_id: str) -> bool:
    """Bar a service from all nodes; try until nobody else changes it at the same moment.

    Returns:
        Whether it is there.
    """
    path = url_path("/services/{}", service_id)
    while True:
        try:
            service = client.get(path)
            spec = service["Spec"]
            spec["TaskTemplate"].setdefault("Placement", {})["Constraints"] = [STOPPED]
            spec["UpdateConfig"] = {"Parallelism": 0, "FailureAction": "continue"}
            client.post(f"{path}/update", spec, {"version": service["Version"]["Index"]})
        except Missing:
            return False
        except Refused as exc:
            if "out of sequence" not in exc.words:
                raise BackendUnavailable(exc.message) from exc
        else:
            return True


def is_over(tasks: Sequence[Task], lost_nodes: Mapping[str, str]) -> bool:
    """Return whether all tasks have ended; one on a node that is down can't be told."""
    return all(stage_of(task) is Stage.ENDED or task.get("NodeID") in lost_nodes for task in tasks)
