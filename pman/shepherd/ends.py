"""How processes ended whose shepherd was killed, as its guard has seen it; one empty file each.

The name says it all, so that a file is there as a whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class End(NamedTuple):
    """The end of one process.

    Attributes:
        pid, ticks: Process id and start; with the boot id they name one process.
        code: Exit code, negative for the signal that ended it.
        at: UTC epoch seconds.
    """

    pid: int
    ticks: int
    code: int
    at: float


class Ends:
    """`<folder>/<boot>.<pid>.<ticks>.<code>`; written by the guard, taken by the shepherd."""

    def __init__(self, folder: Path, boot: str) -> None:
        self._folder = os.fspath(folder)
        self._boot = boot

    def add(self, pid: int, ticks: int, code: int) -> None:
        """Write down how a process ended.

        Raises:
            OSError: It can't be written.
        """
        path = f"{self._folder}/{self._boot}.{pid}.{ticks}.{code}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def read(self) -> list[End]:
        """Return what is written; what is of another boot is removed."""
        found = []
        for entry in os.scandir(self._folder):
            boot, *words = entry.name.split(".")
            try:
                pid, ticks, code = map(int, words)
                at = entry.stat().st_mtime
            except (ValueError, OSError):
                continue
            if boot == self._boot:
                found.append(End(pid, ticks, code, at))
            else:
                os.unlink(entry.path)
        return found

    def remove(self, end: End) -> None:
        """Forget the end of a process; nothing there is not an error."""
        try:
            os.unlink(f"{self._folder}/{self._boot}.{end.pid}.{end.ticks}.{end.code}")
        except FileNotFoundError:
            return
