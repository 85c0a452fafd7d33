"""What containers print while they run, in files beside those that the end will bring.

`<worker>.<stream>.live` holds the stream from its first byte on, so that an offset means the same
in it and in the final file. Bytes are written where they belong and never elsewhere: who reads a
stream again from its beginning, be it another daemon, can neither double nor lose any.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

from pman.backends._engine.halt import Halt
from pman.backends._engine.port import View
from pman.output import LIVE_SUFFIX, write_gap

_log = logging.getLogger(__name__)

#: Two files that are alike up to here are of the same stream.
HEAD_BYTES = 1 << 16


class LiveFolder:
    """The live files of one job, until they are shut. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Prepare; nothing is made.

        Args:
            folder: Of the job's output.
            max_bytes: Most of one stream that is kept; 0 for all.
        """
        self.max_bytes = max_bytes
        self._folder = folder
        self._lock = threading.Lock()
        self._is_shut = False

    def open(self, worker: int, stream: str) -> int | None:
        """Return the open file of a stream; None once they are shut.

        Raises:
            OSError: It can't be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._lock:
            if self._is_shut:
                return None
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return os.open(self._folder / f"{worker}.{stream}{LIVE_SUFFIX}", flags, 0o600)

    def put(self, fd: int, raw: bytes | memoryview, at: int) -> bool:
        """Write bytes where they belong; return False, with nothing written, once they are shut.

        Raises:
            OSError: They can't be written.
        """
        with self._lock:
            if self._is_shut:
                return False
            while raw:
                count = os.pwrite(fd, raw, at)
                raw, at = raw[count:], at + count
            return True

    def shut(self) -> None:
        """Let nothing be made or written any more, from the return on."""
        with self._lock:
            self._is_shut = True

    def end_of(self, worker: int, stream: str, max_bytes: int) -> bytes:
        """Return the last bytes of a stream."""
        path = self._folder / f"{worker}.{stream}{LIVE_SUFFIX}"
        with contextlib.suppress(OSError), path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            return file.read(max_bytes)
        return b""


class Tail:
    """One container that is followed: a `Sink` for one thread at a time.

    Attributes:
        view: Of its job, when it was first seen to have started.
        index, worker: Its place among the view's workers, and its name.
        reading: Ends the reading that goes on.
        is_unwanted: Set once nothing more is to be read of it.
        is_over: Whether the container is known to have ended.
        has_news: Whether the reading that goes on has brought what was not known.
        is_behind: Whether it is to be read up to now before it is followed.
        is_abreast: Whether that was done, and it has been followed ever since.
    """

    def __init__(self, folder: LiveFolder, view: View, index: int) -> None:
        self.view = view
        self.index = index
        self.worker = view.workers[index].name
        self.reading = Halt()
        self.is_unwanted = threading.Event()
        self.is_over = False
        self.has_news = False
        self.is_behind = False
        self.is_abreast = False
        self._folder = folder
        self._files: dict[str, int] = {}
        self._at: dict[str, int] = {}  # {stream: bytes that this reading has brought}
        self._done: dict[str, int] = {}  # {stream: bytes that are in the file}
        self._left: dict[str, int] = {}  # {stream: bytes that a former daemon has put there}

    def begin(self) -> None:
        """Begin to read it from its first byte."""
        self._at.clear()
        self.has_news = False
        self.reading = Halt()
        if self.is_unwanted.is_set():
            self.reading.set()

    def over(self) -> None:
        """Learn that the container has ended: what goes on waiting for it is to be read anew."""
        if not self.is_over:
            self.is_over = True
            self.reading.set()

    def catch_up(self) -> None:
        """Have it read up to now; what goes on waiting for more is to be read anew."""
        if not self.is_behind:
            self.is_behind = True
            self.reading.set()

    def end(self) -> None:
        """Have nothing more read of it; from any thread."""
        self.is_unwanted.set()
        self.reading.set()

    def write(self, worker: int, stream: str, raw: bytes) -> None:
        """Write what is not in the file yet; see `Sink`. Past the cap it ends."""
        at, done = self._at.get(stream, 0), self._done.get(stream, 0)
        self._at[stream] = at + len(raw)
        if self.is_unwanted.is_set() or not self._is_same(stream, raw, at, done):
            return
        fresh = memoryview(raw)[max(0, done - at) :]
        room = self._folder.max_bytes - max(at, done)
        if self._folder.max_bytes and len(fresh) > room:
            fresh = fresh[:room]
            self.end()
        if not fresh:
            return
        if not self._put(stream, fresh, max(at, done)):
            self.end()
            return
        self._done[stream] = max(at, done) + len(fresh)
        self.has_news = True

    def close(self) -> None:
        """Close the files; they are opened anew when they are needed."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _put(self, stream: str, raw: memoryview, at: int) -> bool:
        fd = self._fd(stream)
        return fd is not None and self._folder.put(fd, raw, at)

    def _fd(self, stream: str) -> int | None:
        fd = self._files.get(stream)
        if fd is None:
            fd = self._folder.open(self.index, stream)
            if fd is not None:
                self._files[stream] = fd
        return fd

    def _is_same(self, stream: str, raw: bytes, at: int, done: int) -> bool:
        """Say whether a stream is as it was: an engine may have dropped its beginning."""
        fd = self._fd(stream)
        if fd is None:
            return True  # which `write` finds out
        if stream not in self._left:
            self._left[stream] = 0 if done else os.fstat(fd).st_size
        # Its own file is looked at where it begins; that of a former daemon all along.
        known = raw[:done] if done and not at else raw[: max(0, self._left[stream] - at)]
        kept = os.pread(fd, len(known), at) if known else b""
        if kept == known:
            return True
        differs = next(
            i for i, pair in enumerate(zip(kept, known, strict=True)) if len({*pair}) > 1
        )
        if not kept[differs:].strip(b"\0"):
            return True  # a machine that stopped may leave zeros where it had not written yet
        _log.warning("the beginning of what %s prints is gone; it is not followed", self.worker)
        self.end()
        return False


def settle(folder: Path) -> None:
    """Remove the live files of a job that has ended, behind its final ones.

    One that goes on where the final file breaks off takes its place: the engine has lost what it
    had. Where the engine has lost the beginning, the final file with its end is worth more.
    """
    for live in folder.glob("*" + LIVE_SUFFIX):
        final = live.with_suffix("")
        try:
            if not _goes_on(live, final):
                live.unlink()
                continue
            with contextlib.suppress(FileNotFoundError):
                write_gap(os.fsencode(final), None)
            live.replace(final)
        except OSError as exc:
            _log.warning("%s can't be put in its place: %s", live, exc)


def _goes_on(live: Path, final: Path) -> bool:
    """Return whether one file is longer than another, and begins alike."""
    with live.open("rb") as longer:
        size = longer.seek(0, os.SEEK_END)
        longer.seek(0)
        try:
            with final.open("rb") as shorter:
                head = shorter.read(HEAD_BYTES)
                is_longer = size > shorter.seek(0, os.SEEK_END)
        except FileNotFoundError:
            return size > 0
        return is_longer and longer.read(len(head)) == head
