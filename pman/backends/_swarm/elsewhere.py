"""`Elsewhere`: follows tasks on other nodes, of which this engine sends no events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pman.backends._swarm.client import PING_TIMEOUT_S, EngineClient
from pman.backends._swarm.tasks import Stage, stage_of

#: Beats between two pings while no task runs elsewhere.
BEATS_PER_PING = 10


class Elsewhere:
    """Asks for the tasks at each beat, as long as one on another node has not ended."""

    def __init__(self, client: EngineClient, wanted: Mapping[str, str]) -> None:
        """Prepare.

        Args:
            wanted: Query that selects our tasks.
        """
        self._client = client
        self._wanted = wanted
        self._lock = threading.Lock()
        self._states: dict[str, str] = {}  # {task id: state}, of those on other nodes
        self._beats = 0

    def note(self, tasks: Iterable[Mapping[str, Any]], node_id: str) -> set[str]:
        """Remember the open tasks of other nodes.

        Args:
            tasks: As the engine lists them, not all of them perhaps.
            node_id: Of the engine that we talk to.
        Returns:
            Ids of the services of which a task has changed since it was noted.
        """
        changed = set()
        with self._lock:
            for task in tasks:
                if task.get("NodeID", node_id) == node_id:
                    continue
                state = task["Status"]["State"]
                known = self._states.pop(task["ID"], None)
                if known is not None and known != state:
                    changed.add(task["ServiceID"])
                if stage_of(task) is not Stage.ENDED:
                    self._states[task["ID"]] = state
        return changed

    def beat(self, node_id: str, changed: Callable[[str], object]) -> None:
        """Ask the engine for what may have changed, or now and then whether it is there.

        Args:
            changed: Takes the id of each service of which a task has changed.
        Raises:
            BackendUnavailable: It does not answer.
        """
        self._beats += 1
        if not self._states:
            if self._beats % BEATS_PER_PING == 0:
                self._client.ping()
            return
        tasks = self._client.request("GET", "/tasks", self._wanted, timeout_s=PING_TIMEOUT_S) or []
        there = {task["ID"] for task in tasks}
        with self._lock:
            self._states = {key: state for key, state in self._states.items() if key in there}
        for service_id in self.note(tasks, node_id):
            changed(service_id)
