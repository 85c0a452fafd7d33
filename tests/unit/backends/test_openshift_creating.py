"""A job gets one Job, whatever the server says, and loses only the claim that is its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from kube_objects import JOB_NAME, job

from pman.backends._engine.order import Order
from pman.backends._engine.port import Unanswered
from pman.backends._openshift.creating import Creator, remove_claim
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.tickets import Tickets
from pman.errors import BackendUnavailable, JobConflict, SubmitFailed
from pman.settings import Settings

T = TypeVar("T")

ORDER = Order(job_name=JOB_NAME, jid="kx", cmd="true", image="i", command=["true"])
TAKEN = Answered("taken", status=409, cause="AlreadyExists")


class Server:
    """An API server that gives the answers it is told to. Attributes: asked, all requests."""

    namespace = "n"
    jobs, claims = "/jobs", "/claims"

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def get(self, path: str, kind: type[T]) -> T:
        return msgspec.convert(self._answer("get", path), kind)

    def post(self, path: str, body: dict[str, Any], kind: type[T]) -> T:
        return msgspec.convert(self._answer("post", f"{path}/{body['metadata']['name']}"), kind)

    def request(self, method: str, path: str, **_more: Any) -> bytes:
        self._answer(method.lower(), path)
        return b"{}"

    def list(self, path: str, kind: type[T], query: dict[str, Any]) -> tuple[list[T], str]:
        return msgspec.convert(self._answer("list", path), list[kind]), "1"  # type: ignore[valid-type]

    def _answer(self, method: str, path: str) -> Any:
        self.asked.append(f"{method} {path}")
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def create(tmp_path: Path) -> Callable[[Server], dict[str, Any]]:
    creator = Creator(Settings(db_path=tmp_path), "i", Tickets())

    def run(server: Any) -> dict[str, Any]:
        try:
            return creator.create(server, ORDER)
        finally:
            doubted = creator.being_made()
            creator.forget(JOB_NAME)
            assert doubted <= {JOB_NAME}
            assert not creator.being_made()

    return run


Create = Callable[[Server], dict[str, Any]]


@pytest.mark.parametrize(
    ("status", "cause", "error"),
    [
        (422, "Invalid", SubmitFailed),
        (500, "InternalError", Unanswered),
        (502, "", Unanswered),  # of a load balancer: it may have passed it on
        (503, "", Unanswered),
        (503, "ServiceUnavailable", Answered),  # of the server: nothing was done
        (504, "Timeout", Unanswered),
        (429, "TooManyRequests", Answered),
        (409, "Conflict", Answered),  # of a quota that has changed meanwhile
    ],
)
def test_what_may_have_been_carried_out_is_no_refusal(
    create: Create, status: int, cause: str, error: type[Exception]
) -> None:
    server = Server(post=Answered("words", status=status, cause=cause))
    with pytest.raises((BackendUnavailable, SubmitFailed)) as caught:
        create(server)
    assert type(caught.value) is error
    assert server.asked == ["post /jobs/kx"]


@pytest.mark.parametrize("status", [403, 429, 500])
def test_a_name_that_may_be_its_own_gets_no_second_job(create: Create, status: int) -> None:
    server = Server(post=TAKEN, get=Answered("words", status=status))
    with pytest.raises(Unanswered):
        create(server)
    assert server.asked == ["post /jobs/kx", "get /jobs/kx"]


def test_its_own_job_is_found_under_its_name(create: Create) -> None:
    server = Server(post=TAKEN, get=msgspec.to_builtins(job()))
    assert create(server)["uid"] == "u-kx"


def test_names_of_others_are_left_to_them(create: Create) -> None:
    server = Server(post=TAKEN, get={"metadata": {"labels": {"pman.job": "other"}}})
    with pytest.raises(JobConflict):
        create(server)
    assert len([asked for asked in server.asked if asked.startswith("post")]) == 2


@pytest.mark.parametrize(("owner", "is_removed"), [(JOB_NAME, True), ("other", False)])
def test_only_the_claim_of_the_job_is_removed(owner: str, is_removed: bool) -> None:
    server: Any = Server(get={"metadata": {"labels": {"pman.job": owner}}}, delete={})
    remove_claim(server, "kx-storage-claim", JOB_NAME)
    assert ("delete /claims/kx-storage-claim" in server.asked) is is_removed


def test_a_claim_that_is_gone_is_no_error() -> None:
    server: Any = Server(get=Answered("words", status=404))
    remove_claim(server, "kx-storage-claim", JOB_NAME)
    server.answers["get"] = Answered("words", status=500)
    with pytest.raises(Answered):
        remove_claim(server, "kx-storage-claim", JOB_NAME)


@pytest.mark.parametrize("is_taken", [False, True])
def test_what_would_be_made_is_told_under_the_first_free_name(
    tmp_path: Path, *, is_taken: bool
) -> None:
    tickets = Tickets()
    tickets.are_used = True
    creator = Creator(Settings(db_path=tmp_path, storage_type="claim"), "i", tickets)
    answer: Any = msgspec.to_builtins(job()) if is_taken else Answered("none", status=404)
    server: Any = Server(get=answer)
    if is_taken:
        with pytest.raises(JobConflict):
            creator.describe(server, ORDER)
    else:
        made = creator.describe(server, ORDER)
        assert {kind: thing["kind"] for kind, thing in made.items()} == {
            "job": "Job",
            "claim": "PersistentVolumeClaim",
            "configMap": "ConfigMap",
        }
        assert made["job"]["metadata"]["name"] == "kx"
    assert {asked.split()[0] for asked in server.asked} == {"get"}
