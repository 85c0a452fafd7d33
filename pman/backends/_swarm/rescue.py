"""`Rescue`: keeps what a container has printed before a stopping engine takes it away.

An engine that is stopped in good order ends the containers of its tasks and removes them, output
and exit code included, and says nothing about its swarm meanwhile. It takes no new connections by
then, but serves those that it has to the last: some are kept for that. A container's output is
followed from the moment that it is told to end, as it is removed right after its death.
Source: tried with Docker Engine 20.10, which takes some 200 ms for that; on a machine that is too
busy the output of what ends at once may be lost, the exit code is not.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from pman.backends._swarm.client import EngineClient, url_path
from pman.backends._swarm.facts import Facts
from pman.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

#: Connections that are kept, and so outputs that are followed at the same time; others wait.
LANES = 32

#: How long an engine may take to stop, seconds: its own limit is 15, beyond which it kills, and
#: those containers have to be told of, too.
STOP_S = 30.0


class Death(msgspec.Struct, frozen=True):
    """How a container ended. Attributes: its task; its exit code; when, UTC epoch seconds."""

    task_id: str
    exit_code: int
    ended_at: float | None


class Body(msgspec.Struct):
    """A container that was told to end.

    Attributes:
        service_id, task_id, container_id: The engine's.
        told_at: When, monotonic seconds.
        death: None until it has ended.
        is_read: Whether nothing more is to be read of its output.
    """

    service_id: str
    task_id: str
    container_id: str
    told_at: float
    death: Death | None = None
    is_read: bool = False


class Rescue:
    """Outputs and exit codes in files below a folder of ours: they outlive the daemon too.

    Only of containers that were told to end by somebody else: all others are the same when the
    engine is back, and in the normal course of things nothing is read twice.
    """

    def __init__(self, client: EngineClient, folder: Path, facts: Facts) -> None:
        """Take over what a former daemon has rescued.

        Args:
            folder: Need not be there yet.
        """
        self._client = client
        self._folder = folder
        self._facts = facts
        self._lanes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Body | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._ours: set[str] = set()  # services that we end
        self._bodies: dict[str, Body] = {}  # {task: container that somebody else ends}
        for path in folder.glob("*.json"):
            self._recall(path)

    def prepare(self) -> None:
        """Open the connections anew. Called whenever the engine is there (again)."""
        self._drop_lanes()
        with self._lock:
            self._bodies.clear()
        with contextlib.suppress(BackendUnavailable):  # whoever watches meets it as well
            for _ in range(LANES):
                self._lanes.put(self._client.connected_session())

    def expect(self, service_id: str) -> None:
        """Learn that the containers of a service are about to be ended by us."""
        self._ours.add(service_id)

    def told(self, service_id: str, task_id: str, container_id: str) -> None:
        """Learn that a container is told to end: keep its output if that may be about to go."""
        if service_id in self._ours or task_id in self._bodies:
            return
        body = Body(service_id, task_id, container_id, time.monotonic())
        with self._lock:
            self._bodies[task_id] = body
        self._work.put(body)
        if len(self._threads) < min(LANES, len(self._bodies)):
            name = f"swarm-rescue-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()

    def died(self, death: Death) -> None:
        """Learn that a container has ended."""
        body = self._bodies.get(death.task_id)
        if body is not None:
            body.death = death
            self._settle(body)

    @property
    def is_under_way(self) -> bool:
        """Whether a container that was told to end a moment ago may still tell of its end."""
        since = time.monotonic() - STOP_S
        with self._lock:
            return any(body.told_at > since for body in self._bodies.values())

    def path(self, service_id: str, task_id: str) -> Path | None:
        """Return the file with the whole output of a task, as the engine sends it, or None."""
        path = self._path(service_id, task_id)
        return path if path.exists() and path.with_suffix(".json").exists() else None

    def forget(self, service_id: str) -> None:
        """Remove what was kept of a service."""
        self._ours.discard(service_id)
        with self._lock:
            of_it = [body for body in self._bodies.values() if body.service_id == service_id]
            for body in of_it:
                del self._bodies[body.task_id]
        for path in self._folder.glob(f"{service_id}.*"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Rescue no more."""
        for _ in self._threads:
            self._work.put(None)
        self._drop_lanes()

    # --- in the threads ---------------------------------------------------------------------

    def _run(self) -> None:
        while (body := self._work.get()) is not None:
            try:
                session = self._lanes.get_nowait()
            except queue.Empty:
                continue  # the engine was away before we could prepare
            try:
                self._read(session, body)
            except (BackendError, OSError) as exc:
                _log.warning("the output of task %s may be lost: %s", body.task_id, exc)
                self._path(body.service_id, body.task_id).unlink(missing_ok=True)
            finally:
                self._lanes.put(session)
            body.is_read = True
            self._settle(body)

    def _read(self, session: Any, body: Body) -> None:
        """Follow the output to its end."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._path(body.service_id, body.task_id)
        params: dict[str, str | int] = {"stdout": 1, "stderr": 1, "follow": 1}
        url = url_path("/containers/{}/logs", body.container_id)
        with (
            path.open("wb") as file,
            self._client.stream("GET", url, params, timeout_s=None, own=session) as stream,
        ):
            for chunk in stream.chunks():
                file.write(chunk)

    def _settle(self, body: Body) -> None:
        """Keep how it ended, once that is known and the output has been read."""
        with self._lock:
            if not body.is_read or body.death is None or self._bodies.get(body.task_id) is not body:
                return
            del self._bodies[body.task_id]
            path = self._path(body.service_id, body.task_id)
            try:
                fresh = path.with_suffix(".new")
                fresh.write_bytes(msgspec.json.encode(body.death))
                fresh.rename(path.with_suffix(".json"))
            except OSError as exc:
                _log.warning("the end of task %s could not be kept: %s", body.task_id, exc)
            self._note(body.death)

    # --- parts ------------------------------------------------------------------------------

    def _path(self, service_id: str, task_id: str) -> Path:
        return self._folder / f"{service_id}.{task_id}.log"

    def _recall(self, path: Path) -> None:
        with contextlib.suppress(OSError, msgspec.MsgspecError):  # it was never whole
            self._note(msgspec.json.decode(path.read_bytes(), type=Death))

    def _note(self, death: Death) -> None:
        self._facts.note(death.task_id, ended_at=death.ended_at, exit_code=death.exit_code)

    def _drop_lanes(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._lanes.get_nowait().close()
