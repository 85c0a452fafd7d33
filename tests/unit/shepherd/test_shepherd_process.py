"""Processes of parts: started, recognised, signalled."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pman.shepherd import process
from pman.shepherd.process import shell_command


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_part_writes_to_its_files_only(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    pid = process.spawn(
        shell_command("cat; echo out; echo $A >&2; exit 3"), folder, 2, {b"A": b"err"}
    )
    assert ended(pid) == 3
    assert (tmp_path / "2.stdout").read_text() == "out\n"
    assert (tmp_path / "2.stderr").read_text() == "err\n"


def test_empty_output_is_removed(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    ended(process.spawn(shell_command("echo x"), folder, 0, {}))
    process.remove_empty_output(folder, 0)
    process.remove_empty_output(folder, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["0.stdout"]


def test_a_part_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        process.spawn(shell_command("true"), os.fsencode(tmp_path / "none"), 0, {})


def test_a_process_is_known_by_its_start(tmp_path: Path) -> None:
    pid = process.spawn(shell_command("exec sleep 60"), os.fsencode(tmp_path), 0, dict(os.environb))
    ticks = process.start_ticks(pid)
    assert ticks is not None
    assert process.is_running(pid, ticks)
    assert not process.is_running(pid, ticks + 1)
    assert process.group_members(pid) == [(pid, ticks)]
    assert process.signal_group(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process.start_ticks(pid) == ticks  # a zombie
    assert not process.is_running(pid, ticks)
    assert process.group_members(pid) == []
    assert ended(pid) == -signal.SIGKILL
    assert process.start_ticks(pid) is None
    assert not process.signal_group(pid, 0)


def test_output_folders_are_made_for_us_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    process.make_output_folder(os.fsencode(folder))
    process.make_output_folder(os.fsencode(folder))
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700


def test_boot_id_is_the_same_twice() -> None:
    assert process.boot_id() == process.boot_id() != ""
