"""Requests of REST, from the path to the answer."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from action_harness import Harness, harness
from jobdb_builders import finished_job, make_job
from rest_harness import JSON, RestAnswer, ask, start

from pman.actions import ACTIONS, Action
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.auth import Role, TokenAuth
from pman.errors import MalformedRequest
from pman.http.message import Request, Response
from pman.job.state import JobState
from pman.jobdb.jobview import JobView, job_view
from pman.rest.schemas import JobList, WaitAnswer

PROBLEM = "application/problem+json"


def assert_problem(answer: RestAnswer, code: int, field: str | None = None) -> None:
    """Check that an answer is a problem document that names the field."""
    assert (answer.code, answer.media) == (code, PROBLEM), answer.raw
    assert answer.json["status"] == code
    assert answer.json.get("field") == field
    assert answer.json["detail"]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for actions: name -> its outcome; what it was asked is under `name!`."""
    outcomes: dict[str, Any] = {}
    known = ACTIONS.get

    def get(name: str) -> Action | None:
        if name not in outcomes:
            return known(name)

        def perform(request: ActionRequest, context: ActionContext) -> Outcome:
            outcomes[f"{name}!"] = request.meta
            made: Outcome = outcomes[name]
            return made

        action = known(name)
        return Action(perform, None, Role.READ, None if action is None else action.takes)

    monkeypatch.setattr(ACTIONS, "get", get)
    return outcomes


# --- paths and methods ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/"])
def test_the_index_leads_everywhere(pman: Harness, path: str) -> None:
    links = ask(pman, "GET", path).json["links"]
    assert links["listJobs"] == "/api/v2/jobs"
    assert links["openapi"] == "/api/v2/openapi.json"


@pytest.mark.parametrize(
    "path", ["/nosuch", "/jobs/a/b/c", "/jobs//cancel", "//jobs", "/jobs/a/nosuch", "/JOBS"]
)
def test_a_path_that_is_not_there_is_a_problem(pman: Harness, path: str) -> None:
    answer = ask(pman, "GET", path)
    assert_problem(answer, 404, "path")
    assert answer.json["kind"] == "UnknownPath"


def test_a_path_that_is_not_utf8_is_a_problem(pman: Harness) -> None:
    assert_problem(ask(pman, "GET", "/jobs/%ff"), 400, "path")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/jobs", "GET, HEAD, POST, OPTIONS"),
        ("DELETE", "/jobs", "GET, HEAD, POST, OPTIONS"),
        ("POST", "/jobs/a", "GET, HEAD, DELETE, OPTIONS"),
        ("GET", "/jobs/a/cancel", "POST, OPTIONS"),
        ("HEAD", "/jobs/a/cancel", "POST, OPTIONS"),
        ("get", "/jobs", "GET, HEAD, POST, OPTIONS"),
    ],
)
def test_another_method_is_told_which_there_are(
    pman: Harness, method: str, path: str, allow: str
) -> None:
    answer = ask(pman, method, path)
    assert_problem(answer, 405, "method")
    assert answer.headers["Allow"] == allow


def test_options_lists_the_methods_of_a_path(pman: Harness) -> None:
    answer = ask(pman, "OPTIONS", "/jobs/a")
    assert (answer.code, answer.raw) == (204, b"")
    assert answer.headers["Allow"] == "GET, HEAD, DELETE, OPTIONS"


def test_a_delete_elsewhere_is_refused_as_before(pman: Harness) -> None:
    reply = pman.send("DELETE", "/api/v1/jobs")
    assert reply.code == 405
    assert reply.headers["Allow"] == "GET, HEAD, POST, PUT, OPTIONS"
    assert reply.json["status"] is False


def test_the_payload_form_is_at_every_other_path(pman: Harness) -> None:
    payload = {"payload": {"action": "hello", "meta": {"askAbout": "timestamp"}}}
    assert pman.send("POST", "/api/v20", payload).json["status"] is True
    assert pman.send("POST", "/", payload).json["status"] is True


