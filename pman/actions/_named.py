"""Which jobs a request is about that names them by `jid` or by `job`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from pman.actions.base import ActionContext
from pman.errors import RequestError, UnknownJob, shown
from pman.job.record import Job

#: Most jobs that one request may name, and most that it may mean: many may have one id.
MAX_NAMES = 1000

#: What a job id, a user or a label may be sent as: a number stands for its text, as in `run`.
JobId = str | int | float

JobIds = Annotated[
    JobId | Annotated[list[JobId], msgspec.Meta(max_length=MAX_NAMES)] | None,
    msgspec.Meta(description="job id, or several; all jobs that have it"),
]
JobNames = Annotated[
    str | Annotated[list[str], msgspec.Meta(max_length=MAX_NAMES)] | None,
    msgspec.Meta(description="name of a job (`id` in the REST API), or several"),
]


def named(jid: JobIds, job: JobNames, context: ActionContext) -> list[Job]:
    """Return the jobs that have one of these ids or names, each once, oldest first for one id.

    Raises:
        RequestError: Neither or both are given, or more jobs are meant than one request may be
            about.
        UnknownJob: There is none for one of them; names it.
    """
    check_one(jid, job)
    found: dict[str, Job] = {}
    for wanted in _each(jid):
        matches = context.store.find("jid", str(wanted))
        if not matches:
            raise UnknownJob(f"there is no job with the id {shown(wanted)}", field="jid")
        found |= {each.name: each for each in matches}
    if len(found) > MAX_NAMES:
        raise RequestError(
            f"jid is {shown(jid)}, which {len(found)} jobs have, expected at most {MAX_NAMES}; name"
            " them with job",
            field="jid",
        )
    for name in _each(job):
        match = context.store.get(str(name))
        if match is None:
            raise UnknownJob(f"there is no job {shown(name)}", field="job")
        found[match.name] = match
    return list(found.values())


def check_one(jid: object, job: object) -> None:
    """Refuse a request that says in no way, or in both, which jobs it is about.

    Raises:
        RequestError: Neither or both are given.
    """
    if jid is None and job is None:
        raise RequestError("jid and job are both missing, expected one of them", field="jid")
    if jid is not None and job is not None:
        raise RequestError("jid and job are both given, expected one of them", field="job")


def newest(jid: JobId, context: ActionContext) -> Job | None:
    """Return the newest job with an id."""
    text = str(jid)
    # The store takes "" for any.
    return next((job for job in context.store.newest_first(jid=text) if job.jid == text), None)


def _each(given: JobId | Iterable[JobId] | None) -> Iterable[JobId]:
    if given is None:
        return ()
    return (given,) if isinstance(given, JobId) else dict.fromkeys(given)
