"""`run` with all that it may ask for, and `cancel`, on the stub."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from action_harness import Harness, harness

from pman.actions._rights import spec_of
from pman.actions.base import ActionRequest
from pman.actions.run import accept, check
from pman.auth import Caller
from pman.errors import SnapshotError
from pman.job.record import Job
from pman.job.state import JobState
from pman.services import writer as writer_module


def states(pman: Harness, **meta: Any) -> list[str]:
    return [job["state"] for job in pman.post("cancel", meta).json["d_ret"]["jobs"]]


def test_a_dry_run_is_checked_and_keeps_nothing(pman: Harness) -> None:
    pman.run("true", jid="first")
    reply = pman.run("true", dryRun=True, after=["first"])
    (first,) = pman.store.find("jid", "first")
    assert reply.json["d_ret"] == {
        "dryRun": {},
        "backend": "host",
        "cmd": "true",
        "after": [first.name],
    }
    assert pman.store.count == 1
    assert pman.run("echo 'x", dryRun=True).code == 400


def test_after_names_the_newest_job_of_an_id(pman: Harness) -> None:
    pman.run("false", jid=7)
    pman.run("wait", jid=7)
    pman.run("true", jid="next", after=[7])
    (job,) = pman.store.find("jid", "next")
    assert job.after == [pman.store.find("jid", "7")[-1].name]


def test_after_an_id_that_nobody_has_is_refused(pman: Harness) -> None:
    reply = pman.run("true", after=["nobody"])
    assert (reply.code, reply.error["field"]) == (400, "after")
    assert pman.store.count == 0


def test_after_a_job_of_somebody_else_is_refused_as_unknown(pman: Harness) -> None:
    pman.run("true", jid="theirs", auid="they")
    meta = {"cmd": "true", "auid": "we", "jid": "ours", "after": ["theirs"]}
    request = ActionRequest(meta, caller=Caller(auid="we"))
    with pytest.raises(Exception, match="expected ids of jobs that are there"):
        check(spec_of(request), request, pman.context.scoped("we"))


@pytest.mark.parametrize(
    ("allowed", "url", "is_allowed"),
    [
        ((), "http://example.org/", False),
        (("*",), "http://example.org/", True),
        (("example.org",), "https://Example.ORG/x", True),
        (("example.org",), "https://example.org:8443/x", False),
        (("example.org:*",), "https://Example.ORG:8443/x", True),
        (("example.org:443",), "https://example.org/x", True),
        (("example.org:443",), "http://example.org/x", False),
        (("example.org",), "http://example.org.evil.net/", False),
        (("::1",), "http://[::1]:80/", True),
    ],
)
def test_a_callback_goes_to_hosts_that_are_named(
    tmp_path: Path, allowed: tuple[str, ...], url: str, is_allowed: bool
) -> None:
    with harness(tmp_path, callback_hosts=allowed) as pman:
        reply = pman.run("true", callback=url)
        if is_allowed:
            assert reply.code == 200
            assert pman.store.jobs()[0].callback == url
        else:
            assert (reply.code, reply.error["field"]) == (403, "callback")
            assert pman.store.count == 0


def test_the_same_key_is_answered_with_the_first_job(pman: Harness) -> None:
    meta = {"cmd": "true", "auid": "", "jid": ""}
    jobs = []
    for key in ("a:1", "a:2", "b:1"):
        request = ActionRequest(meta, idempotency=key)
        asked = check(spec_of(request), request, pman.context)
        jobs.append(accept(asked, request, pman.context))
    (first, is_first), (again, is_again), (other, is_other) = jobs
    assert (is_first, is_again, is_other) == (True, False, True)
    assert (again.name, again.idempotency) == (first.name, "a:1")
    assert other.name != first.name


def test_a_repeated_request_is_answered_whatever_has_gone(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    pman.run("true", jid="first")
    pman.run("true", jid="second", after=["first"], idempotent=True)
    pman.post("delete", {"value": "first"})
    settings = dataclasses.replace(pman.context.settings, disable_host_jobs=True)
    again = Harness(dataclasses.replace(pman.context, settings=settings))
    meta = {"after": ["first"], "callback": "http://example.org/"}
    assert again.run("true", jid="second", idempotent=True, **meta).code == 200
    assert again.run("true", jid="second", **meta).code == 403
    assert pman.store.count == 1


def test_what_a_client_of_2_2_says_is_kept_as_it_is(pman: Harness) -> None:
    meta = {"timeout": "30", "env": {"A": None}, "labels": "", "retries": 1.0}
    reply = pman.run("true", **meta)
    assert reply.code == 200
    (job,) = pman.store.jobs()
    assert (job.timeout_s, job.retries, job.labels) == (30.0, 1, None)
    assert json.loads(job.meta).items() >= meta.items()
    assert reply.json["meta"].items() >= meta.items()


def test_cancel_ends_all_jobs_of_an_id_and_keeps_them(pman: Harness) -> None:
    pman.run("wait", jid="j")
    pman.run("true", jid="j")
    pman.run("wait", jid="j")
    assert states(pman, jid="j") == ["CANCELED", "COMPLETED", "CANCELED"]
    assert states(pman, jid="j") == ["CANCELED", "COMPLETED", "CANCELED"]
    assert states(pman, job=pman.store.jobs()[1].name, wait=True) == ["COMPLETED"]
    assert pman.store.count == 3


def test_cancel_waits_if_asked_to(pman: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    pman.run("sleep 0.2", jid="j")
    monkeypatch.setattr(pman.backend, "cancel", lambda *_: None)
    assert states(pman, jid="j") == ["RUNNING"]
    assert states(pman, jid="j", wait=True) == ["COMPLETED"]


@pytest.mark.parametrize("ends", [True, False])
def test_no_cancel_is_answered_before_it_is_durable(
    pman: Harness, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Also not one that finds nothing left to do: who was first has not been answered."""

    def no_space(*_: object) -> None:
        raise SnapshotError("no space left")

    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    pman.run("wait", jid="j")
    if not ends:
        monkeypatch.setattr(pman.backend, "cancel", lambda *_: None)
    with monkeypatch.context() as disk:
        disk.setattr(pman.store._journal._database, "apply", no_space)
        for _ in range(2):
            reply = pman.post("cancel", {"jid": "j"})
            assert (reply.code, reply.error["message"]) == (503, "no space left")
    assert states(pman, jid="j") == ["CANCELED" if ends else "RUNNING"]


