"""The pages for who runs pman: what they say, to whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_harness import Answer, Harness, harness
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse
from rest_harness import ask

from pman.auth import Caller, TokenAuth
from pman.http.deferred import Deferred
from pman.http.message import Request, Response
from pman.ops.operations import Operations

BEARER = [("Authorization", "Bearer right-token")]


@pytest.fixture
def pman(tmp_path: Path) -> Iterator[Harness]:
    with harness(tmp_path) as made:
        yield made


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Harness]:
    tokens = tmp_path / "tokens"
    tokens.write_text("right-token\n")
    tokens.chmod(0o600)
    with harness(tmp_path, TokenAuth(tokens, clock=lambda: 0.0)) as made:
        yield made


def scrape(pman: Harness, **more: Any) -> str:
    response = pman.dispatcher.handle(Request("GET", "/metrics", **more))
    assert isinstance(response, Response)
    assert response.status == 200, response.body
    return response.body.decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


# --- which requests come here ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PROPFIND"])
def test_other_methods_are_refused(pman: Harness, path: str, method: str) -> None:
    reply = pman.send(method, path, {"payload": {"action": "hello", "meta": {}}})
    assert reply.code == 405
    assert reply.headers["Allow"] == "GET, HEAD"
    assert reply.error["field"] == "method"


@pytest.mark.parametrize("path", ["/healthz", "/readyz?verbose", "/metrics"])
def test_commands_are_for_no_path(pman: Harness, path: str) -> None:
    payload = {"action": "hello", "meta": {"askAbout": "timestamp"}}
    assert pman.send("POST", path, {"payload": payload}).json["status"] is True
    assert pman.send("PUT", path).json["RESTverb"] == "PUT"


@pytest.mark.parametrize("path", ["/healthz/", "/health", "/v1/healthz", "/", "//healthz"])
def test_other_paths_are_what_they_were(pman: Harness, path: str) -> None:
    assert "GET" in pman.send("GET", path).json


@pytest.mark.parametrize("path", ["/healthz", "/readyz?verbose"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_needs_no_listener(guarded: Harness, path: str, method: str) -> None:
    response = guarded.dispatcher.handle_quick(Request(method, path))
    assert response is not None
    assert response.status == 200


def test_what_may_take_longer_is_left_to_listeners(guarded: Harness) -> None:
    quick = guarded.dispatcher.handle_quick
    assert quick(Request("GET", "/metrics")) is None
    assert quick(Request("GET", "/api/v1/")) is None


# --- healthz, readyz ------------------------------------------------------------------------


def test_alive(pman: Harness) -> None:
    reply = pman.send("GET", "/healthz")
    assert (reply.code, reply.json) == (200, {"alive": True})
    assert reply.headers["Cache-Control"] == "no-store"


def test_ready(pman: Harness) -> None:
    reply = pman.send("GET", "/readyz")
    assert reply.code == 200
    assert reply.json == {"ready": True, "backends": {"host": "ok"}, "draining": False}


def test_not_ready_says_which_backend_and_why(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(pman.backend), "state", lambda _: "the engine is away")
    reply = pman.send("GET", "/readyz")
    assert reply.code == 503
    assert reply.json["ready"] is False
    assert reply.json["backends"] == {"host": "the engine is away"}
    assert pman.send("GET", "/healthz").code == 200
    assert samples(scrape(pman))["pman_backend_up", (("backend", "host"),)] == 0


def test_a_backend_that_nobody_may_use_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with harness(tmp_path, disable_host_jobs=True) as pman:
        monkeypatch.setattr(type(pman.backend), "state", lambda _: "away")
        assert pman.send("GET", "/readyz").json == {
            "ready": True,
            "backends": {},
            "draining": False,
        }


def test_draining(pman: Harness) -> None:
    operations = Operations(pman.context, is_draining=lambda: True)
    answer = operations.answer("/readyz", Request("GET", "/readyz"), Caller(), None)
    assert answer.status == 503
    assert json.loads(answer.body) == {
        "ready": False,
        "backends": {"host": "ok"},
        "draining": True,
    }
    assert operations.answer("/healthz", Request("GET", "/healthz"), None, None).status == 200


@pytest.mark.parametrize("headers", [[], [("Authorization", "Bearer wrong-token")]])
def test_strangers_learn_whether_and_no_more(
    guarded: Harness, headers: list[tuple[str, str]]
) -> None:
    reply = guarded.send("GET", "/readyz", headers=headers)
    assert (reply.code, reply.json) == (200, {"ready": True})
    refused = guarded.send("GET", "/metrics", headers=headers)
    assert refused.code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert "pman_" not in json.dumps(refused.json)


def test_a_token_tells_all(guarded: Harness) -> None:
    assert "backends" in guarded.send("GET", "/readyz", headers=BEARER).json
    assert "pman_jobs" in scrape(guarded, headers=BEARER)


def test_a_token_of_one_user_is_not_for_counts_of_all(pman: Harness) -> None:
    operations = Operations(pman.context)
    request = Request("GET", "/metrics")
    assert operations.answer("/metrics", request, Caller(auid="me"), None).status == 403
    assert operations.answer("/readyz", request, Caller(auid="me"), None).status == 200


# --- metrics --------------------------------------------------------------------------------


def test_requests_are_counted_by_what_became_of_them(pman: Harness) -> None:
    for _ in range(3):
        assert pman.post("hello", {"askAbout": "timestamp"}).code == 200
    pman.dispatcher.handle_quick(
        Request("POST", "/", body=b'{"payload": {"action": "hello", "meta": {}}}')
    )
    pman.post("no-such-action", {})
    pman.send("GET", "/api/v1/nobody")
    pman.send("BREW", "/")
    pman.send("GET", "/healthz")
    found = samples(scrape(pman))

    def count(action: str, method: str, status: int) -> float:
        labels = (("action", action), ("method", method), ("status", str(status)))
        return found["pman_requests_total", labels]

    assert count("hello", "POST", 200) == 4
    assert count("other", "POST", 400) == 1
    assert count("get", "GET", 404) == 1
    assert count("other", "other", 405) == 1
    assert count("healthz", "GET", 200) == 1
    assert found["pman_request_duration_seconds_count", (("action", "hello"),)] == 4
    inf = (("action", "hello"), ("le", "+Inf"))
    assert found["pman_request_duration_seconds_bucket", inf] == 4


def test_requests_of_rest_are_counted_by_what_they_ask_for(pman: Harness) -> None:
    pman.run("wait", "a")
    for path in ("/jobs/a", "/jobs/nobody", "/jobs/a/wait?timeout=0", "/jobs?limit=x", "/nosuch"):
        ask(pman, "GET", path)
    ask(pman, "POST", "/jobs", {"cmd": 5})
    ask(pman, "PUT", "/jobs")
    found = samples(scrape(pman))
    counts = {
        tuple(value for _, value in labels): count
        for (name, labels), count in found.items()
        if name == "pman_requests_total"
    }
    assert counts == {
        ("run", "POST", "200"): 1,
        ("show", "GET", "200"): 1,
        ("show", "GET", "404"): 1,
        ("wait", "GET", "200"): 1,
        ("list", "GET", "400"): 1,
        ("get", "GET", "404"): 1,
        ("run", "POST", "400"): 1,
        ("other", "PUT", "405"): 1,
    }


def test_who_has_left_before_the_answer_is_counted_as_such(pman: Harness) -> None:
    pman.run("wait", "a")
    body = b'{"payload": {"action": "wait", "meta": {"jid": "a"}}}'
    waits = pman.dispatcher.handle(Request("POST", "/api/v1/cmd", body=body))
    assert isinstance(waits, Deferred)
    waits.give_up()
    labels = (("action", "wait"), ("method", "POST"), ("status", "499"))
    assert samples(scrape(pman))["pman_requests_total", labels] == 1


@pytest.mark.parametrize(
    ("method", "path", "headers", "action", "status"),
    [
        ("GET", "/jobs", {}, "list", 200),
        ("GET", "/jobs?colour=red", {}, "list", 400),
        ("HEAD", "/jobs?limit=x", {}, "list", 400),
        ("GET", "/jobs/nobody", {}, "show", 404),
        ("GET", "/jobs/nobody/logs", {}, "logs", 404),
        ("GET", "/backends", {"Accept": "text/html"}, "backends", 406),
        ("POST", "/jobs", {"Content-Type": "text/plain"}, "run", 415),
        ("GET", "/nosuch", {}, "get", 404),
        ("DELETE", "/jobs", {}, "other", 405),
        ("GET", "", {}, "get", 200),
    ],
)
def test_a_request_of_rest_counts_as_its_action_also_where_it_is_refused(
    pman: Harness, method: str, path: str, headers: dict[str, str], action: str, status: int
) -> None:
    assert ask(pman, method, path, b"{}" if method == "POST" else None, headers).code == status
    labels = (("action", action), ("method", method), ("status", str(status)))
    assert samples(scrape(pman))["pman_requests_total", labels] == 1


def test_clients_can_not_make_up_series(pman: Harness) -> None:
    before = len(samples(scrape(pman)))
    for n in range(50):
        pman.post(f"action-{n}", {})
        pman.send(f"METHOD{n}", "/")
        pman.send("GET", f"/a/b/{n}")
    assert len(samples(scrape(pman))) < before + 80  # three kinds of request, and their times


def test_no_name_of_a_job_or_user_is_shown(pman: Harness) -> None:
    pman.run("true", "secret-jid", auid="secret-auid", labels={"secret": "label"})
    text = scrape(pman)
    assert "secret" not in text
    assert samples(text)["pman_jobs_accepted_total", (("backend", "host"),)] == 1


def test_openmetrics_for_who_asks(pman: Harness) -> None:
    accept = [("Accept", "application/openmetrics-text; version=1.0.0")]
    response = pman.dispatcher.handle(Request("GET", "/metrics", headers=accept))
    assert isinstance(response, Response)
    assert response.content_type.startswith("application/openmetrics-text")
    assert "pman_requests" in {family.name for family in parse_open(response.body.decode())}


def test_names_are_as_is_the_custom(pman: Harness) -> None:
    pman.post("hello", {})
    for family in parse(scrape(pman)):
        if family.name.startswith("pman_"):
            assert family.documentation, family.name
            if family.type == "counter":
                assert {sample.name for sample in family.samples} <= {f"{family.name}_total"}


# --- request ids ----------------------------------------------------------------------------


def test_the_pages_tell_an_id(pman: Harness) -> None:
    mine = pman.send("GET", "/healthz", headers=[("x-request-ID", "a/b:c")])
    assert mine.headers["X-Request-Id"] == "a/b:c"
    made = {pman.send("GET", "/healthz").headers["X-Request-Id"] for _ in range(2)}
    assert len(made) == 2


@pytest.mark.parametrize("sent", ["", "two words", "x" * 129, "caf\xe9", "tab\t"])
def test_what_is_no_id_is_replaced(pman: Harness, sent: str) -> None:
    got = pman.send("GET", "/healthz", headers=[("X-Request-Id", sent)]).headers["X-Request-Id"]
    assert got not in ("", sent)
    assert got.isalnum()


def test_two_ids_are_none(pman: Harness) -> None:
    twice = [("X-Request-Id", "one"), ("X-Request-Id", "two")]
    got = pman.send("GET", "/healthz", headers=twice).headers["X-Request-Id"]
    assert got not in ("one", "two")


def test_old_replies_have_an_id_only_for_who_has_sent_one(pman: Harness) -> None:
    payload = {"payload": {"action": "hello", "meta": {}}}
    assert "X-Request-Id" not in pman.send("POST", body=payload).headers
    sent = pman.send("POST", body=payload, headers=[("X-Request-Id", "mine")])
    assert sent.headers["X-Request-Id"] == "mine"
    late: Answer = pman.send("GET", "/api/v1/nobody", headers=[("X-Request-Id", "mine")])
    assert (late.code, late.headers["X-Request-Id"]) == (404, "mine")