def test_what_never_became_a_request_is_a_problem_as_well(pman: Harness) -> None:
    error = MalformedRequest("no", hint=400)
    response = pman.dispatcher.reject(error, b"FOO /api/v2/jobs HTTP/1.1\r\n")
    assert response.content_type == PROBLEM
    response = pman.dispatcher.reject(error, b"FOO /api/v1/jobs HTTP/1.1\r\n")
    assert response.content_type == "application/json"


def test_a_zeromq_message_is_never_rest(pman: Harness) -> None:
    request = Request("GET", "/api/v2/jobs", is_http=False)
    assert pman.dispatcher.handle(request).content_type == "application/json"  # type: ignore[union-attr]


# --- who may ask ----------------------------------------------------------------------------


def test_without_a_token_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("secret\n")
    (tmp_path / "tokens").chmod(0o600)
    with harness(tmp_path, TokenAuth(tmp_path / "tokens")) as pman:
        for path in ("/jobs", "/nosuch", "/openapi.json"):
            answer = ask(pman, "GET", path)
            assert_problem(answer, 401, "Authorization")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert ask(pman, "GET", "/jobs", headers={"Authorization": "Bearer secret"}).code == 200


def test_a_page_of_somebody_else_is_refused(pman: Harness) -> None:
    assert_problem(ask(pman, "GET", "/jobs", headers={"Origin": "http://evil"}), 403, "Origin")


def test_a_page_of_ours_may_ask_and_read(tmp_path: Path) -> None:
    with harness(tmp_path, cors_origins=("http://ours",)) as pman:
        ours = {"Origin": "http://ours"}
        before = ask(pman, "OPTIONS", "/jobs/a", headers=ours)
        assert before.code == 204
        assert before.headers["Access-Control-Allow-Methods"] == "GET, HEAD, DELETE, OPTIONS"
        assert "Idempotency-Key" in before.headers["Access-Control-Allow-Headers"]
        shown = ask(pman, "GET", "/jobs", headers=ours)
        assert shown.headers["Access-Control-Allow-Origin"] == "http://ours"
        assert "ETag" in shown.headers["Access-Control-Expose-Headers"]


# --- POST /jobs -----------------------------------------------------------------------------


def test_a_job_is_made_and_its_address_told(pman: Harness) -> None:
    answer = ask(pman, "POST", "/jobs", {"cmd": "echo hello", "jid": "a"})
    assert answer.code == 201
    assert answer.headers["Location"] == f"/api/v2/jobs/{answer.json['id']}"
    assert (answer.json["jid"], answer.json["auid"], answer.json["cmd"]) == ("a", "", "echo hello")
    msgspec.convert(answer.json, JobView)


def test_a_job_without_a_jid_gets_one(pman: Harness) -> None:
    uuid.UUID(start(pman)["jid"])


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, 400, "cmd"),
        ({"cmd": 5}, 400, "cmd"),
        ({"cmd": "true", "colour": 1}, 400, "colour"),
        ({"cmd": "true", "number_of_workers": {"a": 1}}, 400, "number_of_workers"),
        ({"cmd": "true", "cpu_limit": [1]}, 400, "cpu_limit"),
        ({"cmd": "true", "memory_limit": None}, 400, "memory_limit"),
        ({"cmd": "true", "gpu_limit": True}, 400, "gpu_limit"),
        ({"cmd": "refuse"}, 502, None),
        ({"cmd": "echo 'open"}, 400, "cmd"),
    ],
)
def test_a_job_that_can_not_be_made_is_a_problem(
    pman: Harness, body: Any, code: int, field: str | None
) -> None:
    assert_problem(ask(pman, "POST", "/jobs", body), code, field)


def test_a_body_has_to_be_json_by_name(pman: Harness) -> None:
    answer = ask(pman, "POST", "/jobs", b'{"cmd": "true"}')
    assert_problem(answer, 415, "Content-Type")
    assert ask(pman, "POST", "/jobs", b'{"cmd": "true"}', dict([JSON])).code == 201


