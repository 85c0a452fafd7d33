"""Whether a folder may be replaced by a tree: it is free, or holds nothing but what pman wrote."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pman.errors import JobConflict, PmanError, RequestError
from pman.job.record import Job
from pman.jobdb.job22 import BACKEND_LEAVES
from pman.jobdb.leaves import IsFolder, Names, find_other, read_leaf
from pman.jobdb.record_json import UNSPELLABLE, as_kept, is_job_name
from pman.jobdb.view import job_tree
from pman.wire import HOST

#: Marks a tree that pman wrote, and so may replace. Its content is a leaf: 2.2 reads every file.
MARKER = ".pman-tree"

#: Beside the leaves of a job: the whole record, for what 2.2's leaves have no place for.
RECORD = ".record"

#: Folders of a job's tree.
_TOP_FOLDERS = frozenset({"container", "start", "end"})


def check_target(path: Path, db_path: Path | None) -> None:
    """Raise unless `path` may become a tree.

    Args:
        db_path: The job DB, which no tree may lie in or around; None: there is none.
    Raises:
        RequestError: It is no path for a tree (400), or there is something else (409).
    """
    text = str(path)
    if not path.is_absolute() or ".." in path.parts or not path.name:
        raise RequestError(f"dbpath is {text!r}, expected an absolute path", field="dbpath")
    if db_path is not None and _overlap(path, db_path):
        raise JobConflict(
            f"dbpath {text!r} lies in or around the job DB {str(db_path)!r}, expected a folder"
            " elsewhere",
            field="dbpath",
        )
    if path.is_symlink():
        raise JobConflict(f"dbpath {text!r} is a link, expected a folder", field="dbpath")
    if not path.exists():
        return
    if not path.is_dir():
        raise JobConflict(f"dbpath {text!r} is not a folder", field="dbpath")
    foreign = find_foreign(path)
    if foreign is not None:
        raise JobConflict(
            f"dbpath {text!r} holds {foreign} that pman did not write there, expected a new or an"
            " empty folder, or a tree that pman wrote",
            field="dbpath",
        )


def find_foreign(path: Path) -> str | None:
    """Return what is in a folder and not part of a tree that pman wrote; None: nothing is.

    Raises:
        OSError: It cannot be read.
    """
    with os.scandir(path) as found:
        entries = list(found)
    for entry in entries:
        if entry.name == MARKER and entry.is_file(follow_symlinks=False):
            continue
        if not is_job_name(entry.name) or not entry.is_dir(follow_symlinks=False):
            return repr(entry.name)
    if entries and not (path / MARKER).exists():
        return "jobs"
    for entry in entries:
        if entry.name != MARKER:
            other = _find_in_job(path / entry.name)
            if other is not None:
                return repr("/".join((entry.name, *other)))
    return None


def folders_of(job: Job) -> IsFolder:
    """Return what tells folders from leaves that hold objects. Source: WIRE.md 8.2."""
    seen = BACKEND_LEAVES | set(job.extra or {}) if job.backend != HOST else frozenset()

    def is_folder(names: Names) -> bool:
        if names[0] == "container":
            return len(names) == 1 or names[1] not in seen
        return names[0] in _TOP_FOLDERS and len(names) <= 2

    return is_folder


def _overlap(path: Path, db_path: Path) -> bool:
    # Not `Path.resolve`: it raises when links lead in a circle.
    one, other = (Path(os.path.realpath(each)) for each in (path, db_path))
    return one.is_relative_to(other) or other.is_relative_to(one)


def _find_in_job(folder: Path) -> Names | None:
    """Return the names down to what does not follow from the job's record, which comes first."""
    try:
        job = as_kept(msgspec.convert(read_leaf(folder / RECORD), Job))
        tree = job_tree(job, _no_output, is_cumulative=False)
    except (PmanError, msgspec.ValidationError, *UNSPELLABLE):
        return find_other(folder, {}, _never, also=frozenset({RECORD}))
    return find_other(folder, tree, folders_of(job), also=frozenset({RECORD}))


def _never(_names: Names) -> bool:
    return False


def _no_output(_job_name: str, _part: int, _stream: str) -> str:
    return ""
