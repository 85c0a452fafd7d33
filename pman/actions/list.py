"""`list`: jobs by what they are, a page at a time, newest first."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from pman.actions import action
from pman.actions._filters import States, as_labels, as_states, as_text
from pman.actions._named import JobId
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.errors import RequestError, shown
from pman.job.record import Job
from pman.job.state import FINAL_STATES
from pman.jobdb.jobview import job_view

#: Most jobs of one page.
MAX_PAGE = 1000

#: Form of a cursor, so that one of a later pman is told from a damaged one.
CURSOR_VERSION = 1


class Place(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Where a page begins; as a cursor it is opaque to clients.

    Attributes:
        version: `CURSOR_VERSION`.
        name: Of the last job of the page before.
        accepted_at: When that was accepted, UTC epoch seconds, should it be gone.
        order: Its place in the order of acceptance; 0 for who is bound to a user, as it tells of
            the jobs of others.
    """

    version: Annotated[int, msgspec.Meta(ge=CURSOR_VERSION, le=CURSOR_VERSION)]
    name: str
    accepted_at: float
    order: Annotated[int, msgspec.Meta(ge=0)]


_decode = msgspec.json.Decoder(Place).decode


class ListRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which jobs; all that is given must be true of a job."""

    state: Annotated[States, msgspec.Meta(description="one of these states")] = None
    jid: Annotated[JobId | None, msgspec.Meta(description="this job id")] = None
    jid_prefix: Annotated[str | None, msgspec.Meta(description="a job id that begins so")] = None
    auid: Annotated[JobId | None, msgspec.Meta(description="this apparent user")] = None
    backend: Annotated[str | None, msgspec.Meta(description="this backend")] = None
    label: Annotated[
        dict[str, JobId] | None, msgspec.Meta(description="these labels, with these values")
    ] = None
    since: Annotated[
        float | None, msgspec.Meta(description="accepted then or later, UTC epoch seconds")
    ] = None
    until: Annotated[
        float | None, msgspec.Meta(description="accepted before then, UTC epoch seconds")
    ] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE, description="most jobs of one page")] = (
        100
    )
    cursor: Annotated[
        str | None, msgspec.Meta(description="`next` of the page before, for the page behind it")
    ] = None


@action("list", takes=ListRequest)
def list_jobs(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer `{"jobs": [...], "next": cursor or null}`; always true.

    A job that comes while somebody reads page after page is on none of the later pages, and none
    is on two of them.
    """
    wanted = request.read_as(ListRequest)
    place = None if wanted.cursor is None else _read_cursor(wanted.cursor)
    found = list(itertools.islice(_matches(wanted, place, context), wanted.limit + 1))
    page = found[: wanted.limit]
    is_bound = request.caller.auid is not None
    answer: dict[str, Any] = {
        "jobs": [job_view(job) for job in page],
        "next": _cursor(page[-1], is_bound=is_bound) if len(found) > len(page) else None,
    }
    return Outcome(True, answer)


def _matches(wanted: ListRequest, place: Place | None, context: ActionContext) -> Iterator[Job]:
    below, until = _bounds(place, context)
    states = as_states(wanted.state)
    jid, auid, labels = as_text(wanted.jid), as_text(wanted.auid), as_labels(wanted.label)
    jobs = context.store.newest_first(
        below=below,
        jid=jid or "",
        auid=auid or "",
        is_open=states is not None and not states & FINAL_STATES,
    )
    for job in jobs:
        if (
            (states is None or job.state in states)
            and (jid is None or job.jid == jid)
            and (auid is None or job.auid == auid)
            and (wanted.jid_prefix is None or job.jid.startswith(wanted.jid_prefix))
            and (wanted.backend is None or job.backend == wanted.backend)
            and (labels is None or has_labels(job, labels))
            and (wanted.since is None or job.accepted_at >= wanted.since)
            and (wanted.until is None or job.accepted_at < wanted.until)
            and (until is None or job.accepted_at < until)
        ):
            yield job


def has_labels(job: Job, wanted: dict[str, str]) -> bool:
    """Return whether a job has all these labels, with these values."""
    labels = job.labels or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def _bounds(place: Place | None, context: ActionContext) -> tuple[int | None, float | None]:
    """Return the order, or else the moment, that all further jobs are below."""
    if place is None:
        return None, None
    job = context.store.get(place.name)
    if job is not None:
        return job.order, None
    return (place.order, None) if place.order else (None, place.accepted_at)


def _cursor(job: Job, *, is_bound: bool) -> str:
    place = Place(CURSOR_VERSION, job.name, job.accepted_at, 0 if is_bound else job.order)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode("ascii")


def _read_cursor(text: str) -> Place:
    """Return the place that a cursor stands for.

    Raises:
        RequestError: It is none of ours.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return _decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as exc:
        raise _no_cursor(text) from exc


def _no_cursor(text: str) -> RequestError:
    return RequestError(
        f"cursor is {shown(text)}, expected the 'next' of an earlier page", field="cursor"
    )
