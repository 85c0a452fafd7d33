"""Jobs as a tree of files in the layout of 2.2: export to and import from a folder.

The folder is named by a client, so nothing that pman did not write itself is ever replaced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pman.errors import JobConflict, RequestError, SnapshotError, UnknownJob
from pman.job.record import Job
from pman.jobdb.exchange import former_path, new_path, put_in_place
from pman.jobdb.job22 import BACKEND_LEAVES, Output, job_from_leaves, job_from_record, output_of
from pman.jobdb.leaves import IsFolder, Names, read_folder, read_leaf, write_folder, write_leaf
from pman.jobdb.record_json import is_job_name, scrub
from pman.jobdb.subjobs import HOST
from pman.jobdb.view import ReadOutput, job_tree
from pman.output import OutputFiles

_log = logging.getLogger(__name__)

#: Marks a tree that pman wrote, and so may replace. Its content is a leaf: 2.2 reads every file.
MARKER = ".pman-tree"

#: Beside the leaves of a job: the whole record, for what 2.2's leaves have no place for.
RECORD = ".record"

#: What a job's `container/` folder holds beyond the block as sent.
_TOP_FOLDERS = frozenset({"container", "start", "end"})

_writing = threading.Lock()
_busy: set[Path] = set()  # trees that are being written by this process


def export_tree(jobs: Iterable[Job], path: Path, read_output: ReadOutput) -> None:
    """Write jobs in 2.2's layout; a crash leaves the former tree or the new one.

    Args:
        jobs: Those that the tree is to hold.
        path: Absolute; nothing, an empty folder, or a tree that pman wrote.
    Raises:
        RequestError: `path` is not one that may be written (400), or holds something else (409).
        SnapshotError: The disk would not take it; what was there is untouched.
    Source: WIRE.md 11 and ARCHITECTURE, row 4.7.
    """
    with _reserved(path):
        try:
            _check_target(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = new_path(path)
            for left in (new, former_path(path)):
                if left.exists():
                    _check_target(left)  # of a crashed pman that had our pid
                    shutil.rmtree(left)
            try:
                _write(jobs, new, read_output)
                former = put_in_place(new, path)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            if former is not None:
                shutil.rmtree(former)
        except OSError as exc:
            raise SnapshotError(
                f"dbpath {str(path)!r} cannot be written: {exc.strerror or exc}", field="dbpath"
            ) from exc


def clear_tree(path: Path) -> None:
    """Make `path` an empty tree; see `export_tree`."""
    export_tree((), path, lambda _name, _part, _stream: "")


def import_tree(path: Path, output: OutputFiles) -> list[Job]:
    """Read the jobs of a tree, in the order of their names, which is that of time.

    A job that had not finished becomes LOST. One with a damaged file is logged and left out.

    Args:
        path: A tree that 2.2 or `export_tree` wrote.
        output: Takes what the jobs printed; a file that is there already stays.
    Raises:
        UnknownJob: There is no such folder.
        SnapshotError: It cannot be read, or output cannot be written.
    """
    jobs = []
    for name in _job_names(path):
        try:
            job, printed = _read_job(path / name, name)
        except (OSError, ValueError, OverflowError, msgspec.ValidationError) as exc:
            _log.error("job %s in %s is left out: %s", name, path, exc)
            continue
        _keep_output(job, printed, output)
        jobs.append(job)
    return jobs


def holds_jobs(path: Path) -> bool:
    """Return whether there are job folders of 2.2 in a folder."""
    try:
        return bool(_job_names(path, is_quiet=True))
    except (UnknownJob, SnapshotError):
        return False


# --- writing ------------------------------------------------------------------------------


@contextlib.contextmanager
def _reserved(path: Path) -> Iterator[None]:
    """Let one thread at a time write a tree."""
    with _writing:
        if path in _busy:
            raise JobConflict(f"dbpath {str(path)!r} is being written already", field="dbpath")
        _busy.add(path)
    try:
        yield
    finally:
        with _writing:
            _busy.discard(path)


def _check_target(path: Path) -> None:
    """Raise unless `path` is free, or ours.

    Raises:
        RequestError: It is not.
    """
    text = str(path)
    if not path.is_absolute() or ".." in path.parts or not path.name:
        raise RequestError(f"dbpath is {text!r}, expected an absolute path", field="dbpath")
    if path.is_symlink():
        raise JobConflict(f"dbpath {text!r} is a link, expected a folder", field="dbpath")
    if not path.exists():
        return
    if not path.is_dir():
        raise JobConflict(f"dbpath {text!r} is not a folder", field="dbpath")
    names = os.listdir(path)
    foreign = next((name for name in names if name != MARKER and not is_job_name(name)), None)
    if names and (MARKER not in names or foreign is not None):
        what = repr(foreign) if foreign is not None else "jobs"
        raise JobConflict(
            f"dbpath {text!r} holds {what} that pman did not write there, expected a new or an"
            " empty folder, or a tree that pman wrote",
            field="dbpath",
        )


def _write(jobs: Iterable[Job], path: Path, read_output: ReadOutput) -> None:
    path.mkdir(mode=0o700)
    write_leaf(path / MARKER, {"format": 1})  # first, so that a half-written tree is ours too
    for job in jobs:
        write_folder(path / job.name, job_tree(job, read_output), _folders_of(job))
        write_leaf(path / job.name / RECORD, scrub(msgspec.to_builtins(job)))
    os.sync()  # one call instead of one per file: thousands of them must be safe before the swap


def _folders_of(job: Job) -> IsFolder:
    """Return what tells folders from leaves that hold objects. Source: WIRE.md 8.2."""
    seen = BACKEND_LEAVES | set(job.extra or {}) if job.backend != HOST else frozenset()

    def is_folder(names: Names) -> bool:
        if names[0] == "container":
            return len(names) == 1 or names[1] not in seen
        return names[0] in _TOP_FOLDERS and len(names) <= 2

    return is_folder


# --- reading ------------------------------------------------------------------------------


def _job_names(path: Path, *, is_quiet: bool = False) -> list[str]:
    try:
        with os.scandir(path) as entries:
            folders = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise UnknownJob(
            f"dbpath {str(path)!r} is not a folder that could be loaded", field="dbpath"
        ) from exc
    except OSError as exc:
        raise SnapshotError(
            f"dbpath {str(path)!r} cannot be read: {exc.strerror}", field="dbpath"
        ) from exc
    if not is_quiet:
        for name in folders:
            if not is_job_name(name) and not name.startswith("."):
                _log.warning("%r in %s is not a job and is left out", name, path)
    return [name for name in folders if is_job_name(name)]


def _read_job(path: Path, name: str) -> tuple[Job, list[Output]]:
    leaves = read_folder(path)
    record: Any = None
    if (path / RECORD).exists():
        record = read_leaf(path / RECORD)
    if record is None:
        return job_from_leaves(name, leaves)
    job = job_from_record(name, record)
    return job, output_of(leaves)


def _keep_output(job: Job, printed: Iterable[Output], output: OutputFiles) -> None:
    try:
        for part, stream, text in printed:
            if not text:
                continue
            path = output.path(job.name, part, stream)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(text.encode("utf-8", "replace"))
    except FileExistsError:
        return  # this job is here already, with more of its output than a tree may hold
    except OSError as exc:
        raise SnapshotError(f"output of job {job.name} cannot be kept: {exc.strerror}") from exc
