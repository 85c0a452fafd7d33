"""`pman_do`: what it writes, what it says, and how it ends."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from pman import pman_do
from pman.pman_do import main

CLEAR = '{\n    "action": "DBctl",\n    "meta": {\n        "do": "clear"\n    }\n}'

Output = pytest.CaptureFixture[str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d_msg.json"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PMAN_CONFIG", "PMAN_DBPATH", "PMAN_DIRECTIVEFILE"):
        monkeypatch.delenv(name, raising=False)


def test_an_operation(path: Path, capsys: Output) -> None:
    """As cli-024, but for colours, which are for terminals."""
    assert main(["--saveTo", str(path), "--op", "DBclean"]) == 0
    assert path.read_text() == CLEAR
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert capsys.readouterr().out == (
        f"\n---->\nmsg to write = \n{CLEAR}\n---->\n"
        f"                         Writing directive file...{f'[ {path} ]':>20}\n"
    )


def test_a_message_with_its_own_order_of_keys(path: Path) -> None:
    message = '{"meta":{"b":1,"a":"\u00e9"},"action":"run"}'
    assert main(["-s", str(path), "--msg", message, "--op", "nosuch"]) == 0
    assert path.read_text() == json.dumps(json.loads(message), indent=4)


def test_what_was_there_is_replaced(path: Path) -> None:
    path.write_text("old")
    path.chmod(0o666)
    inode = path.stat().st_ino
    assert main(["-s", str(path), "--op", "DBclean"]) == 0
    assert path.read_text() == CLEAR
    assert path.stat().st_ino != inode
    assert path.stat().st_mode & 0o777 == 0o600


def test_neither_message_nor_operation_writes_nothing(path: Path, capsys: Output) -> None:
    assert main(["-s", str(path)]) == 0
    assert not path.exists()
    assert capsys.readouterr() == ("", "")


def test_silence(path: Path, capsys: Output) -> None:
    assert main(["-s", str(path), "--op", "DBclean", "-v", "0", "--wait", "0.01"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--op", "nosuch"], "--op is 'nosuch', expected one of DBclean"),
        (["--msg", "{x"], "--msg is not JSON: "),
        (["--msg", ""], "--msg is not JSON: "),
        (["--msg", '{"a": NaN}'], "--msg is not JSON: NaN is not a value of JSON"),
        (["--msg", "[" * 100_000], "--msg is not JSON: "),
        (
            ["--msg", '{"a":' * 600 + "1" + "}" * 600],
            "--msg is nested too deeply, ",
        ),
        (["--msg", "[]"], "--msg is a JSON list, expected an object"),
        (["--op", "DBclean", "--wait", "x"], "--wait is 'x', expected a number of seconds"),
        (["--op", "DBclean", "-v", "x"], "--verbosity is 'x', expected a number"),
    ],
)
def test_wrong_values(argv: list[str], words: str, path: Path, capsys: Output) -> None:
    assert main(["-s", str(path), *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"pman_do: error: {words}")
    assert err.count("\n") == 1
    assert not path.exists()


def test_wrong_arguments(capsys: Output) -> None:
    assert main(["--nosuch"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: pman_do")
    assert err.endswith("pman_do: error: unrecognized arguments: --nosuch\n")


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "none" / "d.json"
    assert main(["-s", str(path), "--op", "DBclean"]) == 1
    assert (
        capsys.readouterr().err
        == f"pman_do: cannot write {str(path)!r}: No such file or directory\n"
    )
    assert not path.parent.exists()


def test_a_folder_in_its_place_leaves_nothing_behind(path: Path, capsys: Output) -> None:
    path.mkdir()
    assert main(["-s", str(path), "--op", "DBclean"]) == 1
    assert "Is a directory" in capsys.readouterr().err
    assert list(path.parent.iterdir()) == [path]


# --- the default file -----------------------------------------------------------------------


def test_the_default_is_that_of_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db_path = tmp_path / "state" / "pman"
    monkeypatch.setenv("PMAN_DBPATH", str(db_path))
    monkeypatch.setenv("PMAN_PORT", "not for us to judge")
    assert main(["--op", "DBclean"]) == 0
    assert (db_path / "d_msg.json").read_text() == CLEAR
    assert db_path.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("PMAN_DIRECTIVEFILE", str(tmp_path / "other.json"))
    assert main(["--op", "DBclean"]) == 0
    assert (tmp_path / "other.json").read_text() == CLEAR


def test_a_wrong_environment_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("PMAN_CONFIG", "/nowhere")
    assert main(["--op", "DBclean"]) == 2
    assert "--config /nowhere cannot be read" in capsys.readouterr().err


# --- waiting --------------------------------------------------------------------------------


def test_a_file_that_is_not_taken(path: Path, capsys: Output) -> None:
    """As cli-025, and one more line."""
    assert main(["-s", str(path), "--op", "DBclean", "-w", "0.01"]) == 0
    assert path.exists()
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "                       Starting wait timer for ...    [ 0.01 seconds ]",
        "                                         Timer ...[ done ]",
        "                                Directive file ...[ still there: pman did not take it ]",
    ]


def test_a_file_that_is_taken_ends_the_wait(path: Path, capsys: Output) -> None:
    appeared = threading.Event()

    def take() -> None:
        while not path.exists():
            appeared.wait(0.01)
        path.unlink()

    taker = threading.Thread(target=take)
    taker.start()
    assert main(["-s", str(path), "--op", "DBclean", "-w", "1000"]) == 0
    taker.join(30)
    out = capsys.readouterr().out
    assert "[ 1000 seconds ]" in out
    assert out.endswith("Directive file ...[ taken by pman ]\n")


def test_another_file_in_its_place_means_taken(path: Path) -> None:
    path.touch()
    assert pman_do.wait_until_taken(path, path.stat().st_ino + 1, 0)
    assert not pman_do.wait_until_taken(path, path.stat().st_ino, 0)


# --- texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--version", "--vers"])
def test_version(flag: str, capsys: Output) -> None:
    assert main([flag]) == 0
    assert capsys.readouterr().out == "Version: 3.0.0\n"


def test_descriptions(capsys: Output) -> None:
    assert main(["-y", "--version"]) == 0
    short = capsys.readouterr().out
    assert main(["--desc", "-y"]) == 0
    long = capsys.readouterr().out
    assert long.startswith(short.rstrip())
    headings = [line.strip() for line in long.splitlines() if line.strip().isupper()]
    assert headings == ["NAME", "SYNOPSIS", "BRIEF EXAMPLE", "DESCRIPTION", "ARGS", "EXAMPLES"]
    assert "-- version 3.0.0 --" in short
    assert "\x1b" not in long


def test_help(capsys: Output) -> None:
    assert main(["-h"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: pman_do")
    for option in pman_do.OPTIONS:
        assert option.flag in out