def test_a_job_between_tries_is_shown_as_its_last_try_was(pman: Harness) -> None:
    """And so it is after a cancel then: the next try never was."""
    pman.run("exit 3", retries=3, backoff=30)
    (job,) = pman.store.jobs()
    path = pman.context.output.path(job.name, 0, "stdout")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("out\n")
    for word in ("notstarted", "finishedWithError"):
        shown = pman.post("status", {"key": "jid", "value": "job-1"}).json["d_ret"]
        assert shown["0.start"]["startTrigger"] == [True]
        assert shown["0.end"]["returncode"] == [3]
        assert shown["l_status"] == [word]
        found = pman.post("get", {"path": f"/{job.name}/end/0/endInfo/0/stdout"}).json["d_ret"]
        assert found[job.name]["end"]["0"]["endInfo"]["0"]["stdout"] == "out\n"
        (view,) = pman.post("list", {}).json["d_ret"]["jobs"]
        assert (view["attempt"], [part["exitCode"] for part in view["parts"]]) == (2, [3])
        assert states(pman, jid="job-1") == ["CANCELED"]
    assert view["message"] == "canceled before its next try"


def test_what_containers_have_printed_is_shown_between_tries(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def logs(job: Job) -> list[str]:
        asked.append((job.run_name, job.state.value))
        return ["text"]

    monkeypatch.setattr(pman.backend, "logs", logs)
    pman.run("exit 3", retries=3, backoff=30, container={"target": {"image": "x"}})
    (job,) = pman.store.jobs()
    shown = pman.post("status", {"key": "jid", "value": "job-1"}).json["d_ret"]
    assert shown["l_logs"] == ["text"]
    assert asked == [(job.name, "FAILED")]


@pytest.mark.parametrize("key", ["jid", "job"])
def test_cancel_of_no_job_has_nothing_to_wait_for(pman: Harness, key: str) -> None:
    assert states(pman, **{key: []}, wait=True) == []
    assert states(pman, **{key: []}) == []


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({}, "jid"),
        ({"jid": "j", "grace": -1}, "grace"),
        ({"jid": "j", "signal": "SIGNOPE"}, "signal"),
        ({"jid": "j", "signal": 0}, "signal"),
        ({"jid": "j", "signal": True}, "signal"),
        ({"jid": "j", "wait": 1}, "wait"),
    ],
)
def test_cancel_names_what_is_wrong(pman: Harness, meta: dict[str, Any], field: str) -> None:
    pman.run("wait", jid="j")
    reply = pman.post("cancel", meta)
    assert (reply.code, reply.error["field"]) == (400, field)
    assert pman.store.jobs()[0].state is JobState.RUNNING


@pytest.mark.parametrize("meta", [{"jid": "nobody"}, {"job": "nothing"}])
def test_cancel_of_nothing_is_404(pman: Harness, meta: dict[str, Any]) -> None:
    reply = pman.post("cancel", meta)
    assert (reply.code, reply.error["type"]) == (404, "UnknownJob")


@pytest.mark.parametrize("word", ["SIGINT", "int", 2])
def test_a_signal_has_a_name_or_a_number(
    pman: Harness, monkeypatch: pytest.MonkeyPatch, word: Any
) -> None:
    seen: list[tuple[float, int | None]] = []
    monkeypatch.setattr(
        pman.backend, "cancel", lambda _, grace, signal: seen.append((grace, signal))
    )
    pman.run("wait", jid="j")
    pman.post("cancel", {"jid": "j", "grace": 2.5, "signal": word})
    assert seen == [(2.5, 2)]
