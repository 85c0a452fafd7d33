"""Rights of tokens, asked of a real daemon: by every action, every method and every path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from action_table import ACTION_TABLE, GET_PATHS, PUT_METAS, Meta, Target
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, Reply, wait_until
from token_file import bearer, write_tokens

import pman.actions
from pman.actions import ACTIONS
from pman.wire import METHODS

ACTIONS.load(pman.actions)

#: A job of nobody, as long as one of bob's.
NEVER = Target(
    "no-such-1", "20200101000000.000000_00000000-0000-4000-8000-000000000000", "zoe", "none"
)


class Guarded:
    """A daemon that wants tokens, with jobs of bob's and of alice's."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        for jid, cmd in (("his-job-1", ": quick"), ("his-job-2", "sleep 600")):
            self.post("bob", "run", {"cmd": cmd, "jid": jid, "threaded": True})
        self.post("alice", "run", {"cmd": "true", "jid": "her-job-1"})
        wait_until(lambda: self.words("his-job-1") == ["finishedSuccessfully"], "the first end")
        wait_until(lambda: self.words("his-job-2") == ["started"], "the second start")

    def ask(self, token: str, method: str, path: str, body: Any = None) -> Reply:
        text = None if body is None else json.dumps(body)
        return self.daemon.request(method, path, text, dict([bearer(token)]))

    def post(self, token: str, action: str, meta: Meta) -> Reply:
        document = {"payload": {"action": action, "meta": meta}}
        return self.ask(token, "POST", "/api/v1/cmd", document)

    def words(self, jid: str) -> list[str]:
        reply = self.post("chief", "status", {"key": "jid", "value": jid})
        words: list[str] = reply.json()["d_ret"]["l_status"]
        return words

    def names(self, token: str) -> list[str]:
        return list(self.ask(token, "GET", "/api/v1/").json()["GET"])

    def tree(self) -> dict[str, Any]:
        """Return all that an administrator can see of the jobs."""
        paths = [f"/api/v1/{name}" for name in self.names("chief")]
        return {path: self.ask("chief", "GET", path).json()["GET"] for path in paths}

    def targets(self) -> list[Target]:
        """Return bob's jobs."""
        return [
            Target(jid, name, "bob", cmd)
            for name in self.names("bob")
            for jid, cmd in [(self._leaf(name, "jid"), self._leaf(name, "cmd"))]
            if jid.startswith("his")
        ]

    def _leaf(self, name: str, leaf: str) -> str:
        found: str = self.ask("chief", "GET", f"/api/v1/{name}/{leaf}").json()["GET"][name][leaf]
        return found


