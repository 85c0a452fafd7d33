"""`pman.health` against a real daemon; its arguments are read where the kernel would show them."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess

from pman.errors import StartError
from pman.health import check


def show_process(folder: Path, daemon: DaemonProcess, *arguments: str) -> Path:
    """Write what /proc would show of a daemon; with the port that it was given in the end."""
    words = ["python3", "pman", *arguments, "--DBpath", str(daemon.db_path)]
    if daemon.port:
        words += ["--port", str(daemon.port)]
    (folder / "proc" / "7").mkdir(parents=True)
    (folder / "proc" / "7" / "cmdline").write_bytes(b"".join(w.encode() + b"\0" for w in words))
    return folder / "proc"


def test_a_daemon_that_works(daemon: DaemonProcess, tmp_path: Path) -> None:
    processes = show_process(tmp_path, daemon)
    assert check({}, processes) == f"tcp://127.0.0.1:{daemon.port}"


def test_one_that_wants_tokens_is_alive(new_daemon: NewDaemon, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    tokens.chmod(0o600)
    flags = ("--enableTokenAuth", "--tokenPath", str(tokens))
    daemon = new_daemon(*flags)
    assert check({}, show_process(tmp_path, daemon, *flags))


def test_zmtp(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon("--rawmode", "0")
    assert check({}, show_process(tmp_path, daemon, "--rawmode", "0"))


def test_socket_file(new_daemon: NewDaemon, tmp_path: Path) -> None:
    path = tmp_path / "pman.sock"
    flags = ("--protocol", "ipc", "--ip", str(path))
    daemon = new_daemon(*flags, is_started=False)
    daemon.launch()
    daemon.wait_for_log("listening on ipc://")
    assert check({}, show_process(tmp_path, daemon, *flags)) == f"ipc://{path}"


def test_one_that_has_stopped(daemon: DaemonProcess, tmp_path: Path) -> None:
    processes = show_process(tmp_path, daemon)
    daemon.stop()
    with pytest.raises(StartError, match="no answer from tcp://127"):
        check({}, processes)


def test_the_environment_counts_too(daemon: DaemonProcess, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cmdline").write_bytes(b"python3\0-m\0pman\0")
    environment = {"PMAN_PORT": str(daemon.port), "PMAN_DBPATH": str(daemon.db_path)}
    assert check(environment, tmp_path)
