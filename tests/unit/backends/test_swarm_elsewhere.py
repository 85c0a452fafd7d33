"""Tasks on other nodes are asked for as long as one of them is open."""

from __future__ import annotations

from typing import Any, cast

from pman.backends._swarm.client import EngineClient
from pman.backends._swarm.elsewhere import BEATS_PER_PING, Elsewhere


class Asked:
    """Stands for a client: answers with `tasks`, and counts."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.requests = 0
        self.pings = 0

    def request(self, *_: object, **__: object) -> list[dict[str, Any]]:
        self.requests += 1
        return self.tasks

    def ping(self) -> None:
        self.pings += 1


def task(name: str, state: str, node: str = "far") -> dict[str, Any]:
    """Return a task."""
    return {"ID": name, "ServiceID": f"s-{name}", "NodeID": node, "Status": {"State": state}}


def test_tasks_elsewhere_are_followed_to_their_end() -> None:
    asked, changed = Asked(), list[str]()
    far = Elsewhere(cast(EngineClient, asked), {})
    far.note([task("a", "running"), task("b", "running", node="near"), task("c", "failed")], "near")
    asked.tasks = [task("a", "running")]
    far.beat("near", changed.append)
    assert changed == []
    asked.tasks = [task("a", "complete"), task("d", "running")]
    far.beat("near", changed.append)
    assert changed == ["s-a"]
    asked.tasks = []  # removed: an event tells of that
    far.beat("near", changed.append)
    far.beat("near", changed.append)
    assert (changed, asked.requests) == (["s-a"], 3)


def test_without_them_the_engine_is_asked_now_and_then_whether_it_is_there() -> None:
    asked = Asked()
    near = Elsewhere(cast(EngineClient, asked), {})
    near.note([task("b", "running", node="near")], "near")
    for _ in range(2 * BEATS_PER_PING):
        near.beat("near", print)
    assert (asked.pings, asked.requests) == (2, 0)
