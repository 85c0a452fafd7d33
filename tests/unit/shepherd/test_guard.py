"""The guard: starts the shepherd again, and writes down how orphans end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pman.shepherd.ends import Ends

pytestmark = pytest.mark.slow


def guarded(folder: Path, serve: str) -> tuple[int, str]:
    """Run `serve` under a guard in a process of its own; return exit status and messages."""
    script = textwrap.dedent("""
        import os, signal, subprocess, sys
        from pathlib import Path
        from pman.shepherd.ends import Ends
        from pman.shepherd.guard import Guard
        folder = Path(sys.argv[1])
        guard = Guard(Ends(folder, "boot"))
        def serve():
            exec(sys.argv[2])
        sys.exit(guard.run(serve))
    """)
    command = [sys.executable, "-c", script, str(folder), textwrap.dedent(serve)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_it_ends_with_the_shepherd(tmp_path: Path) -> None:
    assert guarded(tmp_path, "pass") == (0, "")


def test_a_killed_shepherd_is_started_again_and_its_orphans_are_known(tmp_path: Path) -> None:
    serve = """
        if guard.is_first:
            child = subprocess.Popen(["/bin/sh", "-c", "read line; exit 5"], stdin=subprocess.PIPE)
            os.write(guard.hello, b"%d" % child.pid)
            os.kill(os.getpid(), signal.SIGKILL)  # the pipe of the child ends with us
        import select
        while not os.listdir(folder):
            select.select([guard.bell], [], [])
    """
    status, said = guarded(tmp_path, serve)
    assert status == 0
    assert "ended with -9 and is started again" in said
    (end,) = Ends(tmp_path, "boot").read()
    assert end.code == 5
    assert end.ticks > 0


def test_a_shepherd_that_can_not_work_is_given_up(tmp_path: Path) -> None:
    status, said = guarded(tmp_path, "raise RuntimeError('no')")
    assert status == 1
    assert said.count("RuntimeError: no") == 5
    assert "again and again" in said


def test_an_end_that_can_not_be_written_is_told_by_the_bell(tmp_path: Path) -> None:
    serve = """
        from pman.shepherd.guard import UNWRITTEN
        if guard.is_first:
            subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE)
            os.kill(os.getpid(), signal.SIGKILL)
        import select
        select.select([guard.bell], [], [])
        assert os.eventfd_read(guard.bell) == UNWRITTEN
    """
    folder = tmp_path / "none"
    status, said = guarded(folder, serve)
    assert status == 0, said
    assert "can't be written down" in said
    assert not os.path.lexists(folder)