def test_a_dry_run_makes_nothing(pman: Harness) -> None:
    for answer in (
        ask(pman, "POST", "/jobs?dryRun=true", {"cmd": "true"}),
        ask(pman, "POST", "/jobs", {"cmd": "true", "dryRun": True}),
    ):
        assert (answer.code, answer.json["backend"]) == (200, "host")
    assert pman.store.count == 0


def test_the_same_key_and_body_is_the_same_job(pman: Harness) -> None:
    key = {"Idempotency-Key": '"k1"'}
    first = ask(pman, "POST", "/jobs", {"cmd": "true", "auid": "me"}, key)
    again = ask(pman, "POST", "/jobs", {"auid": "me", "cmd": "true"}, {"Idempotency-Key": "k1"})
    assert (first.code, again.code) == (201, 200)
    assert again.json["id"] == first.json["id"]
    assert again.headers["Location"] == first.headers["Location"]
    assert pman.store.count == 1


def test_the_same_key_with_another_body_is_refused(pman: Harness) -> None:
    ask(pman, "POST", "/jobs", {"cmd": "true"}, {"Idempotency-Key": "k1"})
    answer = ask(pman, "POST", "/jobs", {"cmd": "false"}, {"Idempotency-Key": "k1"})
    assert_problem(answer, 422, "Idempotency-Key")
    assert pman.store.count == 1


def test_the_same_key_is_answered_when_something_else_has_gone(pman: Harness) -> None:
    key = {"Idempotency-Key": "k1"}
    body = {"cmd": "true", "after": ["first"]}
    ask(pman, "POST", "/jobs", {"cmd": "true", "jid": "first"})
    made = ask(pman, "POST", "/jobs", body, key)
    assert ask(pman, "DELETE", "/jobs/first").code == 204
    again = ask(pman, "POST", "/jobs", body, key)
    assert (made.code, again.code) == (201, 200)
    assert again.json["id"] == made.json["id"]
    assert_problem(ask(pman, "POST", "/jobs", {"cmd": "false"}, key), 422, "Idempotency-Key")


@pytest.mark.parametrize(("key", "value"), [("timeout", "30"), ("env", ""), ("retries", 1.0)])
def test_what_2_2_may_have_ignored_is_refused(pman: Harness, key: str, value: Any) -> None:
    assert_problem(ask(pman, "POST", "/jobs", {"cmd": "true", key: value}), 400, key)


def test_another_key_is_another_job(pman: Harness) -> None:
    for key in ("k1", "k2"):
        answer = ask(pman, "POST", "/jobs", {"cmd": "true"}, {"Idempotency-Key": key})
        assert answer.code == 201


def test_the_same_jid_is_one_job_where_the_client_wants_it(pman: Harness) -> None:
    body = {"cmd": "true", "jid": "a", "idempotent": True}
    assert [ask(pman, "POST", "/jobs", body).code for _ in range(2)] == [201, 200]


def test_a_key_beside_that_wish_takes_nothing_from_it(pman: Harness) -> None:
    plain, wish = {"cmd": "true", "jid": "a"}, {"cmd": "true", "jid": "a", "idempotent": True}
    key = {"Idempotency-Key": "k1"}
    first = ask(pman, "POST", "/jobs", plain)
    for _ in range(2):
        again = ask(pman, "POST", "/jobs", wish, key)
        assert (again.code, again.json["id"]) == (200, first.json["id"])
    assert pman.store.count == 1


def test_a_key_finds_its_job_before_an_older_one_of_the_jid(pman: Harness) -> None:
    key = {"Idempotency-Key": "k1"}
    ask(pman, "POST", "/jobs", {"cmd": "true", "jid": "other"})
    made = ask(pman, "POST", "/jobs", {"cmd": "true", "jid": "b", "idempotent": True}, key)
    again = ask(pman, "POST", "/jobs", {"cmd": "true", "jid": "b", "idempotent": True}, key)
    assert (made.code, again.code, again.json["id"]) == (201, 200, made.json["id"])
    other = {"cmd": "true", "jid": "other", "idempotent": True}
    assert_problem(ask(pman, "POST", "/jobs", other, key), 422, "Idempotency-Key")


