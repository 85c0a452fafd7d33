"""Reads what a job prints, by offset, while it prints it and afterwards.

Knows the files of one try of a job and nothing of jobs; nothing stays open between two reads.
"""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

import msgspec

from pman.errors import SnapshotError
from pman.output import LIVE_SUFFIX, STREAMS, Gap, read_gap

#: Longest piece that is read in one go, bytes.
PIECE_BYTES = 256 * 1024

#: Step in which the beginning of a tail is looked for, and how far back at most, bytes.
BLOCK_BYTES = 64 * 1024
MAX_TAIL_BYTES = 64 * 1024 * 1024

#: A FIFO or a link that a job has put in the place of its output must not hold us up.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Fragment(msgspec.Struct, frozen=True):
    """Bytes of a stream in one piece, or word that some were dropped.

    Attributes:
        offset: Of the first byte.
        next: Offset behind the last one.
        raw: The bytes; b"" for what was dropped.
        text: The same as text, where that was asked for.
        is_dropped: Whether the bytes from `offset` to `next` are no more.
    """

    offset: int
    next: int
    raw: bytes = b""
    text: str = ""
    is_dropped: bool = False


class StreamFile:
    """One stream of one part or worker.

    The file is looked up anew for each read: what a container prints moves from one to another when
    it ends. Both hold the same bytes.
    """

    __slots__ = ("_path", "part", "stream")

    def __init__(self, folder: Path, part: int, stream: str) -> None:
        self.part = part
        self.stream = stream
        self._path = os.fsencode(folder / f"{part}.{stream}")

    @property
    def name(self) -> str:
        """Return how cursors call it."""
        return f"{self.part}.{self.stream}"

    def size(self) -> int:
        """Return how many bytes there are now, those dropped included.

        Raises:
            SnapshotError: It can't be looked at.
        """
        try:
            return self._stat()[1]
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def read(self, offset: int, most: int) -> Fragment | None:
        """Return what is there from an offset on; None when that is nothing yet.

        Args:
            most: Bytes, at least 1.
        Raises:
            SnapshotError: It can't be read.
        """
        try:
            path, size = self._stat()
            if size <= offset:
                return None
            raw, gap = _read(path, offset, most)
        except FileNotFoundError:
            return None  # it moves, or its job is deleted
        except OSError as exc:
            raise self._unreadable(exc) from exc
        if gap is not None and gap[0] <= offset < gap[1]:
            return Fragment(offset, gap[1], is_dropped=True)
        if gap is not None and offset < gap[0]:
            raw = raw[: gap[0] - offset]
        return Fragment(offset, offset + len(raw), raw) if raw else None

    def read_text(self, offset: int, most: int, *, is_over: bool) -> Fragment | None:
        """As `read`, with the text; a character that is not whole yet is held back.

        Bytes that are not UTF-8 become U+FFFD.

        Args:
            is_over: Whether nothing is added any more, so that nothing is worth waiting for.
        """
        fragment = self.read(offset, max(most, 4))  # no character is longer
        if fragment is None or fragment.is_dropped:
            return fragment
        text, length = codecs.utf_8_decode(fragment.raw, "replace", False)
        if length < len(fragment.raw) and self._is_cut(fragment.next, is_over=is_over):
            text, length = codecs.utf_8_decode(fragment.raw, "replace", True)
        if not length:
            return None
        return Fragment(offset, offset + length, fragment.raw[:length], text)

    def last_bytes(self, count: int) -> int:
        """Return the offset of the last `count` bytes that are there.

        Raises:
            SnapshotError: As in `read`.
        """
        size, gap = self._size_and_gap()
        if gap is None or count <= size - gap[1]:
            return max(0, size - count)
        missing = count - (size - gap[1])
        return max(0, gap[0] - missing)

    def last_lines(self, count: int) -> int:
        """Return the offset of the last `count` lines, or of less if these are very long.

        Costs what the lines cost, however long the stream is.

        Raises:
            SnapshotError: As in `read`.
        """
        try:
            path, size = self._stat()
            if not count or not size:
                return size
            gap = _gap(path, size)
            ranges = [(0, size)] if gap is None else [(gap[1], size), (0, gap[0])]
            return _lines_back(path, ranges, count)
        except FileNotFoundError:
            return 0
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def first_there(self, offset: int) -> int:
        """Return the first offset from `offset` on whose byte was not dropped.

        Raises:
            SnapshotError: As in `read`.
        """
        _, gap = self._size_and_gap()
        return gap[1] if gap is not None and gap[0] <= offset < gap[1] else offset

    def _size_and_gap(self) -> tuple[int, Gap | None]:
        """Return how long the stream is, and which bytes of it were dropped.

        Raises:
            SnapshotError: As in `read`.
        """
        try:
            path, size = self._stat()
            return size, _gap(path, size)
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def _stat(self) -> tuple[bytes, int]:
        """Return the file that has the stream now, and its size; 0 when there is none."""
        for path in (self._path, self._path + os.fsencode(LIVE_SUFFIX)):
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue
            return path, info.st_size if stat.S_ISREG(info.st_mode) else 0
        return self._path, 0

    def _is_cut(self, end: int, *, is_over: bool) -> bool:
        """Return whether what comes behind `end` does not go on with what is before it."""
        size, gap = self._size_and_gap()
        return (is_over and end >= size) or (gap is not None and gap[0] == end)

    def _unreadable(self, exc: OSError) -> SnapshotError:
        return SnapshotError(f"{self.name} of a job cannot be read: {exc.strerror}")


def numbers_in(folder: Path) -> set[int]:
    """Return the parts or workers that have printed something, as far as can be seen."""
    found: set[int] = set()
    try:
        names = os.listdir(folder)
    except OSError:
        return found
    for name in names:
        number, _, stream = name.removesuffix(LIVE_SUFFIX).partition(".")
        if stream in STREAMS and number.isdecimal():
            found.add(int(number))
    return found


def _gap(path: bytes, size: int) -> Gap | None:
    gap = read_gap(path)
    return gap if gap is not None and gap[0] < gap[1] <= size else None


def _read(path: bytes, offset: int, most: int) -> tuple[bytes, Gap | None]:
    """Return bytes, and the gap beside which they are no hole.

    A gap is noted before the bytes go. So it is looked up behind them, and the size behind that: a
    file may grow past the end of a gap meanwhile.
    """
    fd = os.open(path, _FLAGS)
    try:
        raw = os.pread(fd, most, offset)
        gap = read_gap(path)
        is_here = gap is not None and gap[0] < gap[1] <= os.fstat(fd).st_size
        return raw, gap if is_here else None
    finally:
        os.close(fd)


def _lines_back(path: bytes, ranges: list[Gap], count: int) -> int:
    """Return where the last `count` lines begin, given the ranges that are there, last first."""
    fd = os.open(path, _FLAGS)
    left = MAX_TAIL_BYTES
    # The end of the last line is none between two lines.
    wanted, is_first = count, True
    try:
        for start, end in ranges:
            at = end
            while at > start and left > 0:
                size = min(BLOCK_BYTES, at - start, left)
                block = os.pread(fd, size, at - size)
                left -= size
                found = len(block)
                if is_first and block.endswith(b"\n"):
                    found -= 1
                is_first = False
                at -= size
                ends = block.count(b"\n", 0, found)
                if ends < wanted:
                    wanted -= ends
                    continue
                for _ in range(wanted):
                    found = block.rfind(b"\n", 0, found)
                return at + found + 1
            if left <= 0:
                return at
    finally:
        os.close(fd)
    return ranges[-1][0]
