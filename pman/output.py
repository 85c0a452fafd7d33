"""Files that hold what jobs print: where they are, and how much of one a reply may hold.

Knows nothing of backends and of the job DB; both use it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from pman.errors import SnapshotError
from pman.job.record import run_name

#: Streams of one part or worker.
STREAMS = ("stdout", "stderr")

#: Of a file that holds a stream of a container that still runs; the final one takes its place.
LIVE_SUFFIX = ".live"

#: Of the file beside a stream that says what of it was dropped, two offsets: first byte, and first
#: byte that is there again. The bytes between are a hole.
GAP_SUFFIX = b".gap"

#: A reader that finds the gap moved while it read begins again; so often, then it is content.
GAP_TRIES = 5

Gap = tuple[int, int]

#: Most of the output of all containers of one job in one reply, characters.
MAX_JOINED_CHARACTERS = 32 * 1024 * 1024

#: fallocate(2): FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE.
_PUNCH = 0x02 | 0x01
_libc = ctypes.CDLL(None, use_errno=True)


class OutputFiles:
    """`<root>/<yyyymmdd>/<job folder name>/<part>.<stream>`; a missing file is empty output."""

    def __init__(self, root: Path, max_inline_bytes: int) -> None:
        self.root = root
        self._max_inline_bytes = max_inline_bytes

    def folder(self, job_name: str) -> Path:
        """Return the folder of one job's output; it need not exist."""
        return self.root / job_name[:8] / job_name

    def path(self, job_name: str, part: int, stream: str) -> Path:
        """Return the file of one stream of one part (counted from 0)."""
        return self.folder(job_name) / f"{part}.{stream}"

    def read_text(self, job_name: str, part: int, stream: str) -> str:
        """Return a stream as text for a reply.

        Bytes that are not UTF-8 become U+FFFD. Of a stream longer than `max_inline_bytes` the end
        is kept, behind a line that says how many bytes are missing. Where the middle of a stream
        was dropped, a line says so.

        Raises:
            SnapshotError: The file is there and cannot be read.
        """
        path = self.path(job_name, part, stream)
        try:
            with path.open("rb") as file:
                missing, raw = _read_end(file, os.fsencode(path), self._max_inline_bytes)
        except FileNotFoundError:
            return ""
        except OSError as exc:
            raise SnapshotError(f"{stream} of job {job_name} cannot be read: {exc}") from exc
        text = raw.decode("utf-8", "replace")
        return f"[pman: {missing} bytes before this are not shown]\n{text}" if missing else text

    def size_bytes(self, job_name: str, attempts: int = 1) -> int:
        """Return the size of all that one job has printed; what can't be looked at counts as 0.

        Args:
            attempts: How often it was tried; see `Job.attempt`.
        """
        return sum(_folder_bytes(folder) for folder in self._folders(job_name, attempts))

    def remove(self, job_name: str, attempts: int = 1) -> None:
        """Remove the output of one job, and the day's folder when that is empty.

        Nothing there is not an error.

        Args:
            attempts: How often it was tried; see `Job.attempt`.
        Raises:
            OSError: A file can't be removed.
        """
        for folder in self._folders(job_name, attempts):
            try:
                for entry in os.scandir(folder):
                    os.unlink(entry.path)
                folder.rmdir()
            except FileNotFoundError:
                continue
            with contextlib.suppress(OSError):  # not empty, or gone already
                folder.parent.rmdir()

    def _folders(self, job_name: str, attempts: int) -> Iterator[Path]:
        for attempt in range(1, attempts + 1):
            yield self.folder(run_name(job_name, attempt))


def joined(texts: Iterable[str]) -> str:
    """Return the output of all containers of a job as one text, for a reply.

    Past `MAX_JOINED_CHARACTERS` the rest is not even read, and a line says so.
    """
    kept: list[str] = []
    left = MAX_JOINED_CHARACTERS
    for text in texts:
        if len(text) > left:
            kept += [text[:left], "\n[pman: what other containers have printed is not shown]\n"]
            break
        kept.append(text)
        left -= len(text)
    return "".join(kept)


def _folder_bytes(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(_size_bytes(entry.stat(follow_symlinks=False)) for entry in entries)
    except OSError:
        return 0


def _size_bytes(stat: os.stat_result) -> int:
    """Return the size of a file without its holes; some file systems give small files no block."""
    return min(stat.st_size, stat.st_blocks * 512) if stat.st_blocks else stat.st_size


def read_gap(path: bytes) -> Gap | None:
    """Return which bytes of a stream were dropped, or None."""
    try:
        with open(path + GAP_SUFFIX, "rb") as file:
            start, end = map(int, file.read().split())
    except (FileNotFoundError, ValueError):
        return None
    return start, end


def write_gap(path: bytes, gap: Gap | None) -> None:
    """Note which bytes of a stream were dropped.

    Raises:
        OSError: It can't be written; what was noted before still is.
    """
    target = path + GAP_SUFFIX
    if gap is None:
        os.unlink(target)
        return
    unfinished = target + b".tmp"
    with open(unfinished, "wb") as file:
        file.write(b"%d %d\n" % gap)
    os.replace(unfinished, target)  # noqa: PTH105, bytes


def punch_hole(fd: int, start: int, length: int) -> None:
    """Give the space of a range back; it reads as zeros then.

    Raises:
        OSError: Not done; EOPNOTSUPP where the file system has no holes.
    """
    if _libc.fallocate(fd, _PUNCH, ctypes.c_int64(start), ctypes.c_int64(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _read_end(file: BufferedReader, path: bytes, max_bytes: int) -> tuple[int, bytes]:
    """Return the last `max_bytes` of a stream, and how many bytes are before them."""
    for _ in range(GAP_TRIES):
        gap = read_gap(path)
        size = os.fstat(file.fileno()).st_size
        start, end = gap if gap is not None and gap[1] <= size else (size, size)
        missing, raw = _around_gap(file, max_bytes, size, start, end)
        if read_gap(path) == gap:
            break
    return missing, raw


def _around_gap(
    file: BufferedReader, max_bytes: int, size: int, start: int, end: int
) -> tuple[int, bytes]:
    """As `_read_end`; the bytes from `start` to `end` were dropped, none when they are equal."""
    if start == end or size - end > max_bytes:
        missing = max(0, size - max_bytes)
        file.seek(missing)
        return missing, file.read(max_bytes)
    missing = max(0, start - (max_bytes - (size - end)))
    file.seek(missing)
    head = file.read(start - missing)
    file.seek(end)
    line_end = b"" if not head or head.endswith(b"\n") else b"\n"
    marker = b"%s[pman: %d bytes dropped here]\n" % (line_end, end - start)
    return missing, head + marker + file.read(size - end)
