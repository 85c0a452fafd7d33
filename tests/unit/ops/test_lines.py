"""The lines of requests and of jobs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_harness import Harness, harness
from jobdb_builders import make_job

from pman import log
from pman.http.message import Request
from pman.job.observation import Observation
from pman.job.state import JobState
from pman.ops.lines import JobLines


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