# --- GET /jobs ------------------------------------------------------------------------------


def test_a_list_is_read_page_by_page(pman: Harness) -> None:
    jobs = [make_job(f"job-{n}") for n in range(5)]
    for number, job in enumerate(jobs):
        job.order = number + 1
    pman.store.load(jobs)
    seen = []
    path = "/jobs?limit=2&state=NEW&state=QUEUED"
    while path:
        page = ask(pman, "GET", path)
        assert page.code == 200, page.raw
        seen += [job["jid"] for job in page.json["jobs"]]
        link = page.headers.get("Link", "")
        assert bool(link) is (page.json["next"] is not None)
        path = link.removeprefix("</api/v2").partition(">")[0]
    assert seen == ["job-4", "job-3", "job-2", "job-1", "job-0"]


def test_filters_reach_the_action(pman: Harness, played: dict[str, Any]) -> None:
    played["list"] = Outcome(True, {"jobs": [], "next": None})
    query = "state=NEW&label=a=b&label=c=d=e&jidPrefix=x&since=1.5&limit=3&auid=me&backend=host"
    assert ask(pman, "GET", f"/jobs?{query}").code == 200
    assert played["list!"] == {
        "state": ["NEW"],
        "label": {"a": "b", "c": "d=e"},
        "jidPrefix": "x",
        "since": 1.5,
        "limit": 3,
        "auid": "me",
        "backend": "host",
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("label=x", "label"),
        ("label==x", "label"),
        ("limit=0", "limit"),
        ("cursor=none", "cursor"),
        ("colour=red", "colour"),
        ("jid=%FF", "query"),
        ("state=NEW&state=x", "state"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(pman: Harness, query: str, field: str) -> None:
    assert_problem(ask(pman, "GET", f"/jobs?{query}"), 400, field)


# --- one job --------------------------------------------------------------------------------


def test_a_job_is_found_by_name_or_by_jid(pman: Harness) -> None:
    start(pman, jid="a/b c")
    newest = start(pman, jid="a/b c")
    for path in (f"/jobs/{newest['id']}", "/jobs/a%2Fb%20c"):
        assert ask(pman, "GET", path).json["id"] == newest["id"]


@pytest.mark.parametrize("more", ["", "/wait", "/events", "/logs"])
def test_a_job_that_is_not_there_is_a_problem(pman: Harness, more: str) -> None:
    answer = ask(pman, "GET", f"/jobs/nosuch{more}")
    assert_problem(answer, 404, "id")
    assert answer.json["kind"] == "UnknownJob"


def test_a_job_is_shown_as_everywhere(pman: Harness) -> None:
    job = finished_job("a", codes=(0, 3))
    pman.store.load([job])
    assert ask(pman, "GET", "/jobs/a").json == msgspec.to_builtins(job_view(job))


def test_a_deleted_job_is_gone(pman: Harness) -> None:
    name = start(pman, jid="a")["id"]
    kept = start(pman, jid="a")["id"]
    answer = ask(pman, "DELETE", f"/jobs/{name}")
    assert (answer.code, answer.raw) == (204, b"")
    assert [job.name for job in pman.store.jobs()] == [kept]


def test_a_wait_ends_with_the_job(pman: Harness) -> None:
    name = start(pman, jid="a")["id"]
    answer = ask(pman, "GET", "/jobs/a/wait?timeout=0")
    assert (answer.code, answer.json["state"]) == (200, "RUNNING")
    pman.backend.end(name, 0)  # type: ignore[attr-defined]
    answer = ask(pman, "GET", "/jobs/a/wait")
    assert (answer.code, answer.json["state"]) == (200, "COMPLETED")


def test_a_cancel_is_accepted(pman: Harness, played: dict[str, Any]) -> None:
    played["cancel"] = Outcome(True, {})
    name = start(pman, jid="a")["id"]
    answer = ask(pman, "POST", "/jobs/a/cancel", {"grace": 5, "signal": "INT"})
    assert (answer.code, answer.json["id"]) == (202, name)
    assert played["cancel!"] == {"job": name, "grace": 5, "signal": "INT"}
    assert ask(pman, "POST", "/jobs/a/cancel").code == 202
    assert played["cancel!"] == {"job": name}


def test_a_cancel_waits_where_that_is_asked_for(pman: Harness) -> None:
    name = start(pman, jid="a")["id"]
    answer = ask(pman, "POST", "/jobs/a/cancel", {"wait": True})
    assert (answer.code, answer.json["id"], answer.json["state"]) == (200, name, "CANCELED")


# --- several jobs ---------------------------------------------------------------------------


def test_one_of_several_jobs_is_waited_for_or_all(pman: Harness) -> None:
    first, second = (start(pman, jid=jid)["id"] for jid in "ab")
    answer = ask(pman, "GET", f"/wait?job={first}&job={second}&timeout=0")
    assert (answer.code, answer.json["isDone"]) == (200, False)
    pman.backend.end(first, 0)  # type: ignore[attr-defined]
    answer = ask(pman, "GET", "/wait?jid=a&jid=b&mode=any")
    assert answer.json["isDone"] is True
    assert [job["state"] for job in answer.json["jobs"]] == ["COMPLETED", "RUNNING"]
    msgspec.convert(answer.json, WaitAnswer)
    pman.backend.end(second, 0)  # type: ignore[attr-defined]
    assert ask(pman, "GET", "/wait?jid=a&jid=b").json["isDone"] is True


def test_several_jobs_are_canceled(pman: Harness) -> None:
    first, second, third = (start(pman, jid=jid)["id"] for jid in "aab")
    answer = ask(pman, "POST", "/cancel", {"jid": "a", "grace": 1, "signal": "INT"})
    assert (answer.code, [job["id"] for job in answer.json["jobs"]]) == (202, [first, second])
    answer = ask(pman, "POST", "/cancel", {"job": [first, third], "wait": True})
    assert (answer.code, [job["state"] for job in answer.json["jobs"]]) == (200, ["CANCELED"] * 2)
    msgspec.convert(answer.json, JobList)
    answer = ask(pman, "POST", "/cancel", {"job": [], "wait": True})
    assert (answer.code, answer.json) == (200, {"jobs": []})


def test_who_was_deleted_while_its_end_was_waited_for_is_left_out(
    pman: Harness, played: dict[str, Any]
) -> None:
    name = start(pman, jid="a")["id"]
    shown = [{"job": each, "jid": "a", "state": "RUNNING"} for each in ("gone", name)]
    played["cancel"] = Outcome(True, {"jobs": shown})
    answer = ask(pman, "POST", "/cancel", {"jid": "a"})
    assert [job["id"] for job in answer.json["jobs"]] == [name]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "field"),
    [
        ("GET", "/wait", None, 400, "jid"),
        ("GET", "/wait?job=x&jid=x", None, 400, "job"),
        ("GET", "/wait?job=nosuch", None, 404, "job"),
        ("GET", "/wait?jid=a&mode=some", None, 400, "mode"),
        ("POST", "/cancel", None, 415, "Content-Type"),
        ("POST", "/cancel", {}, 400, "jid"),
        ("POST", "/cancel", {"jid": ["a", "nosuch"]}, 404, "jid"),
        ("POST", "/cancel", {"jid": "a", "colour": 1}, 400, "colour"),
        ("POST", "/jobs/a/cancel", {"job": "x"}, 400, "job"),
    ],
)
def test_several_jobs_that_make_no_sense_are_refused(
    pman: Harness, method: str, path: str, body: Any, code: int, field: str
) -> None:
    start(pman, jid="a")
    assert_problem(ask(pman, method, path, body), code, field)
    assert [job.state for job in pman.store.jobs()] == [JobState.RUNNING]


