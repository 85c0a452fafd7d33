"""From request to reply: envelopes, refusals, codes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_harness import Harness, harness
from jobdb_builders import DEADLINE_S, make_job

from pman.actions import ACTIONS, RUN_BODY_BYTES, SMALL_BODY_BYTES
from pman.actions._selection import FEW_JOBS
from pman.auth import TokenAuth
from pman.envelope import MAX_ECHO_LENGTH, MAX_REFUSED_ECHO_LENGTH
from pman.errors import MalformedRequest
from pman.http.deferred import Deferred
from pman.http.message import Request, Response
from pman.job.observation import Observation
from pman.job.record import Worker
from pman.job.state import JobState
from pman.wire import loads


@pytest.fixture
def pman(tmp_path: Path) -> Iterator[Harness]:
    with harness(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"  \n", "body"),
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        (b"[]", "payload"),
        (b"5", "payload"),
        (b"{}", "payload"),
        (b'{"payload": 5}', "payload"),
        (b'{"payload": {}}', "action"),
        (b'{"payload": {"action": 5, "meta": {}}}', "action"),
        (b'{"payload": {"action": "nosuch", "meta": {}}}', "action"),
        (b'{"payload": {"action": "hello"}}', "meta"),
        (b'{"payload": {"action": "hello", "meta": null}}', "meta"),
        (b'{"payload": {"action": "hello", "meta": []}}', "meta"),
        (b'{"action": "hello", "meta": {}}', "payload"),
    ],
)
def test_what_is_no_message_is_refused_by_name(pman: Harness, body: bytes, field: str) -> None:
    reply = pman.send("POST", body=body)
    assert reply.code == 400
    assert reply.json["status"] is False
    assert reply.error["field"] == field
    assert reply.error["message"]


def test_an_unknown_action_is_told_which_there_are(pman: Harness) -> None:
    message = pman.post("frobnicate", {}).error["message"]
    assert "'frobnicate'" in message
    assert ", ".join(ACTIONS.names()) in message


def test_a_long_value_is_shown_shortened(pman: Harness) -> None:
    message = pman.post("x" * 100_000, {}).error["message"]
    assert len(message) < 500


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "TRACE", "get"])
def test_other_methods_are_refused(pman: Harness, method: str) -> None:
    reply = pman.send(method)
    assert (reply.code, reply.error["type"]) == (405, "MethodNotAllowed")
    assert reply.headers["Allow"] == "GET, HEAD, POST, PUT, OPTIONS"


def test_the_envelope_has_the_order_of_2_2(pman: Harness) -> None:
    reply = pman.post("hello", {"askAbout": "timestamp"})
    assert list(reply.json) == [
        "status",
        "RESTheader",
        "RESTverb",
        "action",
        "path",
        "receivedByServer",
        "client_json_payload",
        "client_json_len",
        "payloadsize",
        "meta",
        "d_ret",
    ]


def test_secrets_in_headers_are_masked(pman: Harness) -> None:
    headers = [("authorization", "bearer s3cret"), ("COOKIE", "a=s3cret"), ("Host", "x")]
    reply = pman.send("GET", "/", headers=headers)
    assert "s3cret" not in json.dumps(reply.json)
    assert "authorization: ***\r" in reply.json["receivedByServer"]
    assert "Host: x\r" in reply.json["receivedByServer"]


@pytest.mark.parametrize("letter", ["x", "é", "\\n"])
def test_a_long_body_is_repeated_in_part(pman: Harness, letter: str) -> None:
    text = letter * 400_000
    body = f'{{"payload": {{"action": "status", "meta": {{"key": "jid", "value": "{text}"}}}}}}'
    reply = pman.send("POST", body=body.encode())
    assert reply.code == 200
    assert reply.json["client_json_len"] == len(body)
    for shown in ("\n".join(reply.json["receivedByServer"]), reply.json["client_json_payload"]):
        assert len(shown) < MAX_ECHO_LENGTH + 1000
        assert shown.endswith("[pman: the rest is not repeated]")


def test_who_has_no_token_gets_little_of_the_body_back(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    with harness(tmp_path, TokenAuth(path)) as pman:
        response = pman.dispatcher.handle(Request("POST", "/", body=b"\n\xff" * 5_000_000))
        assert isinstance(response, Response)
        assert response.status == 401
        assert len(response.body) < 30 * MAX_REFUSED_ECHO_LENGTH


def test_a_threaded_request_gets_no_result(pman: Harness) -> None:
    reply = pman.post("hello", {"askAbout": "timestamp", "threaded": True})
    assert reply.json["status"] is True
    assert "d_ret" not in reply.json


def test_a_threaded_request_that_fails_says_so(pman: Harness) -> None:
    reply = pman.post("status", {"threaded": True})
    assert (reply.code, reply.json["status"]) == (400, False)


def test_a_failure_of_ours_is_one_500(
    pman: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(type(pman.store), "find", fail)
    reply = pman.post("status", {"key": "jid", "value": "x"})
    assert reply.code == 500
    assert "inside" not in json.dumps(reply.json)
    assert "ZeroDivisionError: inside" in caplog.text


@pytest.mark.parametrize(
    ("action", "meta", "is_quick"),
    [
        ("hello", {"askAbout": "timestamp"}, True),
        ("hello", {"askAbout": "echoBack"}, True),
        ("hello", {"askAbout": "sysinfo"}, False),
        ("status", {"key": "jid", "value": "few"}, True),
        ("status", {"key": "jid", "value": "none"}, True),
        ("status", {"key": "jid", "value": "many"}, False),
        ("status", {"key": "jid", "value": "container"}, True),
        ("status", {"key": "jid", "value": "ended-container"}, False),
        ("status", {"key": "jid", "value": 5}, False),
        ("status", {"key": "auid", "value": "t"}, False),
        ("done", {"key": "jid", "value": "few"}, True),
        ("info", {"key": "jid", "value": "few"}, False),
        ("search", {"key": "jid", "value": "few"}, False),
        ("run", {"cmd": "true", "auid": "t", "jid": "x", "threaded": True}, False),
        ("nosuch", {}, True),
        (5, {}, True),
    ],
)
def test_only_what_touches_little_memory_is_quick(
    pman: Harness, action: Any, meta: dict[str, Any], is_quick: bool
) -> None:
    pman.run("true", jid="few")
    for _ in range(FEW_JOBS + 1):
        pman.run("true", jid="many")
    swarm = {"backend": "swarm", "container": {}}
    ended = make_job("ended-container", state=JobState.COMPLETED, **swarm)
    pman.store.load([make_job("container", **swarm), ended])
    before = pman.store.count
    body = json.dumps({"payload": {"action": action, "meta": meta}}).encode()
    request = Request("POST", "/", body=body)
    response = pman.dispatcher.handle_quick(request)
    assert (response is not None) is is_quick
    if response is not None:
        assert response == pman.dispatcher.handle(request)
    assert pman.store.count == before


def test_what_containers_printed_is_read_once(pman: Harness) -> None:
    job = make_job(
        "ended",
        backend="swarm",
        container={"target": {"image": "local/busybox:1"}},
        state=JobState.COMPLETED,
        workers=[Worker("w1", "complete", 0)],
    )
    pman.store.load([job])
    path = pman.context.output.path(job.name, 0, "stdout")
    path.parent.mkdir(parents=True)
    path.write_text("printed\n")
    body = {"payload": {"action": "status", "meta": {"key": "jid", "value": "ended"}}}
    request = Request("POST", "/", body=json.dumps(body).encode())
    assert pman.dispatcher.handle_quick(request) is None
    slow = pman.dispatcher.handle(request)
    assert isinstance(slow, Response)
    tree = json.loads(slow.body)["d_ret"]["0.container"]["tree"]
    assert tree[job.name]["container"]["logs"] == "printed\n"
    path.unlink()
    assert pman.dispatcher.handle_quick(request) == slow


def test_long_output_is_read_once_for_a_status(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {"state": JobState.COMPLETED, "workers": [Worker("w1", "complete", 0)]}
    job = make_job("long", backend="swarm", container={}, **ended)
    pman.store.load([job])
    reads: list[str] = []

    def read_text(_job_name: str, _part: int, stream: str) -> str:
        reads.append(stream)
        return "x" * 2_000_000  # more than is kept in memory of one job

    monkeypatch.setattr(pman.context.output, "read_text", read_text)
    assert pman.post("status", {"key": "jid", "value": "long"}).json["status"] is True
    assert reads == ["stdout", "stderr"]


@pytest.mark.parametrize("body", ["", "{", "[" * 4000, "[]", '{"payload": {"action": "hello"}}'])
def test_what_is_not_understood_is_refused_at_once(pman: Harness, body: str) -> None:
    response = pman.dispatcher.handle_quick(Request("POST", "/", body=body.encode()))
    assert response is not None
    assert response.status == 400


def test_other_methods_are_not_quick(pman: Harness) -> None:
    body = b'{"payload": {"action": "hello", "meta": {}}}'
    assert pman.dispatcher.handle_quick(Request("GET", "/", body=body)) is None


def test_nothing_is_quick_while_the_token_file_is_to_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    now = 0.0
    auth = TokenAuth(path, clock=lambda: now)
    request = Request(
        "POST",
        "/",
        headers=[("Authorization", "s3cret")],
        body=b'{"payload": {"action": "hello", "meta": {}}}',
    )
    with harness(tmp_path, auth) as pman:
        assert pman.dispatcher.handle_quick(request) is not None
        now = 10.0
        assert pman.dispatcher.handle_quick(request) is None
        pman.dispatcher.handle(request)
        assert pman.dispatcher.handle_quick(request) is not None


def test_bytes_that_are_no_request_get_an_envelope_without_their_secrets(pman: Harness) -> None:
    raw = b"get /x HTTP/1.1\r\nAuthorization: bearer s3cret\r\n\r\n"
    response = pman.dispatcher.reject(MalformedRequest("bad"), raw)
    document = json.loads(response.body)
    assert response.status == 400
    assert (document["RESTverb"], document["path"]) == ("get", "/x")
    assert document["error"] == {"type": "MalformedRequest", "message": "bad"}
    assert b"s3cret" not in response.body


@pytest.mark.parametrize("raw", [b"", b"\n", b"x", b"\x16\x03\x01\x00", b"a b c d e"])
def test_any_bytes_can_be_rejected(pman: Harness, raw: bytes) -> None:
    assert pman.dispatcher.reject(MalformedRequest("bad"), raw).status == 400


# --- tokens and origins -----------------------------------------------------------------------


def test_without_a_token_nothing_is_parsed_and_the_reason_is_given(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    with harness(tmp_path, TokenAuth(path)) as pman:
        refused = pman.send("POST", body=b"{")
        assert (refused.code, refused.error["type"]) == (401, "NotAuthorized")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert "client_json_payload" not in refused.json
        let_in = pman.post("hello", {}, headers=[("Authorization", "bearer s3cret")])
        assert let_in.code == 200


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_only_origins_of_the_list_may_read(tmp_path: Path, method: str) -> None:
    with harness(tmp_path, cors_origins=("https://a.example",)) as pman:
        ours = pman.send(method, "/", headers=[("Origin", "https://a.example")])
        others = pman.send(method, "/", headers=[("Origin", "https://b.example")])
    assert ours.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert others.code == 403
    assert "Access-Control-Allow-Origin" not in others.headers
    assert others.headers["Vary"] == "Origin"


def test_a_page_of_somebody_else_can_run_nothing(pman: Harness) -> None:
    headers = [("Host", "127.0.0.1:5010"), ("Origin", "https://evil.example")]
    reply = pman.post(
        "run",
        {"cmd": "true", "auid": "t", "jid": "j", "threaded": True},
        headers=[*headers, ("Content-Type", "text/plain")],
    )
    assert (reply.code, reply.error["field"]) == (403, "Origin")
    assert pman.store.count == 0


def test_a_preflight_of_a_known_origin_needs_no_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    with harness(tmp_path, TokenAuth(path), cors_origins=("https://a.example",)) as pman:
        known = pman.send("OPTIONS", "/", headers=[("Origin", "https://a.example")])
        unknown = pman.send("OPTIONS", "/", headers=[("Origin", "https://b.example")])
    assert (known.code, unknown.code) == (200, 403)
    assert "POST" in known.headers["Access-Control-Allow-Methods"]


# --- directives -------------------------------------------------------------------------------


def test_a_directive_is_carried_out(pman: Harness) -> None:
    pman.dispatcher.execute({"action": "run", "meta": {"cmd": "true", "auid": "t", "jid": "d"}})
    assert len(pman.store.find("jid", "d")) == 1


@pytest.mark.parametrize("document", [{}, [], {"action": "nosuch", "meta": {}}, {"action": "run"}])
def test_a_directive_that_cannot_be_carried_out_is_refused(pman: Harness, document: Any) -> None:
    from pman.errors import RequestError

    with pytest.raises(RequestError):
        pman.dispatcher.execute(document)


def waiting(pman: Harness, action: str, **meta: Any) -> Deferred:
    body = json.dumps({"payload": {"action": action, "meta": meta}}).encode()
    answered = pman.dispatcher.handle(Request("POST", "/api/v1/cmd", body=body))
    assert isinstance(answered, Deferred)
    return answered


@pytest.mark.parametrize(
    ("action", "meta"),
    [
        ("cancel", {"jid": "a", "wait": True}),
        ("events", {"wait": 300, "jid": "nobody"}),
        ("run", {"cmd": "sleep 9", "auid": "t", "jid": "b"}),
        ("wait", {"jid": "a"}),
    ],
)
def test_who_waits_can_be_given_up(
    pman: Harness, monkeypatch: pytest.MonkeyPatch, action: str, meta: dict[str, Any]
) -> None:
    monkeypatch.setattr(pman.context.queue, "cancel", lambda *_: None)  # it would end at once
    pman.store.submit(make_job("a", state=JobState.RUNNING), timeout_s=10)
    deferred = waiting(pman, action, **meta)
    store, log = pman.store._waiters, pman.context.events._subscribers
    assert store or log
    deferred.give_up()
    assert not store
    assert not log
    assert pman.store.find("jid", meta["jid"]) or action == "events", "jobs go on"


@pytest.mark.parametrize(
    ("action", "meta"),
    [
        ("cancel", {"jid": "a", "wait": True}),
        ("events", {"wait": 300}),
        ("events", {"follow": True}),
        ("wait", {"jid": "a"}),
    ],
)
def test_threaded_leaves_nothing_behind(pman: Harness, action: str, meta: dict[str, Any]) -> None:
    pman.store.submit(make_job("a", state=JobState.RUNNING), timeout_s=10)
    assert pman.post(action, {**meta, "threaded": True}).json["status"] is True
    assert not pman.store._waiters
    assert not pman.context.events._subscribers


def test_threaded_or_given_up_delete_deletes(pman: Harness) -> None:
    for jid in "ab":
        pman.run("sleep 9", jid)
    assert pman.post("delete", {"value": "a", "threaded": True}).json["status"] is True
    deferred = waiting(pman, "delete", value="b")
    deferred.give_up()
    for job in list(pman.store.find("auid", "t")):
        pman.store.observe(Observation(name=job.name, state=JobState.CANCELED))
    done = threading.Event()
    pman.context.errands.submit(done.set)  # behind those that delete
    assert done.wait(DEADLINE_S)
    assert pman.store.find("auid", "t") == []


NEW = ("backends", "cancel", "delete", "events", "list", "logs", "wait")


@pytest.mark.parametrize("action", NEW)
def test_what_names_little_takes_short_bodies(pman: Harness, action: str) -> None:
    reply = pman.post(action, {"pad": "x" * SMALL_BODY_BYTES})
    assert (reply.code, reply.error["field"]) == (413, "body")
    assert reply.json["action"] == action
    assert repr(action) in reply.error["message"]


def test_hello_repeats_what_is_long(pman: Harness) -> None:
    text = "x" * 2 * SMALL_BODY_BYTES
    reply = pman.post("hello", {"askAbout": "echoBack", "echoBack": text})
    assert (reply.code, reply.json["d_ret"]["echoBack"]["msg"]) == (200, text)


@pytest.mark.parametrize("action", [None, *ACTIONS.names()])
def test_who_may_only_read_has_no_long_body_read(
    tmp_path: Path, read_lengths: list[int], action: str | None
) -> None:
    with reader(tmp_path) as pman:
        headers = [("Authorization", "Bearer s3cret")]
        body = {"payload": {"action": action, "meta": {"pad": "x" * SMALL_BODY_BYTES}}}
        for method in ["POST"] if action else ["GET", "PUT", "OPTIONS"]:
            reply = pman.send(method, body=body, headers=headers)
            assert (reply.code, reply.error["field"]) == (413, "body")
        assert read_lengths == []


def test_run_takes_longer_ones(pman: Harness) -> None:
    reply = pman.run("true", stdin="x" * SMALL_BODY_BYTES)
    assert (reply.code, reply.json["action"]) == (200, "run")
    assert reply.json["client_json_len"] > SMALL_BODY_BYTES
    reply = pman.run("true", pad="x" * RUN_BODY_BYTES)
    assert (reply.code, reply.error["field"]) == (413, "body")
    assert f"at most {RUN_BODY_BYTES}" in reply.error["message"]


def reader(folder: Path) -> contextlib.AbstractContextManager[Harness]:
    """Return a pman with a token that may only read."""
    path = folder / "tokens.ini"
    path.write_text("[AUTH TOKENS]\nweb = s3cret\n[AUTH RIGHTS]\n[[web]]\nrole = read\n")
    path.chmod(0o600)
    return harness(folder, TokenAuth(path))


@pytest.fixture
def read_lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the lengths of the bodies that are read as JSON."""
    lengths: list[int] = []

    def note(text: bytes | str) -> Any:
        lengths.append(len(text))
        return loads(text)

    monkeypatch.setattr("pman.dispatcher.loads", note)
    monkeypatch.setattr("pman.rest.reading.loads", note)
    return lengths


