"""Which jobs a request with `key` and `value` is about, and how their progress is shown."""

from __future__ import annotations

from typing import Any

from pman.actions.base import ActionContext, ActionRequest, QuickMeta
from pman.backends import base
from pman.job.record import Job
from pman.jobdb import view

#: Jobs of one jid that `status` shows without being a burden to others.
FEW_JOBS = 16


def select(request: ActionRequest, context: ActionContext, action: str) -> list[Job]:
    """Return the jobs whose leaf `key` equals `value`, same type and value, in record order.

    Raises:
        RequestError: `key` or `value` is missing, or `key` is not a string.
    Source: WIRE.md 4.3.
    """
    key = request.text("key", action)
    return context.store.find(key, request.need("value", action))


def is_one_look(meta: QuickMeta, context: ActionContext) -> bool:
    """Return whether `select` is one look into an index, and finds few host jobs or none."""
    if meta.key != "jid" or not isinstance(meta.value, str):
        return False
    jobs = context.store.few_with_jid(meta.value, FEW_JOBS)
    return jobs is not None and all(job.container is None for job in jobs)


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
        tree = view.container_tree(job)
        shown[f"{n}.container"] = {
            "jobRoot": job.name,
            "tree": None if tree is None else {job.name: {"container": tree}},
        }
        shown[f"{n}.start"] = {"jobRoot": job.name, "startTrigger": view.start_triggers(job)}
        shown[f"{n}.end"] = {"jobRoot": job.name, "returncode": view.return_codes(job)}
    return shown


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