# --- forms of an answer ---------------------------------------------------------------------


def test_head_is_get_without_a_body(pman: Harness) -> None:
    named = {"X-Request-Id": "the-same"}
    head, get = (ask(pman, method, "/jobs", headers=named) for method in ("HEAD", "GET"))
    assert head.headers == get.headers


def test_what_the_client_has_is_not_sent_again(pman: Harness) -> None:
    start(pman, jid="a")
    first = ask(pman, "GET", "/jobs/a")
    again = ask(pman, "GET", "/jobs/a", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.code, again.raw) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    pman.backend.end(first.json["id"], 0)  # type: ignore[attr-defined]
    changed = ask(pman, "GET", "/jobs/a", headers={"If-None-Match": first.headers["ETag"]})
    assert (changed.code, changed.json["state"]) == (200, "COMPLETED")


def test_a_long_answer_is_compressed_for_whom_it_is_welcome(pman: Harness) -> None:
    plain = ask(pman, "GET", "/openapi.json")
    pressed = ask(pman, "GET", "/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert pressed.headers["Content-Encoding"] == "gzip"
    assert pressed.json == plain.json
    assert len(pressed.raw) < len(plain.raw) / 3
    assert plain.headers["Vary"] == pressed.headers["Vary"] == "Accept-Encoding"
    assert plain.headers["ETag"] != pressed.headers["ETag"]
    known = {"If-None-Match": plain.headers["ETag"], "Accept-Encoding": "gzip"}
    assert ask(pman, "GET", "/openapi.json", headers=known).code == 304


def test_a_short_answer_is_not(pman: Harness) -> None:
    answer = ask(pman, "GET", "/backends", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers


def test_json_is_compact(pman: Harness) -> None:
    raw = ask(pman, "GET", "/jobs").raw
    assert raw == json.dumps(json.loads(raw), separators=(",", ":")).encode()


def test_who_takes_no_json_is_told(pman: Harness) -> None:
    assert_problem(ask(pman, "GET", "/jobs", headers={"Accept": "text/html"}), 406, "Accept")


# --- logs and events ------------------------------------------------------------------------


class Stream:
    """A body that is never read."""

    poll_s = None
    may_end_anywhere = True

    def __init__(self) -> None:
        self.is_closed = False

    def read(self) -> bytes | None:
        return None

    def on_news(self, callback: Any) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def test_a_stream_is_passed_on(pman: Harness, played: dict[str, Any]) -> None:
    played["events"] = Outcome(True, stream=Stream(), content_type="text/event-stream")
    start(pman, jid="a")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "17"}
    answer = ask(pman, "GET", "/jobs/a/events", headers=headers)
    assert (answer.code, answer.media) == (200, "text/event-stream")
    assert answer.stream is played["events"].stream
    assert "ETag" not in answer.headers
    assert (played["events!"]["follow"], played["events!"]["since"]) == (True, 17)


def test_a_stream_of_events_has_no_header_twice(pman: Harness) -> None:
    response = pman.dispatcher.handle(Request("GET", "/api/v2/events?follow=true"))
    assert isinstance(response, Response)
    assert response.stream is not None
    response.stream.close()
    names = [name for name, _ in response.headers]
    assert len(names) == len(set(names))
    assert ("Cache-Control", "no-store") in response.headers


def test_a_stream_does_not_begin_for_head(pman: Harness, played: dict[str, Any]) -> None:
    stream = Stream()
    played["events"] = Outcome(True, stream=stream, content_type="text/event-stream")
    answer = ask(pman, "HEAD", "/events?follow=true")
    assert (answer.code, answer.media, answer.stream) == (200, "text/event-stream", None)
    assert stream.is_closed


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "²"])
def test_an_event_id_is_a_number(pman: Harness, value: str) -> None:
    answer = ask(pman, "GET", "/events", headers={"Last-Event-ID": value})
    assert_problem(answer, 400, "Last-Event-ID")


def test_an_action_that_is_not_there_is_a_problem(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ACTIONS, "get", lambda _: None)
    assert_problem(ask(pman, "GET", "/jobs"), 501)


def test_a_fault_of_ours_is_a_problem_without_its_cause(
    pman: Harness, played: dict[str, Any]
) -> None:
    played["list"] = Outcome(True, {"no": "such keys"})
    answer = ask(pman, "GET", "/jobs")
    assert_problem(answer, 500)
    assert "KeyError" not in answer.json["detail"]
