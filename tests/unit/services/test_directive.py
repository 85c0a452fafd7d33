"""`DirectiveWatcher`: whose file runs, what becomes of it, and that nothing ends the thread."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pman.config import Settings
from pman.errors import UnknownAction
from pman.services.directive import UNFINISHED_S, DirectiveWatcher

CLEAR = {"action": "DBctl", "meta": {"do": "clear"}}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which only root may")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """A watcher whose looks the test makes itself, and a handler that remembers."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "d_msg.json"
        self.rejected = folder / "d_msg.json.rejected"
        self.clock = Clock()
        self.done: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.arrived = threading.Event()
        settings = Settings(db_path=folder, max_body_bytes=1000)
        self.watcher = DirectiveWatcher(settings, self.handle, period_s=0.01, clock=self.clock)

    def handle(self, document: dict[str, Any]) -> None:
        assert not self.path.exists()
        self.done.append(document)
        self.arrived.set()
        if self.error is not None:
            raise self.error

    def write(self, content: Any, mode: int = 0o600) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        self.path.write_text(text)
        self.path.chmod(mode)

    def files(self) -> list[str]:
        return sorted(entry.name for entry in self.path.parent.iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# --- what is carried out --------------------------------------------------------------------


@pytest.mark.parametrize("content", [CLEAR, {"payload": CLEAR}, json.dumps(CLEAR, indent=4) + "\n"])
def test_a_directive_is_removed_and_carried_out_once(bench: Bench, content: Any) -> None:
    bench.write(content)
    bench.watcher.look()
    bench.watcher.look()
    assert bench.done == [CLEAR]
    assert bench.files() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([CLEAR], "a JSON list"),
        ("null", "a JSON NoneType"),
        ({}, 'no text "action"'),
        ({"action": "hello"}, 'no text "action" and object "meta"'),
        ({"action": 1, "meta": {}}, 'no text "action"'),
        ({"action": "hello", "meta": []}, 'no text "action"'),
        ({"payload": {}}, 'no text "action"'),
    ],
)
def test_the_wrong_shape_is_set_aside(
    bench: Bench, content: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write(content)
    original = bench.path.read_text()
    bench.watcher.look()
    assert bench.done == []
    assert bench.files() == [bench.rejected.name]
    assert bench.rejected.read_text() == original
    assert words in caplog.text
    assert str(bench.rejected) in caplog.text


def test_what_the_dispatcher_refuses_is_set_aside(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.error = UnknownAction("action is 'nosuch', expected one of hello")
    bench.rejected.write_text("an older one")
    bench.write({"action": "nosuch", "meta": {}})
    bench.watcher.look()
    assert bench.files() == [bench.rejected.name]
    assert json.loads(bench.rejected.read_text())["action"] == "nosuch"
    assert "action is 'nosuch'" in caplog.text


def test_a_mistake_of_ours_does_not_end_the_directives(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.error = ZeroDivisionError("oops")
    bench.write(CLEAR)
    bench.watcher.look()
    assert bench.files() == [bench.rejected.name]
    assert "ZeroDivisionError" in caplog.text
    bench.error = None
    bench.write(CLEAR)
    bench.watcher.look()
    assert len(bench.done) == 2


# --- half written ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", '{"action": "DBctl", "meta": {"do": "cl', "\ufffd"])
def test_a_file_that_does_not_parse_is_left_alone_for_a_while(
    bench: Bench, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write(text)
    bench.watcher.look()
    bench.clock.now_s = UNFINISHED_S - 0.1
    bench.watcher.look()
    assert bench.path.read_text() == text
    assert not caplog.records
    bench.clock.now_s = UNFINISHED_S
    bench.watcher.look()
    assert bench.files() == [bench.rejected.name]
    assert "not JSON" in caplog.text


def test_a_file_that_grows_gets_time_again(bench: Bench) -> None:
    text = json.dumps(CLEAR)
    bench.path.touch(0o600)
    with bench.path.open("w") as file:
        for character in text:
            bench.watcher.look()
            assert bench.done == []
            file.write(character)
            file.flush()
            bench.clock.now_s += UNFINISHED_S - 1
    bench.watcher.look()
    assert bench.done == [CLEAR]
    assert bench.files() == []


def test_bytes_that_are_not_text(bench: Bench) -> None:
    bench.path.write_bytes(b'{"action": "\xff"}')
    bench.path.chmod(0o600)
    bench.watcher.look()
    bench.clock.now_s = UNFINISHED_S
    bench.watcher.look()
    assert bench.files() == [bench.rejected.name]


def test_very_deep_nesting(bench: Bench) -> None:
    bench.watcher = DirectiveWatcher(
        Settings(db_path=bench.path.parent), bench.handle, clock=bench.clock
    )
    bench.write("[" * 100_000 + "]" * 100_000)
    bench.watcher.look()
    bench.clock.now_s = UNFINISHED_S
    bench.watcher.look()
    assert bench.files() == [bench.rejected.name]


# --- whose file it is -----------------------------------------------------------------------


def refuse(bench: Bench, caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Look twice: nothing happens to the file, and the log says why, once."""
    before = bench.files()
    caplog.clear()
    bench.watcher.look()
    bench.watcher.look()
    assert bench.done == []
    assert bench.files() == before
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert words in caplog.text


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write(
    bench: Bench, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write(CLEAR, mode)
    refuse(bench, caplog, f"its mode is {mode:04o}, expected 0600")
    bench.path.chmod(0o644)
    bench.watcher.look()
    assert bench.done == [CLEAR]


@as_root
def test_a_file_of_somebody_else(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.write(CLEAR)
    os.chown(bench.path, 12345, -1)
    refuse(bench, caplog, "belongs to user 12345, expected 0")


def test_a_symbolic_link(bench: Bench, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    bench.write(CLEAR)
    bench.path.rename(tmp_path / "target")
    bench.path.symlink_to(tmp_path / "target")
    refuse(bench, caplog, "it is a symbolic link")


def test_a_second_name_of_another_file(
    bench: Bench, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    bench.write(CLEAR)
    os.link(bench.path, tmp_path / "other")
    refuse(bench, caplog, "it has 2 names")


def test_a_fifo_and_a_folder(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(bench.path, 0o600)
    refuse(bench, caplog, "not a regular file")
    bench.path.unlink()
    bench.path.mkdir(0o700)
    refuse(bench, caplog, "not a regular file")
    before = len(os.listdir("/proc/self/fd"))
    bench.watcher.look()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_others_may_write(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.path.parent.chmod(0o777)
    bench.write(CLEAR)
    refuse(bench, caplog, "others may write its folder")
    bench.path.parent.chmod(0o1777)
    bench.watcher.look()
    assert bench.done == [CLEAR]


def test_a_file_that_is_too_long(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.write(json.dumps(CLEAR) + " " * 1000)
    refuse(bench, caplog, "expected at most 1000")


def test_another_version_of_a_refused_file_is_reported_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write(CLEAR, 0o666)
    refuse(bench, caplog, "others may write it")
    bench.path.unlink()
    bench.watcher.look()
    bench.write(CLEAR, 0o666)
    refuse(bench, caplog, "others may write it")


def test_no_folder_is_no_directive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Bench(tmp_path / "none").watcher.look()
    assert not caplog.records


# --- races ----------------------------------------------------------------------------------


def test_a_file_that_replaces_the_one_that_was_read_is_not_removed_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = {"action": "hello", "meta": {}}
    bench.write(CLEAR)
    rename = Path.rename

    def replace_first(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        new = path.with_name("new")
        new.write_text(json.dumps(second))
        new.chmod(0o600)
        new.replace(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", replace_first)
    bench.watcher.look()
    assert bench.done == []
    bench.watcher.look()
    assert bench.done == [second]
    assert bench.files() == []


def test_a_file_that_vanishes_while_it_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(CLEAR)

    def vanish(path: Path, target: Path) -> Path:
        path.unlink()
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "rename", vanish)
    bench.watcher.look()
    assert bench.done == []


# --- the thread -----------------------------------------------------------------------------


def test_the_thread_goes_on_through_bad_directives(bench: Bench) -> None:
    bench.write({"payload": {}})
    bench.watcher.start()
    bench.watcher.wait_ready()
    try:
        ready = bench.path.with_name("ready")
        ready.write_text(json.dumps(CLEAR))
        ready.chmod(0o600)
        # the first one goes when it was looked at
        wait_for(bench.rejected)
        ready.rename(bench.path)
        assert bench.arrived.wait(30)
    finally:
        bench.watcher.request_stop()
        assert bench.watcher.join(time.monotonic() + 30)
    assert bench.watcher.failure is None
    assert bench.done == [CLEAR]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        threading.Event().wait(0.01)
