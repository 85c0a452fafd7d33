"""One file a job: what a shepherd must know of it when the one before it was killed.

A log appears with its first line, lines are appended with one write each and never changed, so that
a kill at any moment leaves a file that reads; power loss may tear one, and the rest is not trusted.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pman.shepherd.protocol import JobRecord, Update, encode

SUFFIX = ".jsonl"
_UNFINISHED = ".claim"

_decode_record = msgspec.json.Decoder(JobRecord).decode
_decode_update = msgspec.json.Decoder(Update).decode


class JobLogs:
    """The logs of all jobs of one shepherd."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)

    def claim(self, record: JobRecord) -> bool:
        """Begin the log of a job, before anything of it is started.

        Returns:
            False when there is one already: somebody has started the job, or tried to.
        Raises:
            OSError: It can't be written; nothing is left of it.
        """
        path = self._path(record.name)
        if os.path.lexists(path):
            return False
        # A log that appeared before its first line would be a claim that says nothing. Nobody else
        # makes logs here: the lock of the place is ours.
        unfinished = f"{path}{_UNFINISHED}"
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_line(fd, encode(record))
            os.rename(unfinished, path)  # noqa: PTH104, hot
        except OSError:
            os.unlink(unfinished)
            raise
        finally:
            os.close(fd)
        return True

    def append(self, update: Update) -> None:
        """Add a change to the log of a job.

        Raises:
            OSError: It can't be written; the log is as before, or has a torn last line.
        """
        fd = os.open(self._path(update.name), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            _write_line(fd, encode(update))
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        """Remove the log of a job; nothing there is not an error."""
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            return

    def load(self) -> tuple[list[JobRecord], list[str]]:
        """Read what former shepherds left.

        Returns:
            The jobs as they stood, and the names of logs that can't be read at all. Claims that
            were never finished are removed: nothing was started of them.
        """
        records: list[JobRecord] = []
        broken: list[str] = []
        for entry in os.scandir(self._folder):
            if entry.name.endswith(_UNFINISHED):
                os.unlink(entry.path)
            if not entry.name.endswith(SUFFIX):
                continue
            try:
                records.append(_read(entry.path))
            except (OSError, msgspec.MsgspecError):
                broken.append(entry.name.removesuffix(SUFFIX))
        return records, broken

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}{SUFFIX}"


def _read(path: str) -> JobRecord:
    with open(path, "rb") as file:
        first, *rest = file.read().split(b"\n")
    record = _decode_record(first)
    for line in rest[:-1]:  # what follows the last newline is torn, or nothing
        try:
            record.apply(_decode_update(line))
        except msgspec.MsgspecError:
            break  # torn by power loss, and written on; what follows can't be trusted
    return record


def _write_line(fd: int, raw: bytes) -> None:
    """Write a line whole.

    Raises:
        OSError: No space, or less was taken than the whole line.
    """
    line = raw + b"\n"
    if os.write(fd, line) != len(line):
        raise OSError("the line was cut short")
