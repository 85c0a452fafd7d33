"""`pman.health`: whose arguments it takes, and where it looks for pman."""

from __future__ import annotations

from pathlib import Path

import pytest

from pman.config import Settings, parse_arguments
from pman.errors import StartError
from pman.health import arguments_of, find_arguments, reachable

PYTHON = "/opt/pman/bin/python3"


def write_process(folder: Path, pid: int, *words: str) -> None:
    (folder / str(pid)).mkdir()
    (folder / str(pid) / "cmdline").write_bytes(b"".join(w.encode() + b"\0" for w in words))


def settings_of(*arguments: str) -> Settings:
    settings = parse_arguments([*arguments, "--DBpath", "/db"], {})
    assert isinstance(settings, Settings)
    return settings


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([PYTHON, "/usr/local/bin/pman", "--port", "1"], ["--port", "1"]),
        ([PYTHON, "/usr/local/bin/pman"], []),
        ([PYTHON, "-m", "pman", "--http"], ["--http"]),
        ([PYTHON, "-P", "-m", "pman.shepherd", "/db/backends/host"], None),
        ([PYTHON, "-m", "pman.health"], None),
        ([PYTHON], None),
        (["tini", "-s", "--", "docker-entrypoint.sh", "pman"], None),
        (["cat", "pman"], None),
        ([], None),
    ],
)
def test_arguments_of_a_command_line(words: list[str], arguments: list[str] | None) -> None:
    assert arguments_of(words) == arguments


def test_oldest_pman_is_the_one(tmp_path: Path) -> None:
    write_process(tmp_path, 1, "tini", "--", "docker-entrypoint.sh", "--port", "9")
    write_process(tmp_path, 7, PYTHON, "/usr/local/bin/pman", "--port", "7")
    write_process(tmp_path, 10, PYTHON, "/usr/local/bin/pman", "--version")
    (tmp_path / "5").mkdir()  # a process that ends while it is looked at
    (tmp_path / "self").mkdir()
    assert find_arguments(tmp_path) == ["--port", "7"]


def test_no_pman(tmp_path: Path) -> None:
    write_process(tmp_path, 1, "sleep", "9")
    with pytest.raises(StartError, match="no pman runs here"):
        find_arguments(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "endpoint"),
    [
        (["--ip", "0.0.0.0"], "tcp://127.0.0.1:5010"),
        (["--ip", "*", "--port", "81"], "tcp://127.0.0.1:81"),
        (["--ip", "10.0.0.7"], "tcp://10.0.0.7:5010"),
        (["--ip", "::"], "tcp://[::1]:5010"),
        (["--ip", "fd00::1"], "tcp://[fd00::1]:5010"),
        (["--ip", "lo"], "tcp://127.0.0.1:5010"),
        (["--protocol", "ipc"], "ipc:///db/pman-5010.sock"),
        (["--protocol", "ipc", "--ip", "/run/pman.sock"], "ipc:///run/pman.sock"),
    ],
)
def test_where_pman_is_reached(arguments: list[str], endpoint: str) -> None:
    assert reachable(settings_of(*arguments)) == endpoint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--port", "0"], "any free port"), (["--ip", "nosuch9"], "no interface with one")],
)
def test_where_it_cannot_be_known(arguments: list[str], message: str) -> None:
    with pytest.raises(StartError, match=message):
        reachable(settings_of(*arguments))
