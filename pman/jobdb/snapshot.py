"""`SnapshotFolder`: the readable snapshot, one file a job; what `pman.db` is rebuilt from."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pman.errors import SnapshotError
from pman.job.record import Job
from pman.jobdb.private import write_private
from pman.jobdb.record_json import check_moments, is_job_name, scrub

_log = logging.getLogger(__name__)

#: Folder of the snapshot within the DBpath.
SNAPSHOT_NAME = "jobs"

#: Layout of the files.
FORMAT = 1

#: Of a file that is being written; a crash may leave one.
_UNFINISHED = ".tmp"

#: The beginning of a file tells its revision, so that a start need not read all of it.
_HEAD = re.compile(rb'\{\s*"format":\s*1,\s*"revision":\s*([0-9]+),')
_HEAD_BYTES = 80


class _File(msgspec.Struct):
    """What a start needs of one file; `tree` is for people."""

    format: int
    record: Job


_decode = msgspec.json.Decoder(_File).decode


class SnapshotFolder:
    """`<root>/<yyyymmdd>/<job folder name>.json`. Each file is replaced as a whole or not at all.

    The truth is `pman.db`, which is synced at every commit. So these files are not: what a loss of
    power tears is told by its JSON, and matters only if `pman.db` is lost as well.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return the file of a job.

        Raises:
            SnapshotError: The name is not one that may become a path.
        """
        if not is_job_name(name):
            raise SnapshotError(f"{name!r} is not a job name")
        return self.root / name[:8] / f"{name}.json"

    def write(self, job: Job, tree: dict[str, Any]) -> None:
        """Replace the file of one job.

        Args:
            tree: Its 2.2 tree.
        Raises:
            SnapshotError: Not written; the former file is untouched.
        """
        path = self.path(job.name)
        raw = _encode(job, tree)
        unfinished = path.with_name(f".{path.name}{_UNFINISHED}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                write_private(unfinished, raw)
                unfinished.replace(path)
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
        except OSError as exc:
            raise SnapshotError(f"the snapshot {path} cannot be written: {exc.strerror}") from exc

    def remove(self, name: str) -> None:
        """Remove the file of one job, and its folder when that is empty; not there is fine.

        Raises:
            SnapshotError: It cannot be removed.
        """
        path = self.path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise SnapshotError(f"the snapshot {path} cannot be removed: {exc.strerror}") from exc
        with contextlib.suppress(OSError):  # not empty, or gone already
            path.parent.rmdir()

    def revisions(self) -> dict[str, int]:
        """Return which revision of each job is here; what a crash left half-written is removed.

        Raises:
            SnapshotError: The folder cannot be read.
        """
        found: dict[str, int] = {}
        for entry in self._files():
            if entry.name.endswith(_UNFINISHED):
                with contextlib.suppress(OSError):  # it is in nobody's way
                    os.unlink(entry.path)
                continue
            try:
                with open(entry.path, "rb") as file:
                    head = _HEAD.match(file.read(_HEAD_BYTES))
            except OSError:
                continue  # as if it were not there: it will be written again
            if head is not None:
                found[entry.name.removesuffix(".json")] = int(head[1])
        return found

    def read_all(self) -> list[Job]:
        """Return the jobs, in order of acceptance; files that can't be read are logged and kept.

        Raises:
            SnapshotError: The folder cannot be read.
        """
        jobs = []
        for entry in self._files():
            if entry.name.endswith(_UNFINISHED):
                continue
            try:
                jobs.append(_read(entry))
            except SnapshotError as exc:
                _log.error("the snapshot %s is left out: %s", entry.path, exc)
        return sorted(jobs, key=lambda job: (job.accepted_at, job.name))

    def _files(self) -> Iterator[os.DirEntry[str]]:
        try:
            for day in _scan(self.root):
                if day.is_dir(follow_symlinks=False):
                    for entry in _scan(day.path):
                        if entry.is_file(follow_symlinks=False) and _is_ours(entry.name):
                            yield entry
        except OSError as exc:
            raise SnapshotError(f"{self.root} cannot be read: {exc.strerror}") from exc


def _is_ours(file_name: str) -> bool:
    bare = file_name.removesuffix(_UNFINISHED).removeprefix(".")
    return bare.endswith(".json") and is_job_name(bare.removesuffix(".json"))


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _read(entry: os.DirEntry[str]) -> Job:
    try:
        with open(entry.path, "rb") as file:
            held = _decode(file.read())
    except (OSError, msgspec.DecodeError, RecursionError) as exc:
        raise SnapshotError(str(exc)) from exc
    if held.format != FORMAT or f"{held.record.name}.json" != entry.name:
        raise SnapshotError(f"it holds format {held.format} of {held.record.name!r}")
    check_moments(held.record)
    return held.record


def _encode(job: Job, tree: dict[str, Any]) -> bytes:
    document = {"format": FORMAT, "revision": job.revision, "record": job, "tree": tree}
    try:
        raw = msgspec.json.encode(document)
    except UnicodeEncodeError:
        raw = msgspec.json.encode(scrub(msgspec.to_builtins(document)))
    except RecursionError as exc:
        raise SnapshotError(f"job {job.name} is nested too deeply for a snapshot") from exc
    return msgspec.json.format(raw, indent=1)