@pytest.mark.parametrize(
    ("code", "kind", "document"),
    [
        (413, "RequestTooLarge", '{"payload": {"meta": {"a": [%s]}, "action": "list"}}'),
        (
            413,
            "RequestTooLarge",
            '{"payload": 1, "payload": {"action": 1, "action": "wait", "": [%s]}}',
        ),
        (
            413,
            "RequestTooLarge",
            ' {"p\\u0061yload" : {"\\u0061ction" : "l\\u0069st", "x": [%s]}} ',
        ),
        (400, "UnknownAction", '{"payload": {"action": "frobnicate", "meta": [%s]}}'),
        (400, "RequestError", '{"payload": {"action": 5, "meta": [%s]}}'),
        (400, "RequestError", '{"payload": {"meta": [%s]}}'),
        (400, "RequestError", '{"payload": {"action": [%s]}}'),
        (400, "MalformedRequest", '{"payload": [%s]}'),
        (400, "MalformedRequest", '{"payload": {"action": "run"}, "payload": [%s]}'),
        (400, "MalformedRequest", '{"meta": [%s]}'),
        (400, "MalformedRequest", "[%s]"),
        (400, "MalformedRequest", '{"payload": {"action": "run", "meta": [%s'),
        (400, "MalformedRequest", '{"payload": {"action": "run", "meta": [%s]}} {}'),
    ],
)
def test_what_is_refused_of_a_long_body_is_not_read(
    pman: Harness, read_lengths: list[int], code: int, kind: str, document: str
) -> None:
    items = ", ".join(["[0]"] * (SMALL_BODY_BYTES // 4))
    reply = pman.send("POST", body=(document % items).encode())
    assert (reply.code, reply.error["type"]) == (code, kind)
    assert read_lengths == []
    # The same, short: whoever refuses the long one refuses this one, too, but for its length.
    if code != 413:
        assert pman.send("POST", body=(document % "0").encode()).error["type"] == kind


def test_rest_reads_no_body_for_who_may_not_ask(tmp_path: Path, read_lengths: list[int]) -> None:
    with reader(tmp_path) as pman:
        headers = [("Authorization", "Bearer s3cret"), ("Content-Type", "application/json")]
        reply = pman.send("POST", "/api/v2/jobs", body={"cmd": "true"}, headers=headers)
        assert reply.code == 403
        assert read_lengths == []


def test_a_long_body_is_not_for_the_thread_that_all_share(
    pman: Harness, read_lengths: list[int]
) -> None:
    body = json.dumps({"payload": {"action": "status", "meta": {"pad": "x" * SMALL_BODY_BYTES}}})
    request = Request("POST", "/api/v1/cmd", body=body.encode())
    assert pman.dispatcher.handle_quick(request) is None
    assert read_lengths == []
