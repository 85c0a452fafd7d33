"""`pman` as a command: texts, exit statuses, signals, standard streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_process import wait_until

from pman.cli import main
from pman.options import OPTIONS, SHOW_OPTIONS

REPO = Path(__file__).resolve().parents[2]

#: How long anything in a test may take before it counts as failed, seconds.
DEADLINE_S = 30.0

#: A process whose daemon does only what a test is about.
STUB = """
import logging, sys, threading, types
from pman.errors import ConfigError, StartError

class Daemon:
    def __init__(self, settings, notifier):
        self.settings, self.stop = settings, threading.Event()

    def request_stop(self):
        print("asked to stop", flush=True)
        if self.settings.ip != "stubborn":
            self.stop.set()

    def cut_drain(self):
        if not self.settings.drain_s or self.is_cut:
            return False
        self.is_cut = True
        print("drain is cut", flush=True)
        return True

    is_cut = False

    def run(self):
        if self.settings.ip == "taken":
            raise StartError("cannot listen on tcp://taken:5010: address already in use")
        logging.getLogger("pman.daemon").info("ready")
        self.stop.wait()
        return 3

module = types.ModuleType("pman.daemon")
module.Daemon = Daemon
sys.modules["pman.daemon"] = module
from pman.cli import main
sys.exit(main())
"""

Output = pytest.CaptureFixture[str]


# --- texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["--version"], ["--vers"], ["--version", "--port", "5"]])
def test_version(argv: list[str], capsys: Output) -> None:
    assert main(argv) == 0
    assert capsys.readouterr() == ("Version: 3.0.0\n", "")


def test_synopsis_and_description_win_over_the_version(capsys: Output) -> None:
    assert main(["--version", "-y"]) == 0
    short = capsys.readouterr().out
    assert main(["--version", "-y", "-x"]) == 0
    long = capsys.readouterr().out
    assert long.startswith(short.rstrip())
    headings = [line.strip() for line in long.splitlines() if line.strip().isupper()]
    assert headings == ["NAME", "SYNOPSIS", "BRIEF EXAMPLE", "DESCRIPTION", "ARGS", "EXAMPLES"]
    assert "-- version 3.0.0 --" in short
    assert "\x1b" not in long
    for option in (*OPTIONS, *SHOW_OPTIONS):
        assert f"                [{option.flag}" in short
    for option in OPTIONS:
        assert "".join(option.help.split()) in "".join(long.split())


def test_the_lines_of_a_synopsis_can_be_pasted(capsys: Output) -> None:
    assert main(["-y"]) == 0
    usage = capsys.readouterr().out.partition("SYNOPSIS")[2].partition("BRIEF")[0].strip()
    lines = usage.splitlines()
    assert all(line.endswith("\\") for line in lines[:-1])
    assert lines[-1].strip() == "[--version]"


def test_help(capsys: Output) -> None:
    assert main(["--help", "--nosuch"]) == 0
    assert capsys.readouterr().out.startswith("usage: pman ")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--nosuch"], "pman: error: unrecognized arguments: --nosuch\n"),
        (["extra"], "pman: error: unrecognized arguments: extra\n"),
    ],
)
def test_wrong_arguments(argv: list[str], line: str, capsys: Output) -> None:
    """As cli-005 and cli-006."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: pman ")
    assert err.endswith(line)


def test_a_wrong_value_is_one_line(capsys: Output) -> None:
    assert main(["--port", "x"]) == 2
    expected = "pman: error: --port is 'x', expected a number from 0 to 65535\n"
    assert capsys.readouterr() == ("", expected)


# --- processes of its own -------------------------------------------------------------------


