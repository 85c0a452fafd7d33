"""Which token may ask for what, and whose jobs it makes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_harness import Answer, Harness, harness
from token_file import bearer, token_of, write_tokens

from pman.actions import ACTIONS
from pman.actions.base import ActionContext
from pman.auth import Role, TokenAuth
from pman.http.message import Request, Response
from pman.jobdb.scope import ScopedStore

#: Members of the context that lead to no job by themselves. `store` does, and is restricted.
HARMLESS = {
    "backends",
    "settings",
    "output",
    "snapshots",
    "request_stop",
    "now",
    "errands",
    "timers",
}


@contextlib.contextmanager
def guarded(folder: Path, **settings: Any) -> Iterator[Harness]:
    """Yield a harness that wants tokens."""
    with harness(folder, TokenAuth(write_tokens(folder)), **settings) as made:
        yield made


@pytest.fixture
def pman(tmp_path: Path) -> Iterator[Harness]:
    with guarded(tmp_path) as made:
        yield made


def ask(pman: Harness, token: str, action: str, **meta: Any) -> Answer:
    return pman.post(action, meta, headers=[bearer(token)])


def run(pman: Harness, token: str, jid: str = "job-1", **meta: Any) -> Answer:
    return ask(pman, token, "run", **{"cmd": "true", "jid": jid, "threaded": True, **meta})


def test_each_member_of_the_context_has_been_thought_about(pman: Harness) -> None:
    """One through which jobs can be reached has to be restricted in `ActionContext.scoped`."""
    assert {f.name for f in dataclasses.fields(ActionContext)} == HARMLESS | {"store"}
    assert isinstance(pman.context.scoped("alice").store, ScopedStore)


# --- roles ----------------------------------------------------------------------------------


def allowed(pman: Harness, token: str, action: str) -> bool:
    """Say whether a token may ask for an action; whatever else is wrong with it."""
    reply = ask(pman, token, action)
    is_refused = reply.code == 403
    assert not is_refused or (reply.error["type"], reply.error["field"]) == ("Forbidden", "action")
    return not is_refused


@pytest.mark.parametrize("action", ACTIONS.names())
@pytest.mark.parametrize("token", ["reader", "runner", "chief", "old", "alice", "alice-is-admin"])
def test_who_may_ask_for_what(pman: Harness, token: str, action: str) -> None:
    least = ACTIONS.get(action)
    assert least is not None
    role = {"reader": Role.READ, "runner": Role.RUN, "alice": Role.RUN}.get(token, Role.ADMIN)
    is_bound = token.startswith("alice")
    expected = role >= least.role and not (is_bound and least.role is Role.ADMIN)
    assert allowed(pman, token, action) is expected


@pytest.mark.parametrize(
    ("admin_only", "runner_may"),
    [
        ((), {"quit", "DBctl"}),
        (("quit",), {"DBctl"}),
        (("DBctl",), {"quit"}),
        (("quit", "DBctl", "host"), set()),
    ],
)
def test_what_is_kept_to_administrators(
    tmp_path: Path, admin_only: tuple[str, ...], runner_may: set[str]
) -> None:
    with guarded(tmp_path, admin_only=admin_only) as pman:
        for action in ("DBctl", "quit"):
            assert allowed(pman, "runner", action) is (action in runner_may)
            assert not allowed(pman, "reader", action)
            assert not allowed(pman, "alice", action)
            assert not allowed(pman, "alice-is-admin", action)
            assert allowed(pman, "chief", action)
            assert allowed(pman, "old", action)


@pytest.mark.parametrize(("admin_only", "code"), [((), 200), (("DBctl",), 403)])
def test_put_takes_the_right_of_dbctl(
    tmp_path: Path, admin_only: tuple[str, ...], code: int
) -> None:
    body = {"payload": {"action": "run", "meta": {"context": "db", "operation": "clear"}}}
    with guarded(tmp_path, admin_only=admin_only) as pman:
        for token, expected in {
            "reader": 403,
            "runner": code,
            "chief": 200,
            "alice": 403,
            "alice-is-admin": 403,
        }.items():
            assert pman.send("PUT", body=body, headers=[bearer(token)]).code == expected, token


def test_the_refusal_says_which_role_is_needed(pman: Harness) -> None:
    assert ask(pman, "reader", "run").error == {
        "type": "Forbidden",
        "message": "run needs a token with the role run, and this one has the role read",
        "field": "action",
    }
    assert ask(pman, "alice-is-admin", "quit").error["message"] == (
        "quit is about more than the jobs of one user, expected a token that is bound to no auid"
    )


def test_host_jobs_can_be_kept_to_administrators(tmp_path: Path) -> None:
    with guarded(tmp_path, admin_only=("host",)) as pman:
        for token in ("runner", "alice"):
            reply = run(pman, token, auid="alice")
            assert (reply.code, reply.error["field"]) == (403, "cmd")
            assert "needs a token with the role admin" in reply.error["message"]
        assert pman.store.count == 0
        assert run(pman, "chief", auid="x").code == 200
        assert run(pman, "alice-is-admin").code == 200


def test_without_tokens_everybody_has_all_rights(tmp_path: Path) -> None:
    with harness(tmp_path, admin_only=("quit", "DBctl", "host")) as pman:
        assert pman.run("true").code == 200
        assert pman.post("DBctl", {"do": "save"}).code == 200
        assert pman.post("quit", {}).code == 200


def test_directives_have_all_rights(tmp_path: Path) -> None:
    with guarded(tmp_path, admin_only=("quit", "DBctl", "host")) as pman:
        for directive in (
            {"action": "run", "meta": {"cmd": "true", "auid": "anybody", "jid": "d"}},
            {"action": "DBctl", "meta": {"do": "save"}},
        ):
            pman.dispatcher.execute(directive)
        assert pman.store.count == 1


def test_the_log_names_the_token_and_does_not_show_it(
    pman: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    ask(pman, "reader", "quit")
    assert "a request with the token 'reader' was refused: quit needs" in caplog.text
    assert token_of("reader") not in caplog.text


def test_what_may_not_be_asked_for_is_refused_at_once(pman: Harness) -> None:
    body = json.dumps({"payload": {"action": "run", "meta": {}}}).encode()
    request = Request("POST", "/", headers=[bearer("reader")], body=body)
    response = pman.dispatcher.handle_quick(request)
    assert response is not None
    assert response.status == 403


# --- whose jobs -----------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"auid": ""}, {"auid": "alice"}])
def test_a_bound_token_makes_jobs_of_its_user(pman: Harness, given: dict[str, str]) -> None:
    reply = run(pman, "alice", **given)
    assert reply.code == 200
    assert reply.json["meta"]["auid"] == "alice"
    (job,) = pman.store.jobs()
    assert job.auid == "alice"
    assert json.loads(job.meta)["auid"] == "alice"


@pytest.mark.parametrize(
    ("auid", "code"), [("bob", 403), ("Alice", 403), (5, 403), (None, 400), ([], 400), (False, 400)]
)
def test_and_of_nobody_else(pman: Harness, auid: Any, code: int) -> None:
    reply = run(pman, "alice", auid=auid)
    assert (reply.code, reply.error["field"]) == (code, "auid")
    assert pman.store.count == 0


def test_a_number_is_a_user_too(tmp_path: Path) -> None:
    path = write_tokens(tmp_path)
    path.write_text(path.read_text().replace("auid = alice", "auid = 1001"))
    with harness(tmp_path, TokenAuth(path)) as pman:
        assert run(pman, "alice", auid=1001).code == 200
        assert run(pman, "alice", auid=1002).code == 403


def test_a_bound_token_has_engine_objects_of_its_own_name(pman: Harness) -> None:
    for token, is_own in (("alice", True), ("chief", None)):
        for given in ({}, {"uniqueName": False}):
            block = {"target": {"image": "busybox"}, **given}
            reply = run(pman, token, auid="alice", container=block)
            assert reply.code == 200
            expected = is_own or given.get("uniqueName")
            assert reply.json["meta"]["container"].get("uniqueName") is expected
            job = pman.store.at(-1)
            assert job is not None
            assert job.container == json.loads(job.meta)["container"]
            assert job.container.get("uniqueName") is expected


def test_idempotent_is_about_own_jobs(pman: Harness) -> None:
    for token in ("bob", "alice", "alice", "bob"):
        assert run(pman, token, "same", idempotent=True).code == 200
    assert [job.auid for job in pman.store.jobs()] == ["bob", "alice"]


def test_an_unbound_token_sees_all(pman: Harness) -> None:
    run(pman, "alice", "a")
    run(pman, "bob", "b")
    for token in ("reader", "chief", "old"):
        for jid in ("a", "b"):
            assert ask(pman, token, "status", key="jid", value=jid).json["status"] is True


def test_quick_answers_are_restricted_too(pman: Harness) -> None:
    run(pman, "bob", "b")

    def quick(token: str) -> bool:
        body = {"payload": {"action": "status", "meta": {"key": "jid", "value": "b"}}}
        request = Request("POST", "/", headers=[bearer(token)], body=json.dumps(body).encode())
        response = pman.dispatcher.handle_quick(request)
        assert isinstance(response, Response)
        return bool(json.loads(response.body)["status"])

    assert quick("bob")
    assert not quick("alice")
    assert not quick("alice-reads")
    assert quick("bob")
