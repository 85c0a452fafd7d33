"""What a real daemon tells to browsers that are sent to it by pages of strangers."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, Reply
from token_file import bearer, write_tokens


def get(daemon: DaemonProcess, host: str, *headers: str) -> Reply:
    lines = ["GET /api/v1/ HTTP/1.1", f"Host: {host}", *headers, "", ""]
    with daemon.connect() as connection:
        connection.send("\r\n".join(lines).encode())
        return connection.read_reply()


def test_a_rebound_name_reads_nothing(shared_daemon: DaemonProcess) -> None:
    port = shared_daemon.port
    refused = get(shared_daemon, f"evil.example:{port}")
    assert refused.status == 403
    error = refused.json()["error"]
    assert error["field"] == "Host"
    assert f"'evil.example:{port}'" in error["message"]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "pman"):
        assert get(shared_daemon, host).status == 200
    with shared_daemon.connect() as connection:
        connection.send(b"GET /api/v1/ HTTP/1.0\r\n\r\n")
        assert connection.read_reply().status == 200


@pytest.mark.slow
def test_with_tokens_or_beyond_this_machine_any_name_will_do(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    tokens = write_tokens(tmp_path)
    guarded = new_daemon("--enableTokenAuth", "--tokenPath", str(tokens), name="guarded")
    assert get(guarded, "pman.example.org", ": ".join(bearer("reader"))).status == 200
    assert get(guarded, "pman.example.org").status == 401
    public = new_daemon("--ip", "0.0.0.0", name="public")
    assert get(public, "pman.example.org").status == 200
    assert get(public, "pman.example.org", "Sec-Fetch-Site: cross-site").status == 403
