"""`Event`: one change of one job, numbered; `Wanted`: which of them somebody asks for. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pman.job.record import Job
from pman.job.state import JobState

Kind = Literal["state", "progress", "deleted"]


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


# As with jobs: there may be many, and none refers to itself. Only the writer changes one, to number
# it, before anybody else has it.
class Event(msgspec.Struct, kw_only=False, gc=False, rename="camel"):
    """One change of one job. The order of the fields is that on disk: new ones go behind."""

    seq: Annotated[int, _about("number; grows, is never given twice")]
    at: Annotated[float, _about("when it was, UTC epoch seconds")]
    kind: Annotated[Kind, _about("what has changed; `deleted`: the job is forgotten")]
    job: Annotated[str, _about("unique name of the job")]
    jid: Annotated[str, _about("the client's own id of the job")]
    auid: Annotated[str, _about("apparent user of the job")]
    backend: Annotated[str, _about("where it runs")]
    state: Annotated[JobState, _about("as it is after the change")]
    reason: Annotated[str, _about("why, as a word: `ok`, `error`, ...")] = ""
    message: Annotated[str, _about("why, as a sentence for people")] = ""
    exit_code: Annotated[int | None, _about("of the job as a whole")] = None
    signal: Annotated[int | None, _about("number of the signal that ended it")] = None
    attempt: Annotated[int, _about("which try it is, from 1")] = 1
    progress: Annotated[float | None, _about("share of the work that is done, 0 to 1")] = None
    progress_text: Annotated[str, _about("what the job says of its progress")] = ""
    labels: Annotated[dict[str, str] | None, _about("what the client calls the job by")] = None


def accepted(job: Job, at_s: float) -> Event:
    """Return the first event of a job."""
    return _event("state", job, job.state, at_s)


def changes(old: Job, new: Job, at_s: float) -> list[Event]:
    """Return what has happened between two versions of a job: nothing, progress, a state, or both.

    A later try of a job is a change of state, whatever the states of the two tries.
    """
    events = []
    is_same_try = new.attempt == old.attempt
    said = new.progress, new.progress_text
    if is_same_try and said != (old.progress, old.progress_text):
        progress = _event("progress", old, old.state, at_s)
        progress.progress, progress.progress_text = said
        events.append(progress)
    if new.state is not old.state or not is_same_try:
        events.append(_event("state", new, new.state, at_s))
    return events


def deleted(job: Job, at_s: float) -> Event:
    """Return the last event of a job."""
    return _event("deleted", job, job.state, at_s)


def _event(kind: Kind, job: Job, state: JobState, at_s: float) -> Event:
    return Event(
        0,
        at_s,
        kind,
        job.name,
        job.jid,
        job.auid,
        job.backend,
        state,
        job.reason,
        job.message,
        job.exit_code,
        job.signal,
        job.attempt,
        job.progress,
        job.progress_text,
        job.labels,
    )


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events somebody asks for; None stands for any.

    Attributes:
        job: Name of the job.
        jid: Its job id.
        auid: Its user, whom the client names.
        owner: Its user, beyond whose jobs the client may not look.
        labels: All of these must be among its labels.
        kinds: The event's kind is one of these.
        states: The state in the event is one of these.
    """

    job: str | None = None
    jid: str | None = None
    auid: str | None = None
    owner: str | None = None
    labels: dict[str, str] | None = None
    kinds: frozenset[str] | None = None
    states: frozenset[JobState] | None = None

    def matches(self, event: Event) -> bool:
        """Tell whether an event is among them."""
        return (
            (self.owner is None or event.auid == self.owner)
            and (self.job is None or event.job == self.job)
            and (self.jid is None or event.jid == self.jid)
            and (self.auid is None or event.auid == self.auid)
            and (self.kinds is None or event.kind in self.kinds)
            and (self.states is None or event.state in self.states)
            and (self.labels is None or _has_all(event.labels, self.labels))
        )


def _has_all(labels: dict[str, str] | None, wanted: dict[str, str]) -> bool:
    return wanted.items() <= (labels or {}).items()
