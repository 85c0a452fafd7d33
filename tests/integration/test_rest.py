"""REST against a real daemon whose jobs run on the host: what the wire and restarts add."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import DEADLINE_S, DaemonProcess, Reply
from gate import Gate

JSON = {"Content-Type": "application/json"}


def start(daemon: DaemonProcess, headers: dict[str, str] | None = None, **body: Any) -> Reply:
    return daemon.request("POST", "/api/v2/jobs", json.dumps(body), {**JSON, **(headers or {})})


def lines(
    daemon: DaemonProcess, path: str, headers: dict[str, str] | None = None
) -> Iterator[bytes]:
    """Yield the lines of a body as they come; the connection is closed with the iterator."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path, headers=headers or {})
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        while line := reply.readline():
            yield line
    finally:
        connection.close()


def events(found: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream of server-sent events."""
    for line in found:
        if line.startswith(b"data:"):
            event: dict[str, Any] = json.loads(line.removeprefix(b"data:"))
            yield event


def test_a_job_from_beginning_to_end(daemon: DaemonProcess, gate: Gate) -> None:
    made = start(daemon, cmd=f"echo one; {gate.passage}; echo two", jid="a/b")
    assert made.status == 201, made.body
    address = made.header("Location")
    assert address is not None
    assert daemon.request("GET", f"{address}/wait?timeout=0").json()["state"] != "COMPLETED"
    gate.open()
    ended = daemon.request("GET", f"{address}/wait").json()
    assert (ended["state"], ended["exitCode"], len(ended["parts"])) == ("COMPLETED", 0, 3)
    by_jid = daemon.request("GET", "/api/v2/jobs/a%2Fb")
    assert by_jid.json() == ended
    again = daemon.request(
        "GET", "/api/v2/jobs/a%2Fb", headers={"If-None-Match": by_jid.header("ETag") or ""}
    )
    assert (again.status, again.body, again.header("Content-Length")) == (304, b"", None)
    assert daemon.request("DELETE", address).status == 204
    assert daemon.request("GET", address).status == 404


def test_head_has_the_headers_of_get_and_no_body(daemon: DaemonProcess) -> None:
    with daemon.connect() as connection:
        head = b"HEAD /api/v2/backends HTTP/1.1\r\nHost: x\r\n\r\n"
        get = b"GET /api/v2/backends HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.send(head + get)
        first = connection.read_reply(is_head=True)
        second = connection.read_reply()
    assert first.header("ETag") == second.header("ETag")
    assert int(first.header("Content-Length") or 0) == len(second.body) > 0


def test_head_of_a_stream_tells_no_length(daemon: DaemonProcess) -> None:
    with daemon.connect() as connection:
        head = b"HEAD /api/v2/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.send(head + b"GET /api/v2/backends HTTP/1.1\r\nHost: x\r\n\r\n")
        first = connection.read_reply(is_head=True)
        second = connection.read_reply()
    assert (first.status, second.status) == (200, 200)
    assert first.header("Content-Length") is first.header("Transfer-Encoding") is None


def test_gzip_is_gzip(daemon: DaemonProcess) -> None:
    path = "/api/v2/openapi.json"
    pressed = daemon.request("GET", path, headers={"Accept-Encoding": "gzip, br"})
    assert pressed.header("Content-Encoding") == "gzip"
    assert gzip.decompress(pressed.body) == daemon.request("GET", path).body


def test_a_key_outlives_the_daemon(daemon: DaemonProcess) -> None:
    key = {"Idempotency-Key": '"k"'}
    first = start(daemon, key, cmd="true")
    daemon.kill()
    daemon.start()
    again = start(daemon, key, cmd="true")
    assert (first.status, again.status) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert start(daemon, key, cmd="false").status == 422


def test_the_output_of_a_job_is_followed(daemon: DaemonProcess, gate: Gate) -> None:
    start(daemon, cmd=f"echo one; {gate.passage}; echo two", compound=False, jid="a")
    text = lines(daemon, "/api/v2/jobs/a/logs?follow=true", {"Accept": "text/plain"})
    assert next(text) == b"one\n"
    gate.open()
    assert list(text) == [b"two\n"]
    records = lines(daemon, "/api/v2/jobs/a/logs", {"Accept": "application/x-ndjson"})
    assert "".join(json.loads(line).get("text", "") for line in records) == "one\ntwo\n"


def test_events_are_gone_on_with_where_a_client_was(daemon: DaemonProcess, gate: Gate) -> None:
    start(daemon, cmd=gate.passage, jid="a")
    accept = {"Accept": "text/event-stream"}
    stream = lines(daemon, "/api/v2/jobs/a/events?since=0", accept)
    first = next(events(stream))
    stream.close()  # type: ignore[attr-defined]
    gate.open()
    rest = lines(daemon, "/api/v2/jobs/a/events", {**accept, "Last-Event-ID": str(first["seq"])})
    seen = [first]
    for event in events(rest):
        seen.append(event)
        if event["state"] == "COMPLETED":
            break
    rest.close()  # type: ignore[attr-defined]
    answer = daemon.request("GET", "/api/v2/jobs/a/events?since=0").json()
    assert [event["seq"] for event in seen] == [event["seq"] for event in answer["events"]]


@pytest.mark.parametrize(
    "raw",
    [
        b"BREW /api/v2/jobs HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/v2/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /api/v2/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_what_the_front_refuses_is_a_problem(daemon: DaemonProcess, raw: bytes) -> None:
    with daemon.connect() as connection:
        connection.send(raw)
        reply = connection.read_reply()
    assert reply.header("Content-Type") == "application/problem+json"
    assert reply.json()["status"] == reply.status >= 400


def test_the_address_may_be_absolute(daemon: DaemonProcess) -> None:
    reply = daemon.request("GET", f"http://127.0.0.1:{daemon.port}/api/v2/backends")
    assert reply.json()["backends"][0]["name"] == "host"


def test_a_token_that_may_look_may_not_run(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(name="rights", is_started=False)
    daemon.folder.mkdir(parents=True, exist_ok=True)
    path = daemon.folder / "tokens.cfg"
    path.write_text(
        "[AUTH TOKENS]\nall = a\nlooker = l\nbob = b\n"
        "[AUTH RIGHTS]\n[[looker]]\nrole = read\n[[bob]]\nrole = run\nauid = bob\n"
    )
    path.chmod(0o600)
    daemon.command += ["--enableTokenAuth", "--tokenPath", str(path)]
    daemon.start()

    def bearer(token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    made = start(daemon, bearer("a"), cmd="true", auid="alice", jid="a")
    name = made.json()["id"]
    assert daemon.request("GET", f"/api/v2/jobs/{name}", headers=bearer("l")).status == 200
    assert start(daemon, bearer("l"), cmd="true").status == 403
    assert daemon.request("DELETE", f"/api/v2/jobs/{name}", headers=bearer("l")).status == 403
    for path_of_job in (f"/api/v2/jobs/{name}", "/api/v2/jobs/a", f"/api/v2/jobs/{name}/wait"):
        assert daemon.request("GET", path_of_job, headers=bearer("b")).status == 404
    assert daemon.request("DELETE", "/api/v2/jobs/a", headers=bearer("b")).status == 404
    own = start(daemon, bearer("b"), cmd="true")
    assert own.json()["auid"] == "bob"
    listed = daemon.request("GET", "/api/v2/jobs", headers=bearer("b")).json()["jobs"]
    assert [job["id"] for job in listed] == [own.json()["id"]]
