"""Save, load and clear: what `DBctl` and the PUT form have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pman.actions._selection import discard
from pman.actions.base import SNAPSHOT_TIMEOUT_S, ActionContext, ActionRequest
from pman.errors import PmanError, RequestError, SnapshotError, UnknownJob, shown
from pman.job.record import Job
from pman.jobdb import tree22

_log = logging.getLogger(__name__)

#: Which jobs take part; None: all of them.
Selection = list[Job] | None


def operate(
    operation: object, request: ActionRequest, context: ActionContext, selection: Selection = None
) -> None:
    """Carry out `save`, `load` or `clear`; any other word is ignored, as in 2.2.

    Args:
        operation: Word of the client.
        request: Its `dbpath` and `fileio` are read.
        selection: Jobs that take part in `save` and `clear`; None: all, as always with `load`.
    Raises:
        RequestError: `dbpath` or `fileio` can't be used; names the field.
        UnknownJob: `load` of a folder that is not there, or holds no job DB.
        SnapshotError: The disk would not take it, or would not let go of what jobs have left.
    """
    perform = OPERATIONS.get(operation) if isinstance(operation, str) else None
    path = _dbpath(request)
    _check_fileio(request)
    if perform is not None:
        perform(path, context, selection)


def _save(path: Path | None, context: ActionContext, selection: Selection) -> None:
    if path is None or path == context.settings.db_path:
        if selection is not None:
            raise RequestError(
                "a part of the job DB cannot be saved over the whole; name another dbpath",
                field="dbpath",
            )
        context.snapshots.save_now(SNAPSHOT_TIMEOUT_S)
        return
    jobs = context.store.jobs() if selection is None else selection
    tree22.export_tree(jobs, path, context.output.read_text, db_path=context.settings.db_path)


def _load(path: Path | None, context: ActionContext, selection: Selection) -> None:
    if path is None or path == context.settings.db_path:
        return  # what is in memory is what is there: every change is written as it happens
    if not tree22.is_tree(path):
        raise UnknownJob(
            f"dbpath {str(path)!r} is no folder with a job DB in it, which load needs",
            field="dbpath",
        )
    jobs = tree22.import_tree(path, context.output, context.now)
    gone = context.store.replace_finished(jobs)
    _check_all_left(_discard(gone, context), gone)


def _clear(path: Path | None, context: ActionContext, selection: Selection) -> None:
    if path is not None and path != context.settings.db_path:
        tree22.clear_tree(path, db_path=context.settings.db_path)
    gone = context.store.clear(selection)
    failures = _discard(gone, context)
    context.snapshots.save_now(SNAPSHOT_TIMEOUT_S)
    _check_all_left(failures, gone)


def _discard(jobs: list[Job], context: ActionContext) -> int:
    """Remove what is left of jobs that the store has forgotten; return of how many it stays."""
    failures = 0
    for job in jobs:
        try:
            discard(job, context)
        except (PmanError, OSError) as exc:
            _log.error("what job %s has left stays: %s", job.name, exc)
            failures += 1
    return failures


def _check_all_left(failures: int, jobs: list[Job]) -> None:
    """Raise if something has stayed."""
    if failures:
        raise SnapshotError(
            f"{len(jobs)} jobs are forgotten, but what {failures} of them have left could not be"
            " removed; the log says why, and the next start tries again",
            hint=500,
        )


OPERATIONS: dict[str, Callable[[Path | None, ActionContext, Selection], None]] = {
    "save": _save,
    "load": _load,
    "clear": _clear,
}


def _dbpath(request: ActionRequest) -> Path | None:
    if "dbpath" not in request.meta:
        return None
    path = request.text("dbpath", "DBctl")
    if not path.startswith("/") or "\0" in path:
        raise RequestError(f"dbpath is {shown(path)}, expected an absolute path", field="dbpath")
    return Path(path)


def _check_fileio(request: ActionRequest) -> None:
    fileio = request.meta.get("fileio", "json")
    if fileio != "json":
        raise RequestError(f"fileio is {shown(fileio)}, expected 'json'", field="fileio")
