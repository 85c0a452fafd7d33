"""`LogSink`: the output of one job's containers on its way into files.

What is unfinished is called `<worker>.<stream>.part`, so that what an earlier attempt has brought
in whole stays until there is something better.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import os
from pathlib import Path

from pman.output import OutputFiles, punch_hole, write_gap

_log = logging.getLogger(__name__)

PART_SUFFIX = ".part"

#: Most files that are open at a time; the output of many workers may come interleaved.
MAX_OPEN = 32

#: More than the cap by so much before the middle is dropped, bytes.
SLACK_BYTES = 1024 * 1024


class _Stream:
    """One stream: how much was written, and which middle of it was dropped."""

    __slots__ = ("dropped_to", "path", "size")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.dropped_to = 0


class LogSink:
    """Takes output in order for each stream; one thread has it. A `Sink` of `port`.

    Of a stream that is longer than the cap, beginning and end are kept; see `pman.output`.
    """

    def __init__(self, output: OutputFiles, job_name: str, max_bytes: int) -> None:
        """Begin anew: what an attempt that failed has left goes.

        Args:
            max_bytes: Most of one stream; 0 for all.
        Raises:
            OSError: The folder can't be made.
        """
        self._folder = output.folder(job_name)
        self._max_bytes = max_bytes
        self._streams: dict[tuple[int, str], _Stream] = {}
        self._open: collections.OrderedDict[tuple[int, str], int] = collections.OrderedDict()
        self._can_drop = True
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for left in self._folder.glob("*" + PART_SUFFIX):
            left.unlink()

    def __enter__(self) -> LogSink:
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what has not been put in its place by `close`."""
        self.abandon()

    def write(self, worker: int, stream: str, raw: bytes) -> None:
        """Append to a stream; see `Sink`."""
        key = worker, stream
        fd = self._fd(key)
        held = self._streams[key]
        rest = memoryview(raw)
        while rest:
            count = os.write(fd, rest)
            held.size += count
            rest = rest[count:]
        if self._max_bytes:
            self._drop_middle(held, fd, SLACK_BYTES)

    def close(self) -> None:
        """Make what was written durable, and put it in its place.

        Raises:
            OSError: Not all of it; to be collected again.
        """
        for key, held in self._streams.items():
            fd = self._fd(key)
            if self._max_bytes:
                self._drop_middle(held, fd, 0)
            os.fsync(fd)
        self._close_files()
        for held in self._streams.values():
            self._put_in_place(held)
        with contextlib.suppress(OSError):  # some file systems can't sync a folder
            _sync_folder(self._folder)

    def abandon(self) -> None:
        """Drop what was written and not put in its place."""
        self._close_files()
        for held in self._streams.values():
            with contextlib.suppress(OSError):  # the next attempt tries again
                os.unlink(_part(held.path))

    def _fd(self, key: tuple[int, str]) -> int:
        """Return the open file of a stream; the one that was not used longest makes room."""
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        if len(self._open) >= MAX_OPEN:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)
        if key not in self._streams:
            self._streams[key] = _Stream(self._folder / f"{key[0]}.{key[1]}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_part(self._streams[key].path), flags, 0o600)
        self._open[key] = fd
        return fd

    def _drop_middle(self, held: _Stream, fd: int, slack: int) -> None:
        """Punch a hole where the middle of a stream was, once that is worth it."""
        start = self._max_bytes // 2
        end = held.size - (self._max_bytes - start)
        if end <= max(start, held.dropped_to) + slack or not self._can_drop:
            return
        try:
            # From the start, as blocks that earlier ends have cut are given back only whole.
            punch_hole(fd, start, end - start)
        except OSError as exc:
            if exc.errno != errno.EOPNOTSUPP:
                raise
            self._can_drop = False
            _log.warning(
                "output past --maxOutput is not dropped: %s: this file system can't", held.path
            )
            return
        held.dropped_to = end

    def _put_in_place(self, held: _Stream) -> None:
        start = self._max_bytes // 2
        path = os.fsencode(held.path)
        if held.dropped_to > start:
            write_gap(path, (start, held.dropped_to))
        else:
            with contextlib.suppress(FileNotFoundError):
                write_gap(path, None)
        os.replace(_part(held.path), held.path)  # noqa: PTH105

    def _close_files(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


def _part(path: Path) -> str:
    return f"{path}{PART_SUFFIX}"


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
