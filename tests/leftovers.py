"""Finds and ends the processes that a daemon under test has left running, by its DBpath."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def shepherds(db_path: Path) -> list[int]:
    """Return the process ids of the shepherds whose state is under `db_path`; not their guards."""
    return [shepherd for _, shepherd in _herds(db_path)]


def herd(folder: Path) -> tuple[int | None, int | None]:
    """Return the process ids of guard and shepherd below `folder`, None for what is dead."""
    return next(iter(_herds(folder)), (None, None))


def herd_pids(folder: Path, timeout_s: float = 30.0) -> tuple[int, int]:
    """Return the process ids of the guard and the shepherd below `folder`, once they are there."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        guard, shepherd = herd(folder)
        if guard is not None and shepherd is not None:
            return guard, shepherd
        time.sleep(0.02)
    raise AssertionError(f"there is no shepherd below {folder}")


def end_shepherds(db_path: Path) -> None:
    """End the shepherds of a job DB with their guards and every process that descends from them."""
    herds = _shepherds_and_guards(db_path)
    for pid in herds:
        _signal(pid, signal.SIGSTOP)  # nothing new is started while we look
    for pid in [*herds, *_descendants(herds)]:
        _signal(pid, signal.SIGKILL)


def _herds(folder: Path) -> list[tuple[int | None, int]]:
    """Return each shepherd behind its guard.

    A child that has yet to become a job's shell looks like a shepherd; its parent tells it apart.
    """
    found = {pid: _session(pid) for pid in _shepherds_and_guards(folder)}
    leaders = [pid for pid, session in found.items() if pid == session]
    herds: list[tuple[int | None, int]] = []
    for pid, session in found.items():
        parent = parent_of(pid)
        if session != pid and (parent in leaders or parent not in found):
            herds.append((parent if parent in leaders else None, pid))
    return herds


def _shepherds_and_guards(folder: Path) -> list[int]:
    return [
        pid
        for pid, words in _command_lines()
        if "pman.shepherd" in words
        and any(word == str(folder) or word.startswith(f"{folder}/") for word in words)
    ]


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 when there is none."""
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def is_running(pid: int) -> bool:
    """Return whether a process is there and has not ended; a zombie has."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _command_lines() -> Iterable[tuple[int, list[str]]]:
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            # It may end while we look.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry.name), (entry / "cmdline").read_bytes().decode().split("\0")


def _descendants(roots: Iterable[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            children.setdefault(parent_of(int(entry.name)), []).append(int(entry.name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
