"""Which jobs a request with `key` and `value` is about, and how their progress is shown."""

from __future__ import annotations

from typing import Any, NamedTuple

from pman.actions.base import ActionContext, ActionRequest
from pman.backends import base
from pman.job.record import Job, as_backend_sees, past_try
from pman.jobdb import view
from pman.wire import HOST

Entry = dict[str, Any]

#: Jobs whose entries are kept, and characters of what their containers have printed.
MAX_SHOWN = 1024
MAX_SHOWN_CHARACTERS = 16 * 1024 * 1024

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
    request.found = context.store.find(key, request.need("value", action))
    return request.found


def is_one_look(request: ActionRequest, context: ActionContext) -> bool:
    """Return whether `select` is one look into an index, and finds few jobs that memory can show.

    What a container job that has ended has printed is read from files the first time.
    """
    value = request.meta.get("value")
    if request.meta.get("key") != "jid" or not isinstance(value, str):
        return False
    jobs = context.store.few_with_jid(value, FEW_JOBS)
    if jobs is None:
        return False
    for job in jobs:  # a generator costs more than the look itself
        if job.backend != HOST and _is_over(job) and not _shown_last.holds(job):
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


class _Shown(NamedTuple):
    """How a job is shown; to be read only.

    Attributes:
        job: The record that it shows.
        container, start, end: Its entries in `done` and `status`.
        logs: Its entries in `l_logs`; None: its backend has to be asked each time.
    """

    job: Job
    container: Entry
    start: Entry
    end: Entry
    logs: list[str] | None


class _ShownLast:
    """How the jobs are shown that were asked for last; a changed record is another object.

    Clients ask for the same job every second or so, and most times nothing has changed.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Shown] = {}
        self._room = MAX_SHOWN_CHARACTERS

    def holds(self, job: Job) -> bool:
        """Return whether `find` would find it."""
        return self.find(job) is not None

    def find(self, job: Job) -> _Shown | None:
        """Return what was kept for this very record."""
        known = self._kept.get(job.name)
        return known if known is not None and known.job is job else None

    def keep(self, shown: _Shown) -> None:
        """Keep how a job is shown, unless what it has printed is long."""
        size = sum(map(len, shown.logs or ()))
        if size > MAX_SHOWN_CHARACTERS // 16:
            return
        if len(self._kept) >= MAX_SHOWN or size > self._room:
            self._kept = {}
            self._room = MAX_SHOWN_CHARACTERS
        self._kept[shown.job.name] = shown
        self._room -= size


_shown_last = _ShownLast()


def progress(jobs: list[Job], context: ActionContext) -> dict[str, Any]:
    """Return the `n.container`, `n.start`, `n.end` entries of `done` and `status`.

    Source: WIRE.md 4.4; the order of the keys differs when nothing matched.
    """
    return _entries([_show(job, context) for job in jobs])


def _entries(jobs: list[_Shown]) -> dict[str, Any]:
    if not jobs:
        return {
            "-1.start": {"jobRoot": None, "startTrigger": None},
            "-1.end": {"jobRoot": None, "returncode": None},
            "-1.container": {"jobRoot": None, "tree": None},
        }
    entries: dict[str, Any] = {}
    for n, shown in enumerate(jobs):
        entries[f"{n}.container"] = shown.container
        entries[f"{n}.start"] = shown.start
        entries[f"{n}.end"] = shown.end
    return entries


def _show(job: Job, context: ActionContext) -> _Shown:
    known = _shown_last.find(job)
    if known is not None:
        return known
    tree = view.container_tree(job, context.output.read_text)
    shown = _Shown(
        job,
        {
            "jobRoot": job.name,
            "tree": None if tree is None else {job.name: {"container": tree}},
        },
        {"jobRoot": job.name, "startTrigger": view.start_triggers(job)},
        {"jobRoot": job.name, "returncode": view.return_codes(job)},
        _ask_for_logs(job, context) if _is_over(job) or job.backend == HOST else None,
    )
    _shown_last.keep(shown)
    return shown


def _ask_for_logs(job: Job, context: ActionContext) -> list[str]:
    backend = context.backends.get(job.backend)
    if backend is None:
        return []
    shown = job.shown_attempt
    return backend.logs(past_try(job, shown) if shown else as_backend_sees(job))


def _is_over(job: Job) -> bool:
    """Return whether the try that is shown has ended, so that files hold what it has printed."""
    return job.state.is_final or job.shown_attempt > 0


def report(jobs: list[Job], context: ActionContext) -> dict[str, Any]:
    """Return the `d_ret` of `status`: progress, one word per job, and the containers' logs.

    Source: WIRE.md 9.
    """
    shown = [_show(job, context) for job in jobs]  # once: what is long is read from files each time
    entries = _entries(shown)
    entries["l_status"] = [view.status_word(job) for job in jobs]
    logs: list[str] = []
    for each in shown:
        logs += _ask_for_logs(each.job, context) if each.logs is None else each.logs
    entries["l_logs"] = logs
    if any(job.progress is not None for job in jobs):
        entries["l_progress"] = [
            None if job.progress is None else {"share": job.progress, "text": job.progress_text}
            for job in jobs
        ]
    return entries
