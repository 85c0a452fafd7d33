"""The lines of requests and of jobs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_harness import Harness, harness
from jobdb_builders import make_job
from rest_harness import ask, start
from token_file import bearer, write_tokens

from pman import log
from pman.auth import TokenAuth
from pman.errors import BackendUnavailable
from pman.http.deferred import Deferred
from pman.http.message import Request
from pman.job.observation import Observation
from pman.job.state import JobState
from pman.ops.lines import MAX_JID_LENGTH, JobLines


@pytest.fixture
def chatty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Harness]:
    with (
        caplog.at_level(logging.INFO, log.ACCESS),
        caplog.at_level(logging.INFO, log.JOBS),
        harness(tmp_path) as made,
    ):
        JobLines().watch(made.store)
        yield made


def fields(caplog: pytest.LogCaptureFixture, logger: str) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records if record.name == logger]  # type: ignore[attr-defined]


def test_a_request(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    headers = [("X-Request-Id", "r-1")]
    chatty.post("hello", {"askAbout": "timestamp"}, headers=headers, peer="192.0.2.7")
    (line,) = fields(caplog, log.ACCESS)
    assert line.pop("seconds") >= 0
    assert line.pop("bytes") > 100
    assert line == {
        "method": "POST",
        "path": "/api/v1/cmd",
        "action": "hello",
        "status": 200,
        "requestId": "r-1",
        "peer": "192.0.2.7",
    }


def test_a_head_has_no_bytes(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    request = Request("HEAD", "/healthz")
    chatty.dispatcher.handle_quick(request)
    (line,) = fields(caplog, log.ACCESS)
    assert line["bytes"] == 0
    assert line["requestId"] == request.id


def test_a_reply_that_comes_late_has_its_line_then(
    chatty: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    chatty.post("run", {"cmd": "true", "auid": "t", "jid": "late"})
    (line,) = fields(caplog, log.ACCESS)
    assert (line["action"], line["status"]) == ("run", 200)


# --- which job a request is about -----------------------------------------------------------


def about(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None, str | None]]:
    """Return action, jid and job of each line of a request, and forget the lines."""
    lines = [
        (line["action"], line.get("jid"), line.get("job")) for line in fields(caplog, log.ACCESS)
    ]
    caplog.clear()
    return lines


def name_of(pman: Harness, jid: str) -> str:
    (job,) = pman.store.find("jid", jid)
    return job.name


@pytest.mark.parametrize("threaded", [True, False])
def test_a_run_is_about_its_new_job(
    chatty: Harness, caplog: pytest.LogCaptureFixture, *, threaded: bool
) -> None:
    chatty.run("true", "j", threaded=threaded)
    assert about(caplog) == [("run", "j", name_of(chatty, "j"))]
    chatty.run("true", "j", threaded=threaded, idempotent=True)
    assert about(caplog) == [("run", "j", name_of(chatty, "j"))]
    assert chatty.run("'", "refused").code == 400
    chatty.run("true", "dry", dryRun=True)
    assert about(caplog) == [("run", None, None)] * 2  # there is none


@pytest.mark.parametrize(
    ("action", "meta"),
    [
        ("status", {"key": "jid", "value": "j"}),
        ("status", {"key": "cmd", "value": "wait"}),
        ("done", {"key": "jid", "value": "j"}),
        ("info", {"key": "jid", "value": "j"}),
        ("search", {"key": "jid", "value": "j", "path": "/cmd"}),
        ("wait", {"jid": "j", "timeout": 0}),
        ("wait", {"jid": ["j"], "timeout": 0.01}),
        ("logs", {"jid": "j"}),
        ("get", {"path": "/_0/cmd"}),
        ("cancel", {"jid": "j"}),
        ("cancel", {"jid": "j", "wait": True}),
        ("delete", {"value": "j"}),
    ],
)
def test_a_request_about_one_job_names_it(
    chatty: Harness, caplog: pytest.LogCaptureFixture, action: str, meta: dict[str, Any]
) -> None:
    chatty.run("wait", "j")
    name = name_of(chatty, "j")
    caplog.clear()
    assert chatty.post(action, meta).code == 200
    assert about(caplog) == [(action, "j", name)]


def test_events_of_one_job_name_it(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    chatty.run("wait", "j")
    name = name_of(chatty, "j")
    caplog.clear()
    chatty.post("events", {"since": 0, "job": name})
    chatty.post("events", {"since": 0, "job": "nobody"})
    chatty.post("events", {"since": 0, "jid": "j"})  # all that have it, also later
    assert about(caplog) == [("events", "j", name), *[("events", None, None)] * 2]


def test_a_quick_request_names_its_job(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    chatty.run("wait", "j")
    caplog.clear()
    meta = {"key": "jid", "value": "j"}
    body = json.dumps({"payload": {"action": "status", "meta": meta}}).encode()
    assert chatty.dispatcher.handle_quick(Request("POST", "/", body=body)) is not None
    assert about(caplog) == [("status", "j", name_of(chatty, "j"))]


def test_a_path_names_its_job(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    chatty.run("wait", "j")
    name = name_of(chatty, "j")
    caplog.clear()
    for path in (f"/api/v1/{name}/cmd", "/api/v1/_-1", "/api/v1/_7", "/api/v1/nobody", "/api/v1/"):
        chatty.send("GET", path)
    found = [("get", "j", name)] * 2
    assert about(caplog) == [*found, *[("get", None, None)] * 3]


def test_requests_about_several_jobs_or_none_name_none(
    chatty: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    for jid in ("twin", "twin", "other"):
        chatty.run("wait", jid)
    caplog.clear()
    chatty.post("status", {"key": "jid", "value": "twin"})
    chatty.post("wait", {"jid": ["twin", "other"], "timeout": 0})
    chatty.post("cancel", {"jid": "twin"})
    chatty.post("cancel", {"jid": "nobody"})
    chatty.post("delete", {"value": "nobody"})
    chatty.post("list", {})
    chatty.post("hello", {"askAbout": "timestamp"})
    assert {line[1:] for line in about(caplog)} == {(None, None)}


def test_a_request_that_failed_names_its_job(
    chatty: Harness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise BackendUnavailable("the engine is away")

    chatty.run("wait", "j")
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(type(chatty.backend), "cancel", away)
        assert chatty.post("cancel", {"jid": "j"}).code == 503
    assert about(caplog) == [("cancel", "j", name_of(chatty, "j"))]


def test_a_request_that_was_given_up_names_its_job(
    chatty: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    chatty.run("wait", "j")
    caplog.clear()
    body = json.dumps({"payload": {"action": "wait", "meta": {"jid": "j", "timeout": 300}}})
    answer = chatty.dispatcher.handle(Request("POST", "/", body=body.encode()))
    assert isinstance(answer, Deferred)
    assert about(caplog) == []
    answer.give_up()
    assert about(caplog) == [("wait", "j", name_of(chatty, "j"))]


def test_rest_names_the_job_of_the_path(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    job = start(chatty, jid="j")
    path = f"/jobs/{job['id']}"
    asked = [("GET", path), ("GET", f"{path}/logs"), ("GET", f"{path}/events")]
    asked += [("GET", f"{path}/wait?timeout=0"), ("POST", f"{path}/cancel"), ("DELETE", path)]
    for method, target in asked:
        assert ask(chatty, method, target).code < 300
    lines = about(caplog)
    assert {line[1:] for line in lines} == {("j", job["id"])}
    actions = ["run", "show", "logs", "events", "wait", "cancel", "delete"]
    assert [line[0] for line in lines] == actions
    for target in ("/jobs", "/backends", "/events", path, "/nothing"):
        ask(chatty, "GET", target)
    assert {line[1:] for line in about(caplog)} == {(None, None)}


def test_jobs_of_others_are_named_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the reply nor the line of a bound caller tells that there is such a job."""
    auth = TokenAuth(write_tokens(tmp_path), clock=lambda: 0.0)
    replies = []
    for level in (logging.INFO, logging.WARNING):
        folder = tmp_path / str(level)
        folder.mkdir()
        with caplog.at_level(level, log.ACCESS), harness(folder, auth) as pman:
            payload = {"cmd": "wait", "auid": "bob", "jid": "secret", "threaded": True}
            assert pman.post("run", payload, headers=[bearer("bob")]).code == 200
            caplog.clear()
            for action in ("cancel", "logs", "wait"):
                reply = pman.post(action, {"jid": "secret"}, headers=[bearer("alice")])
                assert reply.code == 404
                replies.append(reply.json["error"])
            pman.post("status", {"key": "jid", "value": "secret"}, headers=[bearer("alice")])
            if level == logging.INFO:
                assert [line[1:] for line in about(caplog)] == [(None, None)] * 4
    assert replies[:3] == replies[3:]