@pytest.fixture(scope="module")
def guarded(new_shared_daemon: NewDaemon, tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    path = write_tokens(tmp_path_factory.mktemp("tokens"))
    flags = ("--enableTokenAuth", "--tokenPath", str(path), "--DBsavePeriod", "3600")
    return Guarded(new_shared_daemon(*flags, name="rights"))


def test_each_action_is_in_the_table() -> None:
    assert sorted(ACTION_TABLE) == ACTIONS.names()


# --- to look and not to touch -----------------------------------------------------------------


@pytest.mark.parametrize("action", sorted(ACTION_TABLE))
@pytest.mark.parametrize("token", ["reader", "alice-reads"])
def test_a_reader_changes_nothing_by_any_action(guarded: Guarded, token: str, action: str) -> None:
    entry = ACTION_TABLE[action]
    before = guarded.tree()
    for job in guarded.targets():
        for meta in entry.metas(job):
            reply = guarded.post(token, action, meta)
            if entry.changes:
                assert (reply.status, reply.json()["error"]["field"]) == (403, "action")
            else:
                assert reply.status in (200, 400, 404, 501)
    assert guarded.tree() == before


@pytest.mark.parametrize("token", ["reader", "alice-reads", "alice", "alice-is-admin", "bob"])
def test_nor_by_any_other_method(guarded: Guarded, token: str) -> None:
    before = guarded.tree()
    bodies = [{"payload": {"action": "run", "meta": meta}} for meta in PUT_METAS]
    for action in ("quit", "DBctl", "delete"):
        bodies.append({"payload": {"action": action, "meta": {}}})
    for body in bodies:
        for method in (*METHODS, "DELETE", "PATCH"):
            if method == "POST":
                continue
            reply = guarded.ask(token, method, "/api/v1/cmd", body)
            is_run = body["payload"]["action"] == "run"
            expected = {"PUT": 403 if is_run else 400, "OPTIONS": 200, "GET": 404, "HEAD": 404}
            assert reply.status == expected.get(method, 405), (method, body)
    assert guarded.tree() == before


# --- what does not exist ----------------------------------------------------------------------


def never(job: Target) -> Target:
    """Return a job that never was, spelled as long as one that is there."""
    values = {
        field: getattr(NEVER, field)[: len(getattr(job, field))].ljust(
            len(getattr(job, field)), "x"
        )
        for field in job.__struct_fields__
    }
    return Target(**values)


def seen(reply: Reply, job: Target) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return a reply without what the request has told it."""
    headers = [(name, value) for name, value in reply.headers if name != "Date"]
    return reply.status, headers, job.blanked(reply.body)


@pytest.mark.parametrize("action", sorted(ACTION_TABLE))
@pytest.mark.parametrize("token", ["alice", "alice-reads", "alice-is-admin"])
def test_the_job_of_another_is_like_none_at_all(guarded: Guarded, token: str, action: str) -> None:
    before = guarded.tree()
    for theirs in guarded.targets():
        nobodys = never(theirs)
        pairs = zip(
            ACTION_TABLE[action].metas(theirs), ACTION_TABLE[action].metas(nobodys), strict=True
        )
        for about_theirs, about_none in pairs:
            there = guarded.post(token, action, about_theirs)
            none = guarded.post(token, action, about_none)
            assert seen(there, theirs) == seen(none, nobodys), about_theirs
        for job in (theirs, nobodys):  # what `run` has made
            guarded.post("alice", "delete", {"value": job.jid})
    assert guarded.tree() == before


@pytest.mark.parametrize("action", ["done", "events", "get", "info", "search", "status"])
def test_and_a_difference_would_be_seen(guarded: Guarded, action: str) -> None:
    theirs = guarded.targets()[0]
    nobodys = never(theirs)
    there, none = (
        [guarded.post("reader", action, meta) for meta in ACTION_TABLE[action].metas(job)]
        for job in (theirs, nobodys)
    )
    assert seen(there[0], theirs) != seen(none[0], nobodys)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_paths_of_another_lead_nowhere(guarded: Guarded, method: str) -> None:
    for theirs in guarded.targets():
        nobodys = never(theirs)
        for path in GET_PATHS:
            there = guarded.ask("alice", method, path(theirs))
            none = guarded.ask("alice", method, path(nobodys))
            assert there.status == 404
            assert seen(there, theirs) == seen(none, nobodys)


def test_offsets_and_lists_count_own_jobs(guarded: Guarded) -> None:
    mine = guarded.names("alice")
    assert mine
    assert not set(mine) & set(guarded.names("bob"))
    assert set(mine) < set(guarded.names("chief"))
    for n in range(-len(mine) - 2, len(mine) + 2):
        found = guarded.ask("alice", "GET", f"/api/v1/_{n}/jid").json()["GET"]
        expected = mine[n] if -len(mine) <= n < len(mine) else None
        assert found is False if expected is None else list(found) == [expected]
    assert list(guarded.post("alice", "get", {"path": "/"}).json()["d_ret"]) == mine


def test_pipelined_requests_are_each_answered_for_their_own_token(guarded: Guarded) -> None:
    body = json.dumps(
        {"payload": {"action": "status", "meta": {"key": "jid", "value": "his-job-1"}}}
    )
    tokens = ["bob", "alice", "bob", "alice-reads", "chief", "alice"]
    with guarded.daemon.connect() as connection:
        for token in tokens:
            name, value = bearer(token)
            head = f"POST / HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\nContent-Length: {len(body)}"
            connection.send(f"{head}\r\n\r\n{body}".encode())
        answers = [connection.read_reply().json()["status"] for _ in tokens]
    assert answers == [token in ("bob", "chief") for token in tokens]


def test_what_a_bound_token_starts_is_its_own(guarded: Guarded) -> None:
    meta = {"cmd": "echo mine", "jid": "his-job-1"}
    shown = guarded.post("alice", "run", meta).json()
    assert shown["meta"]["auid"] == "alice"
    assert shown["d_ret"]["l_status"] == ["finishedSuccessfully"]
    removed = guarded.post("alice", "delete", {"value": "his-job-1"})
    assert removed.status == 200
    assert guarded.words("his-job-1") == ["finishedSuccessfully"]  # bob's


# --- changes of the file, and what the log says -----------------------------------------------


def test_rights_can_be_taken_while_it_runs(new_daemon: NewDaemon, tmp_path: Path) -> None:
    path = write_tokens(tmp_path)
    daemon = new_daemon("--enableTokenAuth", "--tokenPath", str(path))
    headers = dict([bearer("runner")])

    def status() -> int:
        return daemon.post("run", headers, cmd="true", jid="x", auid="", threaded=True).status

    assert status() == 200
    path.write_text(path.read_text().replace("role = run", "role = read"))
    wait_until(lambda: status() == 403, "the new rights")
    assert "a request with the token 'runner' was refused" in daemon.log_text()
    assert "s3cret" not in daemon.log_text()


def test_a_file_with_wrong_rights_stops_the_start(new_daemon: NewDaemon, tmp_path: Path) -> None:
    path = write_tokens(tmp_path)
    path.write_text(path.read_text().replace("role = admin", "role = root"))
    daemon = new_daemon("--enableTokenAuth", "--tokenPath", str(path), is_started=False)
    daemon.launch()
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    assert "'root' in [[chief]]" in daemon.log_text()
