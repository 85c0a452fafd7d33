"""A gate that host jobs wait at until the test opens it; no job sleeps, so no test does."""

from __future__ import annotations

import os
from pathlib import Path


class Gate:
    """A FIFO that the test holds open; each line lets one job pass.

    Attributes:
        passage: Shell words that wait: `f"{gate.passage} && exit 7"`.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)
        self.passage = f"read _ < {path}"

    def open(self, jobs: int = 1) -> None:
        """Let `jobs` jobs pass, now or when they come."""
        os.write(self._fd, b"\n" * jobs)

    def close(self) -> None:
        os.close(self._fd)