# --- what clients have made up --------------------------------------------------------------

FORGED = "x)\n2026-01-01 00:00:00 | host | pman.access | GET / \x1b[2J\r\u2028\u202e"


def written(caplog: pytest.LogCaptureFixture, formatter: logging.Formatter) -> str:
    (record,) = [record for record in caplog.records if record.name == log.ACCESS]
    return formatter.format(record)


def test_a_jid_is_one_line_of_text(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    chatty.run("true", FORGED)
    text = written(caplog, log.LineFormatter())
    assert text.isprintable()
    assert text.endswith(f", job {name_of(chatty, FORGED)} (jid {FORGED!r})")


def test_a_jid_is_one_line_of_json(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    chatty.run("true", FORGED)
    text = written(caplog, log.JsonFormatter())
    assert text.isprintable()
    assert text.isascii()
    line = json.loads(text)
    assert (line["jid"], line["job"]) == (FORGED, name_of(chatty, FORGED))


def test_a_long_jid_is_cut(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    jid = "x" * 1000
    chatty.run("true", jid)
    assert about(caplog) == [("run", "x" * MAX_JID_LENGTH + "...", name_of(chatty, jid))]


# --- jobs -----------------------------------------------------------------------------------


def test_a_job(chatty: Harness, caplog: pytest.LogCaptureFixture) -> None:
    chatty.post(
        "run",
        {"cmd": "true", "auid": "t", "jid": "j", "threaded": False},
        headers=[("X-Request-Id", "r-2")],
    )
    lines = fields(caplog, log.JOBS)
    assert lines[0]["state"] == "NEW"
    assert lines[-1]["state"] == "COMPLETED"
    assert lines[-1]["reason"] == "ok"
    assert lines[-1]["exitCode"] == 0
    assert {line["jid"] for line in lines} == {"j"}
    assert {line["requestId"] for line in lines} == {"r-2"}
    assert len({line["job"] for line in lines}) == 1


def test_a_job_that_is_held(
    chatty: Harness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    chatty.run("wait", jid="first")
    asked = [("X-Request-Id", "r-3")]
    meta = {"cmd": "true", "auid": "t", "jid": "second", "threaded": True, "after": ["first"]}
    chatty.post("run", meta, headers=asked)
    chatty.post("run", {**meta, "cmd": "wait", "jid": "third"}, headers=asked)
    chatty.post("cancel", {"jid": "third"}, headers=[("X-Request-Id", "r-4")])
    lines = [line for line in fields(caplog, log.JOBS) if line["jid"] != "first"]
    assert [(line["jid"], line["state"]) for line in lines] == [
        ("second", "QUEUED"),
        ("third", "QUEUED"),
        ("third", "CANCELED"),
    ]
    assert {line["requestId"] for line in lines} == {"r-3"}


def test_of_jobs_that_are_gone_nothing_is_kept(chatty: Harness) -> None:
    lines = JobLines()
    lines.watch(chatty.store)
    chatty.run("wait", jid="first")
    chatty.run("true", jid="second", after=["first"])
    assert len(lines._requests) == 2
    lines._forget(chatty.store.jobs(), [])
    assert lines._requests == {}


def test_a_job_of_a_former_daemon_has_no_request(
    chatty: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job("old", state=JobState.RUNNING)
    chatty.store.load([job])
    chatty.store.observe(Observation(name=job.name, state=JobState.CANCELED, reason="canceled"))
    (line,) = fields(caplog, log.JOBS)
    assert (line["state"], "requestId" in line) == ("CANCELED", False)


def test_nothing_is_written_where_nobody_listens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, log.ACCESS),
        caplog.at_level(logging.WARNING, log.JOBS),
        harness(tmp_path) as quiet,
    ):
        JobLines().watch(quiet.store)
        quiet.post("run", {"cmd": "true", "auid": "t", "jid": "j"})
    assert fields(caplog, log.ACCESS) == []
    assert fields(caplog, log.JOBS) == []
