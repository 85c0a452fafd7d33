"""Which jobs a request with `key` and `value` is about, and how their progress is shown."""

from __future__ import annotations

from typing import Any

from pman.actions.base import ActionContext, ActionRequest
from pman.backends import base
from pman.job.record import Job
from pman.jobdb import view
from pman.wire import HOST

Entry = dict[str, Any]

#: Jobs whose entries are kept.
MAX_SHOWN = 1024

#: Jobs of one jid that `status` shows without being a burden to others.
FEW_JOBS = 16


def select(request: ActionRequest, context: ActionContext, action: str) -> list[Job]:
    """Return the jobs whose leaf `key` equals `value`, same type and value, in record order.

    Raises:
        RequestError: `key` or `value` is missing, or `key` is not a string.
    Source: WIRE.md 4.3.
    """
    if request.found is not None:
        return request.found
    key = request.text("key", action)
    return context.store.find(key, request.need("value", action))


def is_one_look(request: ActionRequest, context: ActionContext) -> bool:
    """Return whether `select` is one look into an index, and finds few host jobs or none."""
    value = request.meta.get("value")
    if request.meta.get("key") != "jid" or not isinstance(value, str):
        return False
    jobs = context.store.few_with_jid(value, FEW_JOBS)
    if jobs is None:
        return False
    for job in jobs:  # a generator costs more than the look itself
        if job.backend != HOST:
            return False
    request.found = jobs
    return True


def discard(job: Job, context: ActionContext) -> None:
    """Remove what a final job has left with its backend and in files.

    Raises:
        PmanError: The backend can't remove it now.
        OSError: A file can't be removed.
    """
    base.discard(job, context.backends, context.output)


def progress(jobs: list[Job]) -> dict[str, Any]:
    """Return the `n.container`, `n.start`, `n.end` entries of `done` and `status`.

    Source: WIRE.md 4.4; the order of the keys differs when nothing matched.
    """
    if not jobs:
        return {
            "-1.start": {"jobRoot": None, "startTrigger": None},
            "-1.end": {"jobRoot": None, "returncode": None},
            "-1.container": {"jobRoot": None, "tree": None},
        }
    shown: dict[str, Any] = {}
    for n, job in enumerate(jobs):
        container, start, end = _entries(job)
        shown[f"{n}.container"] = container
        shown[f"{n}.start"] = start
        shown[f"{n}.end"] = end
    return shown


#: Entries of the jobs that were asked for last, by name; a changed record is another object.
_shown_last: dict[str, tuple[Job, tuple[Entry, Entry, Entry]]] = {}


def _entries(job: Job) -> tuple[Entry, Entry, Entry]:
    """Return the `container`, `start` and `end` entry of a job; to be read only.

    Clients ask for the same job every second or so, and most times nothing has changed.
    """
    known = _shown_last.get(job.name)
    if known is not None and known[0] is job:
        return known[1]
    tree = view.container_tree(job)
    shown_tree = None if tree is None else {job.name: {"container": tree}}
    entries: tuple[Entry, Entry, Entry] = (
        {"jobRoot": job.name, "tree": shown_tree},
        {"jobRoot": job.name, "startTrigger": view.start_triggers(job)},
        {"jobRoot": job.name, "returncode": view.return_codes(job)},
    )
    if len(_shown_last) >= MAX_SHOWN:
        _shown_last.clear()
    _shown_last[job.name] = job, entries
    return entries


def report(jobs: list[Job], context: ActionContext) -> dict[str, Any]:
    """Return the `d_ret` of `status`: progress, one word per job, and the containers' logs.

    Source: WIRE.md 9.
    """
    shown = progress(jobs)
    shown["l_status"] = [view.status_word(job) for job in jobs]
    shown["l_logs"] = [
        text
        for job in jobs
        if (backend := context.backends.get(job.backend)) is not None
        for text in backend.logs(job)
    ]
    return shown
