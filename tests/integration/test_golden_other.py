"""The recordings of 2.2 apart from host mode: crashes, framing, tokens, modes, trees on disk."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import golden_replay as golden
import pytest
import zmq
from daemon_factory import NewDaemon
from daemon_process import DEADLINE_S, DaemonProcess, Reply, wait_until
from probes import assert_refused, job_names, open_descriptors, output_of

DEADLINE_MS = int(DEADLINE_S * 1000)

# --- requests that 2.2 did not answer ---------------------------------------------------------

#: Recording -> HTTP status code and `error.field`.
#: Source: ARCHITECTURE, "Replies" and the rows that overrule WIRE.md.
REFUSALS: dict[str, tuple[int, str | None]] = {
    "crash-001-malformed-json": (400, "body"),
    "crash-002-unknown-action": (400, "action"),
    "crash-003-unknown-action-threaded": (400, "action"),
    "crash-004-missing-meta": (400, "meta"),
    "crash-005-missing-payload": (400, "payload"),
    "crash-006-missing-action": (400, "action"),
    "crash-007-meta-null": (400, "meta"),
    "crash-008-json-array": (400, "payload"),
    "crash-010-search-without-key": (400, "key"),
    "crash-011-search-without-value": (400, "value"),
    "crash-012-search-job-without-field": (400, "field"),
    "crash-013-search-path-without-slash": (400, "path"),
    "crash-014-status-without-key": (400, "key"),
    "crash-015-get-nonexistent-job": (404, None),
    "crash-016-get-cmd-url": (404, None),
    "crash-018-get-action-nonexistent-job": (404, None),
    "crash-019-get-action-no-leading-slash": (400, "path"),
    "crash-020-get-action-no-path": (400, "path"),
    "crash-021-DBctl-without-do": (400, "do"),
    "crash-022-DBctl-save-pickle": (400, "fileio"),
    "crash-024-PUT-without-context": (400, "context"),
    "crash-025-PUT-without-meta": (400, "meta"),
    "crash-026-run-sync-without-cmd": (400, "cmd"),
    "crash-027-echoBack-without-msg": (400, "echoBack"),
    "crash-028-fileiosetup": (501, "action"),
    "crash-029-garbage-request-line": (400, None),
    "crash-030-single-byte": (408, None),  # the rest never comes
    "crash-031-invalid-utf8": (400, "body"),
    "crash-032-tls-client-hello": (400, None),
}

#: There is nothing wrong with these; recording -> where in the reply to look, and for what.
RIGHT = {
    "crash-009-pretty-printed-json": ("d_ret", lambda found: found["name"] == "pman"),
    "crash-017-get-double-slash-inside": ("GET", lambda found: _leaf(found) is False),
    "crash-023-DBctl-save-three-component-path": ("d_ret", lambda found: len(found) == 1),
}


@pytest.fixture(scope="module")
def survivor(new_shared_daemon: NewDaemon) -> DaemonProcess:
    """A daemon with one listener to lose, and one job that the requests may ask for."""
    daemon = new_shared_daemon("--listeners", "1", "--headerTimeout", "1", name="survivor")
    daemon.run("true", "job-1")
    daemon.wait_finished("job-1")
    return daemon


def _leaf(found: Any) -> Any:
    while isinstance(found, dict):
        (found,) = found.values()
    return found


def as_sent(exchange: dict[str, Any], job: str = "", folder: Path = Path("/tmp")) -> bytes:
    """Return the recorded request, with a job of ours and paths of ours."""
    if exchange.get("raw_request") is not None:
        raw: str = exchange["raw_request"]
        return raw.encode("latin-1")
    request = exchange["request"]
    request["path"] = golden.JOB_NAME.sub(job, request["path"])
    body = request["body"]
    return golden.request_bytes(exchange, body and body.replace('"/tmp/', f'"{folder}/'))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if REFUSALS.get(name, (0,))[0] == 408 else name
        for name in golden.names("crash")
    ],
)
def test_what_broke_2_2_is_answered(survivor: DaemonProcess, tmp_path: Path, name: str) -> None:
    (job,) = job_names(survivor)
    (tmp_path / "pman-x").mkdir()
    with survivor.connect() as connection:
        connection.send(as_sent(golden.load(name), job, tmp_path))
        reply = connection.read_reply()
    assert [n for n, _ in reply.headers[:2]] == ["Content-Length", "Content-Type"]
    assert reply.header("content-type") == "application/html"
    if name in RIGHT:
        assert reply.status == 200, reply.body
        key, is_right = RIGHT[name]
        assert reply.json()["status"] is True
        assert is_right(reply.json()[key]), reply.json()[key]
    else:
        code, field = REFUSALS[name]
        assert_refused(reply, code, None, field)
    assert survivor.is_alive()
    assert job_names(survivor) == [job]


def test_every_crash_has_its_answer() -> None:
    assert {*REFUSALS, *RIGHT} == set(golden.names("crash"))


# --- framing ----------------------------------------------------------------------------------

#: Recordings that hold several requests -> how many replies.
REPLIES = {"transport-004-two-pipelined-requests": 2, "transport-014-keep-alive": 3}

#: What 2.2 did answer properly, and where the design has us differ from it.
ALIKE: dict[str, frozenset[str]] = {
    # "Replies": the lines of the request are echoed as they were understood, ended by CRLF.
    "transport-007-lf-only-lines": frozenset({"$.receivedByServer", "$.RESTheader"}),
    "transport-008-http10": frozenset(),
    "transport-011-request-of-8192-bytes": frozenset(),
    "transport-012-connection-close-header": frozenset(),
    "transport-014-keep-alive": frozenset(),
}

#: A request line without a version is HTTP/0.9, which has no body.
#: Source: RFC 9112, section 3, HTTP-version is part of every request line.
NO_VERSION = "transport-009-no-headers-at-all"

HALF_CLOSED = "transport-015-client-half-closes"

ANSWERED = [name for name in golden.names("transport") if name not in (NO_VERSION, HALF_CLOSED)]


def segments_of(exchange: dict[str, Any], raw: bytes) -> list[bytes]:
    starts = exchange.get("segments", [0])
    return [raw[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def exchange_replies(daemon: DaemonProcess, name: str) -> list[Reply]:
    exchange = golden.load(name)
    raw = as_sent(exchange)
    replies = []
    with daemon.connect() as connection:
        if name == "transport-014-keep-alive":
            for _ in range(3):
                connection.send(raw)
                replies.append(connection.read_reply())
            return replies
        for n, segment in enumerate(segments_of(exchange, raw)):
            if n:
                assert daemon.is_alive()  # by now the former segment has been looked at
            connection.send(segment)
        replies = [connection.read_reply() for _ in range(REPLIES.get(name, 1))]
        if name == "transport-012-connection-close-header":
            assert connection.is_closed_by_peer()
    return replies


@pytest.mark.parametrize("name", ANSWERED)
def test_framing(survivor: DaemonProcess, name: str) -> None:
    replies = exchange_replies(survivor, name)
    for reply in replies:
        assert reply.status == 200, reply.body
        assert reply.json()["status"] is True
        assert reply.json()["d_ret"]["name"] == "pman"
    if name in ALIKE:
        recorded = golden.load(name)["raw_response"]
        for text in recorded if isinstance(recorded, list) else [recorded]:
            theirs = json.loads(text.split("\r\n\r\n", 1)[1])
            golden.compare(replies[0].json(), theirs, ignore=ALIKE[name])
    assert survivor.is_alive()


def test_request_without_version_is_refused(survivor: DaemonProcess) -> None:
    (reply,) = exchange_replies(survivor, NO_VERSION)
    assert_refused(reply, 400)
    assert survivor.is_alive()


@pytest.mark.slow
def test_half_closed_request_is_carried_out(new_daemon: NewDaemon, tmp_path: Path) -> None:
    """A client that half-closes gets no reply, and what it asked for is done.

    libzmq (4.3.5) closes a raw connection as soon as it reads the end of the stream, so there is
    nothing left to send a reply to. The request itself has arrived whole.
    """
    daemon = new_daemon("--listeners", "1")
    daemon.run("true", "first")  # by its end all that the daemon opens for itself is open
    daemon.wait_finished("first")
    descriptors = open_descriptors(daemon.pid)
    for n in range(10):
        run = {"cmd": f"touch {tmp_path}/done-{n}", "auid": "t", "jid": f"h{n}"}
        body = json.dumps({"payload": {"action": "run", "meta": run}})
        with daemon.connect() as connection:
            connection.send(golden.request_bytes(golden.load(HALF_CLOSED), body))
            connection.socket.shutdown(1)
            wait_until((tmp_path / f"done-{n}").exists, f"job {n} is carried out")
    assert daemon.is_alive()
    wait_until(lambda: open_descriptors(daemon.pid) <= descriptors, "no descriptor is left over")


# --- tokens -----------------------------------------------------------------------------------

#: Recordings whose request is refused, and one each way where the design overrules 2.2:
#: header names have no case (006 is accepted), only `Authorization` counts (008 is refused).
REFUSED = {
    "token-001-none",
    "token-002-wrong",
    "token-007-token-in-body",
    "token-008-token-smuggled-in-other-header",
    "token-009-get-none",
    "token-011-malformed-json-unauthorised",
    "token-012-empty-authorization",
    "token-013-quit-unauthorised",
}
SECRET_LINE = re.compile(r"^(authorization: ).*\r$", re.IGNORECASE)


@pytest.fixture(scope="module")
def guarded(
    new_shared_daemon: NewDaemon, tmp_path_factory: pytest.TempPathFactory
) -> DaemonProcess:
    path = tmp_path_factory.mktemp("tokens") / "pman.cfg"
    path.write_text("[AUTH TOKENS]\nexample = password\nanother = other-token\n")
    path.chmod(0o600)
    return new_shared_daemon("--enableTokenAuth", "--tokenPath", str(path), name="guarded")


def check_token_reply(daemon: DaemonProcess, name: str) -> None:
    exchange = golden.load(name)
    with daemon.connect() as connection:
        connection.send(as_sent(exchange))
        reply = connection.read_reply()
    theirs = golden.recorded_body(exchange)
    theirs["receivedByServer"] = [
        SECRET_LINE.sub(r"\1***\r", line) for line in theirs["receivedByServer"]
    ]
    assert reply.status == (401 if name in REFUSED else 200), reply.body
    ignore = {"$.error"}
    if name in REFUSED:
        assert_refused(reply, 401, "NotAuthorized")
        assert reply.header("WWW-Authenticate") == "Bearer"
    if name.startswith("token-006"):  # 2.2 refused it: nothing to compare but the request
        assert reply.json()["status"] is True
        assert reply.json()["receivedByServer"] == theirs["receivedByServer"]
    elif name.startswith("token-008"):  # 2.2 accepted it
        assert "d_ret" not in reply.json()
        assert "client_json_payload" not in reply.json()
    else:
        golden.compare(reply.json(), theirs, ignore=frozenset(ignore))


@pytest.mark.parametrize(
    "name", [name for name in golden.names("token") if not name.startswith("token-014")]
)
def test_token(guarded: DaemonProcess, name: str) -> None:
    check_token_reply(guarded, name)
    headers = {"Authorization": "bearer password"}
    assert guarded.post("hello", headers, askAbout="timestamp").json()["status"] is True


@pytest.mark.slow
def test_token_of_a_plain_file(new_daemon: NewDaemon, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("plainsecret\n")
    path.chmod(0o600)
    daemon = new_daemon("--enableTokenAuth", "--tokenPath", str(path))
    check_token_reply(daemon, "token-014-plain-secret-file")


# --- modes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_http(new_shared_daemon: NewDaemon) -> DaemonProcess:
    return new_shared_daemon(name="without-http", http=False)


@pytest.mark.parametrize(
    "name", ["mode-001-without-http-flag-hello", "mode-002-without-http-flag-get-root"]
)
def test_content_type_without_http_flag(without_http: DaemonProcess, name: str) -> None:
    exchange = golden.load(name)
    with without_http.connect() as connection:
        connection.send(as_sent(exchange))
        reply = connection.read_reply()
    assert reply.header("content-type") == "application/json"
    golden.compare(reply.json(), golden.recorded_body(exchange))


@pytest.fixture(scope="module")
def zmtp(new_shared_daemon: NewDaemon) -> DaemonProcess:
    return new_shared_daemon("--rawmode", "0", name="zmtp")


def test_rawmode_0_greets_as_zmtp(zmtp: DaemonProcess) -> None:
    exchange = golden.load("mode-003-rawmode-0-hello")
    with zmtp.connect() as connection:
        connection.send(as_sent(exchange))
        greeting = bytes.fromhex(exchange["raw_response_hex"])
        assert connection._exactly(len(greeting)) == greeting


class ZmqClient:
    """A REQ or DEALER peer that asks one thing at a time."""

    def __init__(self, context: zmq.Context[Any], kind: int, port: int) -> None:
        self.socket = context.socket(kind)
        self.socket.linger = 0
        self.socket.rcvtimeo = self.socket.sndtimeo = DEADLINE_MS
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self._is_dealer = kind == zmq.DEALER

    def ask(self, document: Any) -> dict[str, Any]:
        """Send one message, and return the JSON of the answer."""
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        # A REQ socket puts the empty delimiter there by itself. Source: RFC 28/REQREP.
        self.socket.send_multipart([b"", text] if self._is_dealer else [text])
        *delimiter, answer = self.socket.recv_multipart()
        assert delimiter == ([b""] if self._is_dealer else [])
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def act(self, action: str, **meta: Any) -> dict[str, Any]:
        return self.ask({"payload": {"action": action, "meta": meta}})


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_rawmode_0_serves_zeromq_peers(zmtp: DaemonProcess, kind: int) -> None:
    context: zmq.Context[Any] = zmq.Context()
    try:
        client = ZmqClient(context, kind, zmtp.port)
        hello = client.act("hello", askAbout="timestamp")
        assert hello["status"] is True
        assert hello["d_ret"]["name"] == "pman"
        jid = f"zmq-{kind}"
        assert client.act("run", cmd="exit 3", auid="t", jid=jid, threaded=True)["status"] is True

        def words() -> Any:
            found = client.act("status", key="jid", value=jid)["d_ret"]["l_status"]
            return found if "finished" in found[0] else None

        assert wait_until(words, "the job has ended") == ["finishedWithError"]
        refused = client.ask(b"{")
        assert refused["status"] is False
        assert refused["error"]["type"] == "MalformedRequest"
        assert client.act("hello", askAbout="timestamp")["status"] is True
    finally:
        context.destroy(linger=0)


# --- trees that 2.2 left on disk --------------------------------------------------------------


@pytest.fixture(scope="module")
def successor(new_shared_daemon: NewDaemon) -> DaemonProcess:
    """A daemon on a DBpath as 2.2 left it while a job ran."""
    daemon = new_shared_daemon(name="successor", is_started=False)
    for name in ("db-001-layout-finished", "db-002-layout-running"):
        for relative, text in golden.load(name)["tree"].items():
            path = daemon.db_path / relative
            if text is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return daemon.start()


def test_tree_of_2_2_is_imported(successor: DaemonProcess) -> None:
    trees = [golden.load(name)["tree"] for name in golden.names("db")[:2]]
    assert job_names(successor) == sorted({path.split("/")[0] for tree in trees for path in tree})
    exchange = golden.load("db-004-start-info-after-reload")
    with successor.connect() as connection:
        connection.send(as_sent(exchange, golden.JOB_NAME.findall(exchange["request"]["path"])[0]))
        reply = connection.read_reply()
    golden.compare(reply.json(), golden.recorded_body(exchange))
    assert output_of(successor, "db-1") == "hello\n"
    assert successor.words("db-1") == ["finishedSuccessfully"]
    assert successor.words("db-2") == ["finishedWithError"]  # every part counts: echo a;false


def test_leaves_of_a_tree_of_2_2_stay_as_they_were(successor: DaemonProcess) -> None:
    for relative, text in golden.load("db-001-layout-finished")["tree"].items():
        found = successor.request("GET", f"/api/v1/{relative}").json()["GET"]
        for name in relative.split("/"):
            found = found[name]
        golden.compare(found, json.loads(text), path=relative, ignore=frozenset())


def test_job_that_2_2_left_running_has_ended(successor: DaemonProcess) -> None:
    """DEFECTS 61 overrules the recording: the word was `started`, for ever."""
    exchange = golden.load("db-003-status-of-orphan-after-restart")
    with successor.connect() as connection:
        connection.send(as_sent(exchange))
        reply = connection.read_reply()
    ours = reply.json()
    assert ours["d_ret"]["l_status"] == ["finishedWithError"]
    ignore = frozenset({"$.d_ret.l_status", "$.d_ret.0.end", "$.d_ret.0.start"})
    golden.compare(ours, golden.recorded_body(exchange), ignore=ignore)
