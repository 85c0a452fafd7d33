"""Tickets are needed where deleted pods are replaced, and are taken away once."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import pytest
from kube_objects import AT, RUNNING, condition, ended, job, pod, waiting

from pman.backends._openshift.failures import Answered
from pman.backends._openshift.guard import have_all_started
from pman.backends._openshift.tickets import Tickets, are_needed, ticket_name

T = TypeVar("T")

JOB_NAME = "20261123090253.309797_B64ea2f0-0000-4000-8000-000000000000"


class Server:
    """What tickets need of an `Api`. Attributes: asked, all requests; status, of its answers."""

    tickets = "/api/v1/namespaces/myproject/configmaps"

    def __init__(self, major: str = "1", minor: str = "20", status: int = 200) -> None:
        self.version = {"major": major, "minor": minor}
        self.status = status
        self.asked: list[str] = []

    def get(self, path: str, kind: type[T]) -> T:
        assert path == "/version"
        return msgspec.convert(self.version, kind)

    def post(self, path: str, body: dict[str, Any], kind: type[T]) -> T:
        self._answer(f"POST {path} {body['metadata']['name']}")
        return msgspec.convert({}, kind)

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        self._answer(f"{method} {path}")
        return b"{}"

    def _answer(self, asked: str) -> None:
        self.asked.append(asked)
        if self.status != 200:
            raise Answered("words", status=self.status)


@pytest.mark.parametrize(
    ("minor", "expected"),
    [("20", True), ("25", True), ("25+", True), ("26", False), ("27+", False), ("33", False)],
)
def test_newer_servers_need_none(minor: str, expected: bool) -> None:
    assert are_needed(Server(minor=minor)) is expected  # type: ignore[arg-type]
    assert not are_needed(Server("2", "0"))  # type: ignore[arg-type]


def test_a_ticket_is_named_for_its_job() -> None:
    assert ticket_name(JOB_NAME) == "pman-b64ea2f0-0000-4000-8000-000000000000"


@pytest.mark.parametrize(("status", "is_known"), [(200, True), (404, True), (500, False)])
def test_a_ticket_is_taken_once(status: int, is_known: bool) -> None:
    server: Any = Server(status=status)
    tickets = Tickets()
    tickets.take(server, JOB_NAME)
    assert server.asked == []  # none are used
    tickets.are_used = True
    for _ in "12":
        try:
            tickets.take(server, JOB_NAME)
        except Answered:
            assert not is_known
    assert len(server.asked) == (1 if is_known else 2)
    tickets.keep_only(())
    server.status = 200
    tickets.take(server, JOB_NAME)
    assert len(server.asked) == (2 if is_known else 3)


def test_a_ticket_that_is_there_is_the_jobs_own() -> None:
    server: Any = Server(status=409)
    Tickets().make(server, JOB_NAME, {})
    server.status = 403
    with pytest.raises(Answered):
        Tickets().make(server, JOB_NAME, {})


def test_all_have_started_when_each_worker_has() -> None:
    two = job(completions=2)
    running, waits = (
        pod("kx-a", "Running", RUNNING),
        pod("kx-b", state=waiting("ContainerCreating")),
    )
    assert not have_all_started(two, [running])
    assert not have_all_started(two, [running, waits])
    assert have_all_started(two, [running, pod("kx-b", "Succeeded", ended(0))])
    assert have_all_started(two, [running, pod("kx-b", "Failed", status={"reason": "Evicted"})])
    gone = pod("kx-b", "Failed", state=waiting("x"), deletionTimestamp=AT.format(3))
    assert not have_all_started(two, [running, gone])
    failed = {"conditions": [condition("Failed")]}
    assert have_all_started(job(failed, completions=2), [running])


def test_a_later_try_has_a_ticket_of_its_own() -> None:
    assert ticket_name(f"{JOB_NAME}_r2") == f"{ticket_name(JOB_NAME)}-r2"
