"""Finds the processes that a test has started, by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

#: How long anything in a test may take before it counts as failed, seconds.
DEADLINE_S = 30.0


def marked(mark: str) -> list[int]:
    """Return the running processes, except ours and zombies, whose environment holds `mark`."""
    raw = mark.encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # It may end while we look, or belong to somebody else; a zombie's environment is empty.
        with contextlib.suppress(OSError):
            if raw in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def wait_gone(pid: int, deadline_s: float = DEADLINE_S) -> bool:
    """Wait until a process has ended; return whether it has."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], deadline_s)[0])
    finally:
        os.close(fd)


def end_marked(mark: str) -> None:
    """Kill what is marked; fails when it can't be done."""
    deadline = time.monotonic() + DEADLINE_S
    while pids := marked(mark):
        assert time.monotonic() < deadline, f"processes {pids} can't be ended"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
