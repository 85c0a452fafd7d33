"""Keeps the output of running jobs below its cap: drops the middle, keeps beginning and end.

Jobs write to their files themselves and notice nothing: the middle becomes a hole, the size stays.
What was dropped is noted beside the file; see `pman.output`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable

from pman.output import STREAMS, punch_hole, read_gap, write_gap
from pman.shepherd.note import note
from pman.shepherd.process import output_path

#: Between two looks at all running jobs, seconds: while output grows, and at most.
PERIOD_S = 0.5
MAX_PERIOD_S = 4.0
#: A look may take this share of the time.
SHARE = 0.02
#: `st_blocks` counts these, bytes. Source: inode(7).
BLOCK_BYTES = 512
#: More than the cap by so much before anything is dropped: what blocks at both ends round up to.
SLACK_BYTES = 64 * 1024


class Trimmer:
    """Looks at output files and drops what is too much."""

    def __init__(self) -> None:
        #: Most of one stream, bytes; 0 for all.
        self.max_bytes = 0
        self._period_s = PERIOD_S
        self._size = 0
        self._is_told = False

    def look(self, parts: Iterable[tuple[bytes, int]]) -> float:
        """Look at the files of running parts: folder and number.

        Returns:
            Seconds until the next look: sooner while they grow, later when there are many.
        """
        began = time.monotonic()
        size = sum(self.trim(folder, index) for folder, index in parts)
        self._period_s = PERIOD_S if size != self._size else min(2 * self._period_s, MAX_PERIOD_S)
        self._size = size
        return max(self._period_s, (time.monotonic() - began) / SHARE)

    def trim(self, folder: bytes, index: int) -> int:
        """Drop what the two streams of a part have too much; return their size, bytes."""
        total = 0
        for stream in STREAMS:
            path = output_path(folder, index, stream)
            try:
                info = os.stat(path)  # noqa: PTH116, bytes
                total += info.st_size
                if info.st_size > self.max_bytes and (
                    info.st_blocks * BLOCK_BYTES > self.max_bytes + SLACK_BYTES
                ):
                    self._drop_middle(path, info.st_size)
            except FileNotFoundError:
                continue  # nothing was printed, or the job has removed it
            except OSError as exc:
                self._complain(path, exc)
        return total

    def _drop_middle(self, path: bytes, size: int) -> None:
        start = self.max_bytes // 2
        end = size - (self.max_bytes - start)
        before = read_gap(path)
        # Noted first: a kill in between leaves a note that the next look makes true.
        write_gap(path, (start, end))
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            punch_hole(fd, start, end - start)
        except OSError:
            write_gap(path, before)
            raise
        finally:
            os.close(fd)

    def _complain(self, path: bytes, exc: OSError) -> None:
        """Say what is wrong, once: it is so for every file, and at every look."""
        if not self._is_told:
            self._is_told = True
            why = "this file system can't" if exc.errno == errno.EOPNOTSUPP else str(exc)
            note(f"output past --maxOutput is not dropped: {os.fsdecode(path)}: {why}")
