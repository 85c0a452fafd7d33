"""`Letter`: what is to be told to whoever asked to be called back when a job has ended. Pure."""

from __future__ import annotations

import datetime
import heapq
from collections.abc import Mapping, Sequence

import msgspec

from pman.job.event import Event
from pman.job.record import Job
from pman.jobdb.jobview import job_view
from pman.jobdb.record_json import scrub

#: Most letters that are kept; beyond that see `losses`.
MAX_LETTERS = 100_000

#: What a letter says has happened.
JOB_ENDED = "job.ended"

_encode = msgspec.json.Encoder().encode


class Letter(msgspec.Struct):
    """One callback that was not answered yet.

    Attributes:
        id: The same for every try; made of the job's name, so the same even when it is made again.
        job: Name of the job.
        auid: Its apparent user.
        url: Where it goes.
        body: JSON, signed as it is.
        created_at: When the job ended, UTC epoch seconds.
        next_at: When to try (again), UTC epoch seconds.
        tries: How often it was tried.
        problem: Why the last try came to nothing, "" for none.
        given_up_at: When it was tried for the last time in vain, UTC epoch seconds, or None.
    """

    id: str
    job: str
    auid: str
    url: str
    body: bytes
    created_at: float
    next_at: float
    tries: int = 0
    problem: str = ""
    given_up_at: float | None = None


class OutboxChanges(msgspec.Struct, frozen=True):
    """What one transaction changes in the outbox.

    Attributes:
        new: Letters to add.
        tried: Letters whose tries are to be kept.
        done: Ids of letters to remove.
    """

    new: Sequence[Letter] = ()
    tried: Sequence[Letter] = ()
    done: Sequence[str] = ()


def letter_for(job: Job, event: Event) -> Letter:
    """Return the letter about the end of a job.

    Args:
        job: In its final state; its `callback` is not "".
        event: The end, with its number.
    Source: https://www.standardwebhooks.com, "Payload structure"; an id holds no full stop.
    """
    letter_id = f"msg_{job.name.replace('.', '_')}"
    document = {
        "type": JOB_ENDED,
        "id": letter_id,
        "timestamp": _iso(event.at),
        "data": {**msgspec.to_builtins(job_view(job)), "seq": event.seq},
    }
    try:
        body = _encode(document)
    except UnicodeEncodeError:
        body = _encode(scrub(document))
    auid = scrub(event.auid)
    return Letter(letter_id, job.name, auid, job.callback, body, event.at, event.at)


def losses(counts: Mapping[str, int], surplus: int) -> dict[str, int]:
    """Return how many of its letters each user loses, so that none loses those of another.

    Each that has to go is one of the user who has the most then.

    Args:
        counts: How many letters each user has.
        surplus: How many have to go, not more than there are.
    """
    left = [(-count, auid) for auid, count in counts.items()]
    heapq.heapify(left)
    lost: dict[str, int] = {}
    for _ in range(surplus):
        count, auid = left[0]
        heapq.heapreplace(left, (count + 1, auid))
        lost[auid] = lost.get(auid, 0) + 1
    return lost


def _iso(at_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(at_s, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
