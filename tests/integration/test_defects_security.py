"""Defects 23 to 31 of pman 2.2 that concern the host: one test a defect, the number in the name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until
from probes import assert_refused, drop_directive, job_names

TOKEN = "T0ken-that-must-not-leak"


@pytest.fixture(scope="module")
def guarded(
    new_shared_daemon: NewDaemon, tmp_path_factory: pytest.TempPathFactory
) -> DaemonProcess:
    """A daemon that wants a token and logs as much as it can."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    flags = ("--enableTokenAuth", "--tokenPath", str(path), "--verbosity", "3")
    return new_shared_daemon(*flags, name="guarded")


def python_that_makes(path: Path) -> str:
    """Return an expression without slashes and quotes that makes a file."""
    text = "+".join(f"chr({ord(character)})" for character in str(path))
    return f"open({text},chr(119))"


def test_defect_23_action_is_not_evaluated(shared_daemon: DaemonProcess, tmp_path: Path) -> None:
    mark = tmp_path / "rce"
    trap = python_that_makes(mark)
    for action in (
        f"hello_process(request=d_request) if {trap} else self.t_hello",
        f"hello_process(request=d_request) if {trap} else self.t_hello".replace("chr(119)", '"w"'),
        trap,
        "__class__",
    ):
        assert_refused(shared_daemon.post(action, askAbout="timestamp"), 400, "UnknownAction")
    assert not mark.exists()
    assert shared_daemon.is_alive()


def test_defect_24_path_is_not_evaluated(shared_daemon: DaemonProcess, tmp_path: Path) -> None:
    shared_daemon.run("true", "rce2")
    shared_daemon.wait_finished("rce2")
    mark = tmp_path / "rce2"
    for component in (f"x']if({python_that_makes(mark)})else['x", python_that_makes(mark)):
        for leaf in ("endInfo", "jid", "record"):
            reply = shared_daemon.request("GET", f"/api/v1/_0/{leaf}/{component}")
            found = reply.json()["GET"]
            while isinstance(found, dict):
                (found,) = found.values()
            assert found is False
            path = f"/_0/{leaf}/{component}"
            assert shared_daemon.post("get", path=path).status in (200, 404)
    assert not mark.exists()
    assert shared_daemon.is_alive()


def test_defect_27_foreign_folder_is_not_removed(
    shared_daemon: DaemonProcess, tmp_path: Path
) -> None:
    foreign = tmp_path / "v"
    (foreign / "sub").mkdir(parents=True)
    (foreign / "x").write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(foreign)
    file = tmp_path / "file"
    file.write_text("precious")
    for path in (foreign, link, file, Path("/etc")):
        for do in ("save", "clear"):
            reply = shared_daemon.post("DBctl", do=do, dbpath=str(path))
            assert 400 <= reply.status < 500, reply.body
            assert_refused(reply, reply.status, None, "dbpath")
        put = {"context": "db", "operation": "save", "dbpath": str(path)}
        document = {"payload": {"action": "run", "meta": put}}
        reply = shared_daemon.request("PUT", "/api/v1/cmd", json.dumps(document))
        assert 400 <= reply.status < 500, reply.body
    assert sorted(p.name for p in foreign.iterdir()) == ["sub", "x"]
    assert (foreign / "x").read_text() == file.read_text() == "precious"
    ours = str(tmp_path / "ours")
    for _ in range(2):  # new, then written by us
        assert shared_daemon.post("DBctl", do="save", dbpath=ours).status == 200


def test_defect_27_relative_dbpath_is_refused(shared_daemon: DaemonProcess) -> None:
    assert_refused(shared_daemon.post("DBctl", do="save", dbpath="v"), 400, None, "dbpath")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 401),
        ({"Authorization": "bearer wrong"}, 401),
        ({"Authorization": ""}, 401),
        ({"X-My-Authorization-Thing": f"x {TOKEN}"}, 401),
        ({"X-Other": f"Authorization: bearer {TOKEN}"}, 401),
        ({"Authorization": f"bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer {TOKEN}"}, 200),
        ({"AUTHORIZATION": TOKEN}, 200),
    ],
)
def test_defect_28_refusal_is_401_and_header_names_have_no_case(
    guarded: DaemonProcess, headers: dict[str, str], code: int
) -> None:
    reply = guarded.post("hello", headers, askAbout="timestamp")
    if code == 200:
        assert reply.status == 200
        assert reply.json()["status"] is True
        return
    assert_refused(reply, 401, "NotAuthorized")
    assert reply.header("WWW-Authenticate") == "Bearer"
    assert "d_ret" not in reply.json()
    assert "client_json_payload" not in reply.json()


