"""The clients people use, as they are: pfurl, HTTPie and curl against a real daemon."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden_replay as golden
import pytest
from daemon_factory import NewDaemon
from daemon_process import DEADLINE_S, DaemonProcess, wait_until
from probes import output_of

TOKEN = "password"

#: Asks one thing; returns the JSON of the reply.
Ask = Callable[[DaemonProcess, str, dict[str, Any]], dict[str, Any]]


def program(name: str) -> str:
    """Return the path of a program beside our Python, else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def call(*command: str) -> str:
    """Run a client; return what it prints."""
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr or ended.stdout
    return ended.stdout


def pfurl(daemon: DaemonProcess, message: str, *flags: str, verb: str = "POST") -> str:
    path = "/api/v1/cmd" if verb == "POST" else "/api/v1/"
    where = f"127.0.0.1:{daemon.port}{path}"
    wrapper = ("--jsonwrapper", "payload") if verb == "POST" else ()
    return call(
        program("pfurl"), "--verb", verb, "--http", where, *wrapper, "--quiet", *flags,
        "--msg", message,
    )  # fmt: skip


def ask_pfurl(daemon: DaemonProcess, action: str, meta: dict[str, Any]) -> dict[str, Any]:
    message = json.dumps({"action": action, "meta": meta})
    reply: dict[str, Any] = json.loads(pfurl(daemon, message, "--raw"))
    return reply


def ask_httpie(daemon: DaemonProcess, action: str, meta: dict[str, Any]) -> dict[str, Any]:
    payload = json.dumps({"action": action, "meta": meta})
    url = f"http://127.0.0.1:{daemon.port}/api/v1/cmd"
    text = call(program("http"), "--ignore-stdin", "--body", url, f"payload:={payload}")
    reply: dict[str, Any] = json.loads(text)
    return reply


def ask_httpie_as_in_the_readme_of_2_2(
    daemon: DaemonProcess, action: str, meta: dict[str, Any]
) -> dict[str, Any]:
    payload = json.dumps({"action": action, "meta": meta}, indent=4)
    text = call(program("http"), "--ignore-stdin", f":{daemon.port}", f"payload:={payload}")
    reply: dict[str, Any] = json.loads(text)
    return reply


