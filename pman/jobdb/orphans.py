"""Output folders that no record belongs to: what a removal left that failed half-way.

They are set aside in one go, before anything else runs, and removed later, some at a time.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import shutil
from collections.abc import Container
from pathlib import Path

from pman.job.record import job_name_of
from pman.jobdb.record_json import is_job_name

_log = logging.getLogger(__name__)

#: Within the folder of all output; no day has this name.
ASIDE_NAME = ".orphans"


def set_aside(root: Path, known: Container[str]) -> int:
    """Move the output of jobs that are not `known` out of the way, and remove empty days.

    Args:
        root: Folder of all output; see `OutputFiles`.
    Returns:
        Number of folders that were moved; what cannot be moved is logged and stays.
    """
    aside = root / ASIDE_NAME
    count = 0
    try:
        for day in _folders(root):
            if not (len(day) == 8 and day.isdecimal()):
                continue
            for name in _folders(root / day):
                job = job_name_of(name)
                if is_job_name(job) and name.startswith(day) and job not in known:
                    aside.mkdir(mode=0o700, exist_ok=True)
                    (root / day / name).rename(aside / name)
                    count += 1
            with contextlib.suppress(OSError):  # not empty
                (root / day).rmdir()
    except OSError as exc:
        _log.error("output without a record stays: %s", exc)
    return count


class OrphanRemoval:
    """Removes what was set aside; one thread has it."""

    def __init__(self, root: Path) -> None:
        self._aside = root / ASIDE_NAME
        self._left: collections.deque[str] | None = None  # None: not looked yet

    def step(self, most: int) -> bool:
        """Remove some folders; return whether there are more. What stays is logged."""
        if self._left is None:
            try:
                self._left = collections.deque(os.listdir(self._aside))
            except FileNotFoundError:
                self._left = collections.deque()
                return False
            except OSError as exc:
                _log.error("%s cannot be looked into: %s", self._aside, exc.strerror)
                self._left = collections.deque()
        for _ in range(min(most, len(self._left))):
            folder = self._aside / self._left.popleft()
            try:
                shutil.rmtree(folder)
            except OSError as exc:
                _log.error("%s cannot be removed, the next start tries again: %s", folder, exc)
        if not self._left:
            with contextlib.suppress(OSError):  # not empty, or gone already
                self._aside.rmdir()
        return bool(self._left)


def _folders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
