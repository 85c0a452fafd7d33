"""Finds and ends the processes that a daemon under test has left running, by its DBpath."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def shepherds(db_path: Path) -> list[int]:
    """Return the process ids of the shepherds whose state lies under `db_path`."""
    return [
        pid
        for pid, words in _command_lines()
        if "pman.shepherd" in words and any(word.startswith(f"{db_path}/") for word in words)
    ]


def end_shepherds(db_path: Path) -> None:
    """End the shepherds of a job DB with every process that descends from them."""
    herds = shepherds(db_path)
    for pid in herds:
        _signal(pid, signal.SIGSTOP)  # nothing new is started while we look
    for pid in [*herds, *_descendants(herds)]:
        _signal(pid, signal.SIGKILL)


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
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
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
