"""Asks the engine for what a task does not tell: of its container, and of its node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pman.backends._swarm.client import EngineClient, url_path
from pman.backends._swarm.facts import Facts, epoch_s
from pman.backends._swarm.problems import Missing
from pman.backends._swarm.tasks import STAGES, Stage, container_id

#: Exit code of a container that was killed, perhaps because memory ran out.
_KILLED = 137


class Inspector:
    """Fills in `Facts`, asking once for each container.

    Attributes:
        node_id: Of the engine that we talk to; only its containers can be inspected.
    """

    def __init__(self, client: EngineClient, facts: Facts) -> None:
        self._client = client
        self._facts = facts
        self.node_id = ""

    def inspect(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """Note when containers of these tasks ran, where events have not told it.

        Raises:
            BackendUnavailable: The engine can't be asked.
        """
        for task in tasks:
            status = task.get("Status") or {}
            stage = STAGES.get(status.get("State", ""), Stage.WAITING)
            if stage is Stage.RUNNING and self._facts.get(task["ID"]).started_at is None:
                self._facts.note(task["ID"], started_at=epoch_s(status.get("Timestamp")))
            elif stage is Stage.ENDED and container_id(task) and self._is_open(task):
                self._inspect(task["ID"], container_id(task))

    def is_ending(self, tasks: Iterable[Mapping[str, Any]]) -> bool:
        """Return whether a container has ended, and its task does not say so yet.

        The node tells the swarm some 100 ms after the event.
        """
        return any(
            STAGES.get((task.get("Status") or {}).get("State", "")) is not Stage.ENDED
            and self._facts.get(task["ID"]).ended_at is not None
            for task in tasks
        )

    def _is_open(self, task: Mapping[str, Any]) -> bool:
        """Return whether asking may tell more of a task that has ended."""
        if task.get("NodeID") != self.node_id:
            return False
        fact = self._facts.get(task["ID"])
        code = task["Status"]["ContainerStatus"].get("ExitCode")
        return fact.started_at is None or (code == _KILLED and fact.is_oom is None)

    def _inspect(self, task_id: str, container: str) -> None:
        try:
            found = self._client.get(url_path("/containers/{}/json", container))
        except Missing:
            self._facts.note(task_id, is_oom=False)
            return
        state = found.get("State") or {}
        self._facts.note(
            task_id,
            started_at=epoch_s(state.get("StartedAt")),
            ended_at=epoch_s(state.get("FinishedAt")),
            is_oom=bool(state.get("OOMKilled")),
        )

    def lost_nodes(self, tasks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Return {id: name} of the nodes that are down; asks only if a task is on another node.

        Raises:
            BackendUnavailable: The engine can't be asked.
        """
        if all(task.get("NodeID", self.node_id) == self.node_id for task in tasks):
            return {}
        return {
            node["ID"]: (node.get("Description") or {}).get("Hostname") or node["ID"]
            for node in self._client.get("/nodes") or []
            if (node.get("Status") or {}).get("State") == "down"
        }
