"""Asks the engine for what a task does not tell: of its container, and of its node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pman.backends._swarm.client import EngineClient, url_path
from pman.backends._swarm.facts import Facts, epoch_s
from pman.backends._swarm.problems import Failed, Refused
from pman.backends._swarm.tasks import Stage, container_id, stage_of
from pman.errors import BackendUnavailable

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
            stage = stage_of(task)
            if stage is Stage.RUNNING and self._facts.get(task["ID"]).started_at is None:
                self._facts.note(task["ID"], started_at=epoch_s(status.get("Timestamp")))
            elif stage is Stage.ENDED and container_id(task) and self._is_open(task):
                self._inspect(task["ID"], container_id(task))

    def is_ending(self, tasks: Iterable[Mapping[str, Any]]) -> bool:
        """Return whether a container has ended, and its task does not say so yet.

        The node tells the swarm some 100 ms after the event.
        """
        return any(
            stage_of(task) is not Stage.ENDED and self._facts.get(task["ID"]).ended_at is not None
            for task in tasks
        )

    def _is_open(self, task: Mapping[str, Any]) -> bool:
        """Return whether asking may tell more of a task that has ended."""
        if task.get("NodeID") != self.node_id:
            return False
        fact = self._facts.get(task["ID"])
        code = task["Status"]["ContainerStatus"].get("ExitCode")
        return fact.started_at is None or (code == _KILLED and fact.is_oom is None)

    # An engine may overlook that memory ran out within some 30 ms of the start: it listens for that
    # only once the container runs. Nothing tells such an end from another by SIGKILL.
    def _inspect(self, task_id: str, container: str) -> None:
        try:
            found = self._client.get(url_path("/containers/{}/json", container))
        except (Refused, Failed):
            # Gone, or broken: one container that can't be looked at must not hide all the others.
            self._facts.note(task_id, is_oom=False)
            return
        state = found.get("State") or {}
        self._facts.note(
            task_id,
            started_at=epoch_s(state.get("StartedAt")),
            ended_at=epoch_s(state.get("FinishedAt")),
            is_oom=bool(state.get("OOMKilled")),
        )

    def check_nodes(self, tasks: Iterable[Mapping[str, Any]]) -> frozenset[str]:
        """Raise when output lies on a node that is down, and may come back.

        Returns:
            Ids of the tasks whose node was removed from the swarm: their output is gone.
        Raises:
            BackendUnavailable: A node is down, or the engine can't be asked.
        """
        elsewhere = [
            task
            for task in tasks
            if container_id(task) and task.get("NodeID", self.node_id) != self.node_id
        ]
        if not elsewhere:
            return frozenset()
        nodes = {node["ID"]: node for node in self._client.get("/nodes") or []}
        for task in elsewhere:
            node = nodes.get(task["NodeID"])
            if node is not None and _is_down(node) and stage_of(task) is Stage.ENDED:
                raise BackendUnavailable(
                    f"output lies on node {_hostname(node)}, which is down; bring it back, or run:"
                    f" docker node rm --force {node['ID']}"
                )
        return frozenset(task["ID"] for task in elsewhere if task["NodeID"] not in nodes)

    def lost_nodes(self, tasks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Return {id: name} of the nodes that are down; asks only if a task is on another node.

        Raises:
            BackendUnavailable: The engine can't be asked.
        """
        if all(task.get("NodeID", self.node_id) == self.node_id for task in tasks):
            return {}
        return {
            node["ID"]: _hostname(node)
            for node in self._client.get("/nodes") or []
            if _is_down(node)
        }


def _hostname(node: Mapping[str, Any]) -> str:
    return (node.get("Description") or {}).get("Hostname") or str(node["ID"])


def _is_down(node: Mapping[str, Any]) -> bool:
    """Source: Docker, "Engine API", NodeState."""
    return (node.get("Status") or {}).get("State") == "down"
