"""Starts daemons for fixtures, and leaves nothing of them behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon_process import DaemonProcess
from leftovers import end_shepherds


class NewDaemon:
    """Starts daemons below one folder; the same `name` is the same job DB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: list[DaemonProcess] = []

    def __call__(
        self, *flags: str, name: str = "pman", is_started: bool = True, **settings: Any
    ) -> DaemonProcess:
        """Make a `DaemonProcess` with `settings`, and start it unless told otherwise."""
        daemon = DaemonProcess(self.folder / name, *flags, **settings)
        self._made.append(daemon)
        return daemon.start() if is_started else daemon

    def end(self) -> None:
        """End each daemon, its shepherd and its jobs."""
        for daemon in self._made:
            daemon.kill()
            end_shepherds(daemon.db_path)


@contextlib.contextmanager
def daemons_below(folder: Path) -> Iterator[NewDaemon]:
    """Give a `NewDaemon`; end all that it started."""
    made = NewDaemon(folder)
    try:
        yield made
    finally:
        made.end()