def ask_curl(daemon: DaemonProcess, action: str, meta: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({"payload": {"action": action, "meta": meta}})
    url = f"http://127.0.0.1:{daemon.port}/api/v1/cmd"
    reply: dict[str, Any] = json.loads(call(program("curl"), "-sS", url, "-d", body))
    return reply


@pytest.mark.slow
@pytest.mark.parametrize(
    "ask", [ask_pfurl, ask_httpie, ask_httpie_as_in_the_readme_of_2_2, ask_curl]
)
def test_client_says_hello_and_runs_a_job(shared_daemon: DaemonProcess, ask: Ask) -> None:
    hello = ask(shared_daemon, "hello", {"askAbout": "echoBack", "echoBack": "Grüezi"})
    assert hello["status"] is True
    assert hello["d_ret"]["echoBack"]["msg"] == "Grüezi"
    jid = ask.__name__
    job = {"cmd": "echo 'one; two'; exit 5", "auid": "t", "jid": jid, "threaded": True}
    assert ask(shared_daemon, "run", job)["status"] is True

    def words() -> Any:
        reply = ask(shared_daemon, "status", {"key": "jid", "value": jid})
        assert reply["status"] is True
        found = reply["d_ret"]["l_status"]
        return found if all("finished" in word for word in found) else None

    assert wait_until(words, "the job has ended") == ["finishedWithError"]
    assert output_of(shared_daemon, jid) == "one; two\n"


def test_curl_sends_a_large_request(shared_daemon: DaemonProcess, tmp_path: Path) -> None:
    """Beyond 1 MB curl asks with `Expect: 100-continue` first."""
    text = "a" * 2_000_000
    meta = {"askAbout": "echoBack", "echoBack": text}
    body = tmp_path / "body"
    body.write_text(json.dumps({"payload": {"action": "hello", "meta": meta}}))
    url = f"http://127.0.0.1:{shared_daemon.port}/"
    reply = json.loads(call(program("curl"), "-sS", url, "--data-binary", f"@{body}"))
    assert reply["d_ret"]["echoBack"]["msg"] == text


# --- output shapes as recorded ----------------------------------------------------------------


def message_of(exchange: dict[str, Any]) -> str:
    found = re.search(r"--msg '(.*)'$", exchange["command"])
    return found[1] if found else '{"action":"hello","meta":{"askAbout":"timestamp"}}'


def same_shape(ours: Any, theirs: Any) -> None:
    """Compare what was printed; agent and port differ in the lines of the request."""
    ours, theirs = (normal(document) for document in (ours, theirs))
    golden.compare(ours, theirs)


def normal(document: Any) -> Any:
    text = json.dumps(document)
    text = re.sub(r'"User-Agent: [^"]*"', '"User-Agent"', text)
    text = re.sub(r"authorization: [^\"]*", "Authorization", text, flags=re.IGNORECASE)
    return json.loads(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:5010", text))


@pytest.fixture(scope="module")
def empty_daemon(new_shared_daemon: NewDaemon) -> DaemonProcess:
    """A daemon without jobs, as the recordings were made with."""
    return new_shared_daemon(name="empty")


@pytest.mark.parametrize("name", ["client-001-pfurl-raw", "client-002-pfurl-not-raw"])
def test_pfurl_prints_what_was_recorded(empty_daemon: DaemonProcess, name: str) -> None:
    exchange = golden.load(name)
    flags = ["--raw"] if "--raw" in exchange["command"] else []
    printed = pfurl(empty_daemon, message_of(exchange), *flags)
    same_shape(json.loads(printed), json.loads(exchange["stdout"]))
    assert printed == json.dumps(json.loads(printed), indent=4, sort_keys=True) + "\n"


@pytest.mark.slow
def test_pfurl_sends_its_token(new_daemon: NewDaemon, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    daemon = new_daemon("--enableTokenAuth", "--tokenPath", str(path))
    exchange = golden.load("client-003-pfurl-token")
    message = message_of(exchange)
    printed = pfurl(daemon, message, "--raw", "--authToken", TOKEN)
    same_shape(json.loads(printed), json.loads(exchange["stdout"]))
    assert TOKEN not in printed
    refused = json.loads(pfurl(daemon, message, "--raw", "--authToken", "wrong"))
    assert refused["status"] is False
    assert refused["error"]["type"] == "NotAuthorized"


def test_pfurl_gets(empty_daemon: DaemonProcess) -> None:
    exchange = golden.load("client-004-pfurl-get")
    printed = pfurl(empty_daemon, "", "--raw", verb="GET")
    same_shape(ast.literal_eval(printed), ast.literal_eval(exchange["stdout"]))


def test_curl_prints_what_was_recorded(empty_daemon: DaemonProcess) -> None:
    exchange = golden.load("client-005-curl")
    url = f"http://127.0.0.1:{empty_daemon.port}/api/v1/"
    ended = subprocess.run(
        [program("curl"), "-sS", "-i", url], capture_output=True, timeout=DEADLINE_S, check=True
    )
    head, _, body = ended.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: ")
    same_shape(json.loads(body), json.loads(exchange["stdout"].split("\r\n\r\n", 1)[1]))


def test_httpie_prints_what_was_recorded(empty_daemon: DaemonProcess) -> None:
    exchange = golden.load("client-006-httpie")
    ours = ask_httpie(empty_daemon, "hello", {"askAbout": "timestamp"})
    theirs = json.loads(exchange["stdout_when_lucky"].split("\r\n\r\n", 1)[1])
    # HTTPie spells the JSON anew, so only the lengths depend on blanks that we put elsewhere.
    same_shape(ours, theirs)
