"""Jobs that requests name, and how the actions that do so read the rest."""

from __future__ import annotations

from typing import Any

import pytest
from action_harness import Harness

from pman.actions._named import newest


@pytest.mark.parametrize(("sent", "text"), [(5, "5"), ("5", "5"), (5.5, "5.5")])
@pytest.mark.parametrize("action", ["wait", "cancel", "logs", "list", "events"])
def test_a_number_means_its_text(pman: Harness, action: str, sent: Any, text: str) -> None:
    pman.run("true", jid=sent)
    pman.run("true", jid="other")
    meta = {"jid": sent, **({"since": 0} if action == "events" else {})}
    reply = pman.post(action, meta)
    assert reply.code == 200
    answer = reply.json["d_ret"]
    shown = answer.get("jobs") or answer.get("events") or [answer]
    assert {each["jid"] for each in shown} == {text}


@pytest.mark.parametrize("action", ["wait", "cancel", "logs"])
def test_jobs_are_named_in_one_way(pman: Harness, action: str) -> None:
    pman.run("wait", jid="a")
    (job,) = pman.store.jobs()
    reply = pman.post(action, {})
    assert (reply.code, reply.error["field"]) == (400, "jid")
    reply = pman.post(action, {"jid": "a", "job": job.name})
    assert (reply.code, reply.error["field"]) == (400, "job")
    assert pman.store.get(job.name) == job


@pytest.mark.parametrize("action", ["list", "events"])
def test_numbers_mean_their_texts_in_users_and_labels(pman: Harness, action: str) -> None:
    pman.run("true", jid="a", auid=7, labels={"n": 1, "x": 0.5})
    pman.run("true", jid="b", auid="8", labels={"n": 1})
    pman.run("true", jid="c", auid="7", labels={"n": 2})
    more = {"since": 0} if action == "events" else {}
    for meta in ({"auid": 7, "label": {"n": 1}}, {"label": {"n": "1", "x": 0.5}}):
        answer = pman.post(action, {**meta, **more}).json["d_ret"]
        assert {each["jid"] for each in answer["jobs" if action == "list" else "events"]} == {"a"}


@pytest.mark.parametrize("action", ["list", "events"])
def test_what_is_wrong_with_a_label_names_it(pman: Harness, action: str) -> None:
    reply = pman.post(action, {"label": {"m": "x", "n": {"n": 1}}})
    assert (reply.code, reply.error["field"]) == (400, "label.n")
    assert reply.error["message"] == "label.n is {'n': 1}, expected a number or text"


@pytest.mark.parametrize("action", ["wait", "cancel", "logs", "list", "events"])
def test_a_boolean_is_no_id(pman: Harness, action: str) -> None:
    assert pman.post(action, {"jid": True}).error["field"] == "jid"


@pytest.mark.parametrize("action", ["wait", "cancel"])
def test_an_id_may_not_mean_too_many_jobs(
    pman: Harness, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr("pman.actions._named.MAX_NAMES", 3)
    for jid in ("a", "a", "b"):
        pman.run("sleep 9", jid)
    at_once: dict[str, Any] = {"timeout": 0} if action == "wait" else {}
    meta = {"jid": ["a", "b"], **at_once}
    assert len(pman.post(action, meta).json["d_ret"]["jobs"]) == 3
    pman.run("sleep 9", "b")
    error = pman.post(action, meta).error
    assert (error["type"], error["field"]) == ("RequestError", "jid")
    assert "4 jobs have, expected at most 3; name them with job" in error["message"]
    names = [job.name for job in pman.store.jobs()]
    named = pman.post(action, {"job": names[:3], **at_once}).json["d_ret"]["jobs"]
    assert len(named) == 3


def test_the_newest_of_an_id(pman: Harness) -> None:
    for jid in ("", "5", 5, "other"):
        pman.run("true", jid=jid)
    empty, _, second, _ = pman.store.jobs()
    assert newest(5, pman.context) == second
    assert newest("", pman.context) == empty
    assert newest("nobody", pman.context) is None


@pytest.mark.parametrize("action", ["wait", "cancel", "logs", "list", "events", "backends"])
def test_a_key_that_is_not_known_is_refused_with_those_that_are(pman: Harness, action: str) -> None:
    reply = pman.post(action, {"Jid": "a"})
    assert (reply.code, reply.error["field"]) == (400, "Jid")
    expected = "expected none" if action == "backends" else "expected one of "
    assert reply.error["message"].startswith(f"key 'Jid' is not known, {expected}")


@pytest.mark.parametrize("action", ["wait", "cancel", "logs", "list", "events", "backends"])
def test_what_clients_of_2_2_put_into_any_request_is_none(pman: Harness, action: str) -> None:
    pman.run("true", jid="a")
    meta = {} if action == "backends" else {"jid": "a"}
    reply = pman.post(action, {**meta, "threaded": False, "service": "pman_remote"})
    assert (reply.code, reply.json["status"]) == (200, True)


def test_the_actions_of_2_2_take_any_key(pman: Harness) -> None:
    pman.run("true", jid="a", colour="red")
    for action, meta in [
        ("status", {"key": "jid", "value": "a"}),
        ("hello", {"askAbout": "timestamp"}),
        ("get", {"path": "/_0/jid"}),
        ("delete", {"value": "a"}),
    ]:
        assert pman.post(action, {**meta, "colour": "red"}).code == 200
