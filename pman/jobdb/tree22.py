"""Jobs as a tree of files in the layout of 2.2: export to and import from a folder.

The folder is named by a client, so nothing that pman did not write itself is ever replaced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pman.errors import JobConflict, PmanError, SnapshotError, UnknownJob
from pman.job.record import Job
from pman.jobdb.exchange import former_path, new_path, put_in_place
from pman.jobdb.job22 import Output, job_from_leaves, job_from_record, output_of
from pman.jobdb.leaves import read_folder, read_leaf, write_folder, write_leaf
from pman.jobdb.record_json import as_kept, is_job_name, scrub
from pman.jobdb.treecheck import MARKER, RECORD, check_target, find_foreign, folders_of
from pman.jobdb.view import ReadOutput, job_tree
from pman.output import OutputFiles

_log = logging.getLogger(__name__)

_writing = threading.Lock()
_busy: set[Path] = set()  # trees that are being written by this process


def export_tree(
    jobs: Iterable[Job], path: Path, read_output: ReadOutput, *, db_path: Path | None = None
) -> None:
    """Write jobs in 2.2's layout; a crash leaves the former tree or the new one.

    Args:
        jobs: Those that the tree is to hold.
        path: Absolute; nothing, an empty folder, or a tree that pman wrote.
        db_path: The job DB, which the tree must lie neither in nor around.
    Raises:
        RequestError: `path` is not one that may be written (400), or holds something else (409).
        SnapshotError: The disk would not take it; what was there is untouched.
    Source: WIRE.md 11 and ARCHITECTURE, row 4.7.
    """
    with _reserved(path):
        try:
            check_target(path, db_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = new_path(path)
            for left in (new, former_path(path)):
                if left.exists():
                    check_target(left, db_path)  # of a crashed pman that had our pid
                    shutil.rmtree(left)
            try:
                _write(jobs, new, read_output)
                former = put_in_place(new, path)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            if former is not None:
                _remove_former(former, path)
        except OSError as exc:
            raise SnapshotError(
                f"dbpath {str(path)!r} cannot be written: {exc.strerror or exc}", field="dbpath"
            ) from exc


def clear_tree(path: Path, *, db_path: Path | None = None) -> None:
    """Make `path` an empty tree; see `export_tree`."""
    export_tree((), path, lambda _name, _part, _stream: "", db_path=db_path)


def import_tree(path: Path, output: OutputFiles, now: Callable[[], float] = time.time) -> list[Job]:
    """Read the jobs of a tree, in the order of their names, which is that of time.

    A job that had not finished becomes LOST. One with a damaged file, or one that a later start
    could not read, is logged and left out.

    Args:
        path: A tree that 2.2 or `export_tree` wrote.
        output: Takes what the jobs printed; a file that is there already stays.
        now: UTC epoch seconds.
    Raises:
        UnknownJob: There is no such folder.
        SnapshotError: It cannot be read, or output cannot be written.
    """
    jobs = []
    imported_at = now()
    for name in _job_names(path):
        try:
            job, printed = _read_job(path / name, name)
            job = as_kept(msgspec.structs.replace(job, imported_at=imported_at))
        except (OSError, ValueError, OverflowError, msgspec.ValidationError, PmanError) as exc:
            _log.error("job %s in %s is left out: %s", name, path, exc)
            continue
        _keep_output(job, printed, output)
        jobs.append(job)
    return jobs


def is_tree(path: Path) -> bool:
    """Return whether a folder holds jobs, or was written by us when there were none."""
    return path.is_dir() and ((path / MARKER).exists() or holds_jobs(path))


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


def _write(jobs: Iterable[Job], path: Path, read_output: ReadOutput) -> None:
    path.mkdir(mode=0o700)
    write_leaf(path / MARKER, {"format": 1})  # first, so that a half-written tree is ours too
    for job in jobs:
        folder = path / job.name
        folder.mkdir(mode=0o700)
        write_leaf(folder / RECORD, scrub(msgspec.to_builtins(job)))  # first: tells what is ours
        write_folder(folder, job_tree(job, read_output), folders_of(job))
    os.sync()  # one call instead of one per file: thousands of them must be safe before the swap


def _remove_former(former: Path, path: Path) -> None:
    """Remove the tree that `path` was, or put it back if somebody has put something into it.

    Raises:
        JobConflict: Somebody has; says where the former tree is.
        OSError: It cannot be looked at, or not be removed.
    """
    foreign = find_foreign(former)
    if foreign is None:
        shutil.rmtree(former)
        return
    text = f"dbpath {str(path)!r} got {foreign} while it was written again"
    try:
        if former == former_path(path):
            former = former.replace(new_path(path))
        new = put_in_place(former, path)
        if new is not None and find_foreign(new) is None:
            shutil.rmtree(new)
    except OSError as exc:
        _log.error("%s cannot be put back: %s", former, exc)
        raise JobConflict(f"{text}; the former tree is in {str(former)!r}", field="dbpath") from exc
    raise JobConflict(f"{text}; it is left as it was", field="dbpath")


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
            path = output.path(job.shown_run_name, part, stream)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(text.encode("utf-8", "replace"))
    except FileExistsError:
        return  # this job is here already, with more of its output than a tree may hold
    except OSError as exc:
        raise SnapshotError(f"output of job {job.name} cannot be kept: {exc.strerror}") from exc