def test_defect_29_secrets_are_neither_echoed_nor_logged(guarded: DaemonProcess) -> None:
    other = "Wrong-t0ken"
    cookie = "session=C00kie-value"
    good = {"Authorization": f"Bearer {TOKEN}", "Cookie": cookie}
    bad = {"Authorization": f"Bearer {other}", "Cookie": cookie}
    replies = [
        guarded.post("hello", good, askAbout="timestamp"),
        guarded.post("hello", bad, askAbout="timestamp"),
        guarded.post("nosuch", good),
        guarded.request("GET", "/api/v1/", headers=good),
        guarded.request("GET", "/api/v1/nosuch", headers=bad),
        guarded.request("DELETE", "/", headers=good),
        guarded.request("POST", "/", "{", good),
    ]
    for broken in (b"Broken line\r\n", b"Content-Length: x\r\n", b"X: " + b"a" * 100_000 + b"\r\n"):
        raw = f"POST / HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nCookie: {cookie}\r\n".encode()
        with guarded.connect() as connection:
            connection.send(raw + broken + b"\r\n")
            replies.append(connection.read_reply())
    echoed = replies[0].json()["receivedByServer"]
    assert "Cookie: ***\r" in echoed
    assert any(line.startswith("Authorization: ") and "***" in line for line in echoed)
    everything = guarded.log_text() + "".join(reply.raw.decode() for reply in replies)
    for secret in (TOKEN, other, "C00kie-value"):
        assert secret not in everything


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["others may write it", "it is a link", "it is somebody else's"])
def test_defect_29_directive_of_others_is_not_carried_out(
    new_daemon: NewDaemon, tmp_path: Path, fault: str
) -> None:
    daemon = new_daemon()
    mark = tmp_path / "rce"
    run = {"cmd": f"touch {mark}", "auid": "t", "jid": "foreign"}
    text = json.dumps({"action": "run", "meta": run})
    directive = daemon.db_path / "d_msg.json"
    fresh = tmp_path / "fresh"
    fresh.write_text(text)
    fresh.chmod(0o666 if "write" in fault else 0o600)
    if "link" in fault:
        directive.symlink_to(fresh)
    else:
        if "else" in fault:
            if os.geteuid() != 0:
                pytest.skip("only root can give a file away")
            os.chown(fresh, 65534, 65534)
        fresh.rename(directive)
    daemon.wait_for_log(r"d_msg\.json")
    directive.unlink(missing_ok=True)
    run["jid"] = run["cmd"] = "true"
    drop_directive(daemon, json.dumps({"action": "run", "meta": run}))
    wait_until(lambda: job_names(daemon), "ours is carried out")
    assert daemon.wait_finished("true") == ["finishedSuccessfully"]
    assert len(job_names(daemon)) == 1
    assert not mark.exists()


def with_ip(daemon: DaemonProcess, *ip: str) -> DaemonProcess:
    at = daemon.command.index("--ip")
    daemon.command[at : at + 2] = ip
    return daemon.start()


def test_defect_30_default_is_loopback(new_daemon: NewDaemon) -> None:
    daemon = with_ip(new_daemon(is_started=False))
    assert "listening on tcp://127.0.0.1:" in daemon.log_text()
    assert "WARNING" not in daemon.log_text()


@pytest.mark.slow
def test_defect_30_warns_without_token_beyond_loopback(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    daemon = with_ip(new_daemon(is_started=False), "--ip", "0.0.0.0")
    assert "--enableTokenAuth" in daemon.log_text()
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    flags = ("--enableTokenAuth", "--tokenPath", str(tokens))
    safe = with_ip(new_daemon(*flags, name="safe", is_started=False), "--ip", "0.0.0.0")
    assert "run commands" not in safe.log_text()


@pytest.mark.parametrize("path", ["/x/y/endInfo", "/x/y/jid", "/x/y/../_0/jid", "/x/y/end/0"])
def test_defect_31_unknown_path_shows_no_other_job(shared_daemon: DaemonProcess, path: str) -> None:
    shared_daemon.run("echo A", "k")
    shared_daemon.wait_finished("k")
    for prefix in ("/api/v1", ""):
        reply = shared_daemon.request("GET", prefix + path)
        assert_refused(reply, 404, "UnknownJob")
        assert reply.json()["GET"] is False