def call(*command: str, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        command, capture_output=True, text=True, env=environ, cwd="/", timeout=DEADLINE_S
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("flag", ["--version", "--help", "--desc", "--synopsis"])
def test_texts_need_nothing_of_the_environment(flag: str) -> None:
    """Defect 20: no HOME, no PATH, and variables that would stop a start."""
    status, out, err = call(
        sys.executable, "-m", "pman", flag, PMAN_PORT="bad", PYTHONPATH=str(REPO)
    )
    assert (status, err) == (0, "")
    assert out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give up the network and the name")
def test_the_version_without_network_and_name() -> None:
    """Defect 20."""
    program = f"hostname no-such-name.invalid; exec {sys.executable} -m pman --version"
    command = ["unshare", "--net", "--uts", "sh", "-c", program]
    if subprocess.run(["unshare", "--net", "--uts", "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this machine does not let us")
    status, out, err = call(*command, PYTHONPATH=str(REPO), PATH=os.environ["PATH"])
    assert (status, out, err) == (0, "Version: 3.0.0\n", "")


@pytest.mark.parametrize("name", ["pman", "pman_do"])
def test_the_shims_of_a_checkout(name: str) -> None:
    shim = REPO / "bin" / name
    assert os.access(shim, os.X_OK)
    assert call(sys.executable, str(shim), "--version") == (0, "Version: 3.0.0\n", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = f"{sys.executable} -m pman --desc | true; echo ${{PIPESTATUS[0]}}"
    status, out, err = call("bash", "-c", program, PYTHONPATH=str(REPO), PATH=os.environ["PATH"])
    assert (status, out, err) == (0, "0\n", "")


@pytest.mark.parametrize("name", ["pman", "pman_do"])
def test_standard_streams_that_are_closed_are_no_error(name: str) -> None:
    program = f"exec {sys.executable} {REPO / 'bin' / name} --desc <&- >&- 2>&-"
    assert call("sh", "-c", program, PYTHONPATH=str(REPO)) == (0, "", "")


# --- the daemon's process -------------------------------------------------------------------


class Stub:
    """The stub daemon in a process of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", STUB, "--DBpath", str(folder), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, word: str) -> None:
        assert self.process.stdout is not None
        assert word in self.process.stdout.readline()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, err


@pytest.fixture
def stubs() -> Iterator[list[Stub]]:
    started: list[Stub] = []
    yield started
    for stub in started:
        if stub.process.poll() is None:
            stub.process.kill()
            stub.process.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_the_end(
    number: signal.Signals, tmp_path: Path, stubs: list[Stub]
) -> None:
    stubs.append(stub := Stub(tmp_path))
    stub.wait_for("| pman.daemon | ready")
    stub.send(number)
    stub.wait_for("asked to stop")
    assert stub.end() == (3, "")  # the daemon's own status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(
    number: signal.Signals, tmp_path: Path, stubs: list[Stub]
) -> None:
    stubs.append(stub := Stub(tmp_path, "--ip", "stubborn"))
    stub.wait_for("ready")
    stub.send(signal.SIGTERM)
    stub.wait_for("asked to stop")
    stub.send(number)
    assert stub.end() == (128 + number, "")


def test_with_a_drain_it_is_the_third_signal_that_ends_it(
    tmp_path: Path, stubs: list[Stub]
) -> None:
    stubs.append(stub := Stub(tmp_path, "--ip", "stubborn", "--drain", "60"))
    stub.wait_for("ready")
    stub.send(signal.SIGTERM)
    stub.wait_for("asked to stop")
    stub.send(signal.SIGTERM)
    stub.wait_for("drain is cut")
    stub.send(signal.SIGTERM)
    assert stub.end() == (128 + signal.SIGTERM, "")


def test_a_failed_start_is_one_line(tmp_path: Path, stubs: list[Stub]) -> None:
    stubs.append(stub := Stub(tmp_path, "--ip", "taken"))
    message = "pman: cannot listen on tcp://taken:5010: address already in use\n"
    assert stub.end() == (1, message)


def test_a_log_file_that_cannot_be_opened_stops_the_start(
    tmp_path: Path, stubs: list[Stub]
) -> None:
    flags = ("--debugToFile", "--debugFile", str(tmp_path))
    stubs.append(stub := Stub(tmp_path, *flags))
    status, err = stub.end()
    assert status == 1
    assert err == f"pman: log file {str(tmp_path)!r} cannot be opened: Is a directory\n"


def test_the_log_in_a_file(tmp_path: Path, stubs: list[Stub]) -> None:
    path = tmp_path / "sub" / "log"
    stubs.append(stub := Stub(tmp_path, "--debugToFile", "--debugFile", str(path)))
    wait_until(lambda: path.exists() and "ready" in path.read_text(), "the log")
    stub.send(signal.SIGCONT)  # a signal that means nothing to us
    stub.send(signal.SIGTERM)
    stub.wait_for("asked to stop")
    assert stub.end() == (3, "")
