"""`Job`: what pman knows of one job. Plain data, encoded as JSON in the job DB.

Only `JobStore` changes a job that it holds; everybody else reads.
"""

from __future__ import annotations

import functools
import json
import math
import re
import time
import uuid
from typing import Any, Literal

import msgspec

from pman.job.spec import JobSpec
from pman.job.state import JobState

#: Why pman keeps a job to itself: "" it does not; `limit` and `after`: others come first; `retry`:
#: it is to be tried again; `released`: its backend may have it by now, or not.
Hold = Literal["", "limit", "after", "retry", "released"]

#: Why a job that is not final yet is being ended: the `reason` that it has then, so that a later
#: daemon knows. Its time is up, it did not start in time, or somebody wants it.
ENDINGS = ("deadline_exceeded", "pending_timeout", "canceling")

#: What follows the name of a job in that of a later try of it.
_TRY = re.compile(r"_r[0-9]+\Z")


def job_name_of(run_name: str) -> str:
    """Return the name of the job that a `Job.run_name` belongs to."""
    return _TRY.sub("", run_name)


def run_name(job_name: str, attempt: int) -> str:
    """Return the name by which backend and output know one try of a job, counted from 1."""
    return job_name if attempt == 1 else f"{job_name}_r{attempt}"


def attempt_of(run_name: str) -> int:
    """Return which try of a job a `Job.run_name` stands for."""
    found = _TRY.search(run_name)
    return 1 if found is None else int(found[0][2:])


class HostFacts(msgspec.Struct, frozen=True, gc=False):
    """The machine a job ran on, as a sub-job of 2.2 reports it.

    Source: WIRE.md 8.2; the values are those of `platform.uname()` and `platform.platform()`.
    """

    system: str
    machine: str
    platform: str
    uname: tuple[str, ...]
    version: str


class Part(msgspec.Struct, gc=False):
    """One command of a compound host job, or the one command of a simple one.

    Attributes:
        cmd: Piece of the command line, leading blanks kept.
        pid: Process id of its shell, once started.
        started_at: UTC epoch seconds, or None.
        ended_at: UTC epoch seconds, or None.
        returncode: Exit code, negative for the signal that ended it, None while unknown.
    """

    cmd: str
    pid: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    returncode: int | None = None


class Worker(msgspec.Struct, gc=False):
    """One container of a container job.

    Attributes:
        name: The engine's name of it: task, pod.
        state: The engine's own word.
        returncode: Exit code, None while unknown.
        reason: Why it is in that state, in pman's words ("" when there is nothing to say).
        message: The engine's own words.
    """

    name: str
    state: str = ""
    returncode: int | None = None
    reason: str = ""
    message: str = ""


class Cancellation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How somebody wants a job to end; kept, so that a later daemon goes on with it.

    Attributes:
        asked_at: When that was, UTC epoch seconds.
        grace_s: How long the job may take from then on, seconds.
        signal: Number of the signal that asks it to end; None for what its backend uses.
    """

    asked_at: float
    grace_s: float
    signal: int | None = None

    def left_s(self, now_s: float) -> float:
        """Return how long the job may still take; no clock that was set makes that more."""
        return min(self.grace_s, max(0.0, self.asked_at + self.grace_s - now_s))


# There may be very many jobs, and none refers to itself: they cost the collector nothing.
class Job(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    """Everything pman knows of one job.

    Attributes:
        name: Job folder name of 2.2, `<YYYYMMDDhhmmss.ffffff>_<uuid4>`; unique.
        jid: The client's job id, "" when none; not unique.
        auid: Apparent user, "" when none.
        cmd: Command line as sent.
        meta: The request's `meta` as JSON text (the `d_meta` leaf of 2.2).
        backend: Name of the backend that runs it.
        container: The request's `container` block, or None.
        state: See `JobState`.
        reason: `ok`, `error`, `canceled`, `lost`, …; "" until there is something to say.
        message: One sentence for people.
        exit_code: Of the job as a whole; None while unknown or when ended by a signal.
        signal: Number of the signal that ended it, or None.
        accepted_at, started_at, ended_at: UTC epoch seconds, or None.
        imported_at: When it was taken over from a tree of files, UTC epoch seconds, or None.
        labels: What the client calls it by, or None.
        priority: Who waits with a higher one is started first.
        cancel: How it was canceled, while it ran, or None.
        hold: Why pman has not given it to its backend, or RELEASED; see `Hold`.
        after: Names of jobs that must end well first and have not yet, or None.
        not_before: When it may be tried again, UTC epoch seconds, or None.
        released_at: When it was last given a place after a wait, UTC epoch seconds, or None.
        attempt: Which try it is, from 1.
        retries: How many more tries than one it may have.
        backoff_s: Before the second try; doubled for each further one.
        timeout_s: How long it may run, seconds, or None.
        pending_timeout_s: How long it may wait for its start, seconds, or None.
        callback: URL that gets the final record, "" for none.
        progress: Share of the work that is done, 0 to 1, as the job says, or None.
        progress_text: What the job says of it.
        wants_progress: Whether what it prints is looked at for progress.
        order: Place in the order of acceptance; set by `JobStore`, never given twice.
        idempotency: Digest of the client's idempotency key, perhaps with a colon and the digest
            of what came with it, or "".
        parts: Parts of a host job, in order; those not yet started included.
        workers: Containers of a container job.
        shown_attempt: Which try the parts and workers are those of, while the newest one waits for
            its backend; 0: of that one.
        handle: JSON value with which the backend finds the job again after a restart.
        facts: The machine it ran on, or None.
        extra: Backend's own leaves for the `container/` folder of the record tree.
        revision: Counts changes; set by `JobStore`.
    """

    name: str
    jid: str
    auid: str
    cmd: str
    meta: str
    backend: str
    container: dict[str, Any] | None = None
    state: JobState = JobState.NEW
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    accepted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    parts: list[Part] = []
    workers: list[Worker] = []
    handle: dict[str, Any] | None = None
    facts: HostFacts | None = None
    extra: dict[str, Any] | None = None
    revision: int = 0
    imported_at: float | None = None
    labels: dict[str, str] | None = None
    priority: int = 0
    cancel: Cancellation | None = None
    hold: Hold = ""
    after: list[str] | None = None
    not_before: float | None = None
    released_at: float | None = None
    attempt: int = 1
    retries: int = 0
    backoff_s: float = 0.0
    timeout_s: float | None = None
    pending_timeout_s: float | None = None
    callback: str = ""
    progress: float | None = None
    progress_text: str = ""
    wants_progress: bool = True
    idempotency: str = ""
    order: int = 0
    shown_attempt: int = 0

    @property
    def run_name(self) -> str:
        """Name by which backend and output know the newest try: `name`, or `<name>_r<attempt>`."""
        return run_name(self.name, self.attempt)

    @property
    def shown_run_name(self) -> str:
        """The same of the try whose parts and workers there are."""
        return run_name(self.name, self.shown_attempt or self.attempt)

    @property
    def is_held(self) -> bool:
        """Whether its backend does not have it, and is not about to."""
        return self.hold in ("limit", "after", "retry")

    @property
    def ending(self) -> str:
        """Why it is being ended, one of `ENDINGS`; "" when it is not, or has ended."""
        return self.reason if self.reason in ENDINGS and not self.state.is_final else ""


def as_backend_sees(job: Job) -> Job:
    """Return the newest try of a job as its backend knows it.

    It has the name of the try, was accepted when it was released, and is NEW when the backend may
    not have it yet.
    """
    if job.attempt == 1 and job.released_at is None and job.hold != "released":
        return job
    is_new = job.hold == "released" and job.handle is None
    return msgspec.structs.replace(
        job,
        name=job.run_name,
        attempt=1,
        state=JobState.NEW if is_new and not job.state.is_final else job.state,
        accepted_at=job.accepted_at if job.released_at is None else job.released_at,
    )


def past_try(job: Job, attempt: int) -> Job:
    """Return a try of a job that has failed, as its backend knows it."""
    return msgspec.structs.replace(
        job,
        name=run_name(job.name, attempt),
        attempt=1,
        state=JobState.FAILED,
        hold="",
        shown_attempt=0,
    )


def new_job(spec: JobSpec, backend: str, now_s: float) -> Job:
    """Make the record of a job that has just been accepted.

    Args:
        spec: What to run.
        backend: Name of the backend that will run it.
        now_s: UTC epoch seconds.
    """
    return Job(
        name=f"{local_stamp(now_s)}_{uuid.uuid4()}",
        jid=spec.jid,
        auid=spec.auid,
        cmd=spec.cmd,
        meta=json.dumps(spec.meta),
        backend=backend,
        container=spec.container,
        callback=spec.callback,
        accepted_at=now_s,
        labels=spec.labels or None,
        priority=spec.priority,
        retries=spec.retries,
        backoff_s=spec.backoff_s if spec.retries else 0.0,
        timeout_s=spec.timeout_s,
        pending_timeout_s=spec.pending_timeout_s,
        wants_progress=spec.progress,
    )


def local_stamp(at_s: float) -> str:
    """Spell a moment as 2.2 does in folder names and in `hello`: local `YYYYMMDDhhmmss.ffffff`."""
    second, micros = _split(at_s)
    return f"{_compact(second)}.{micros:06d}"


def local_time(at_s: float) -> str:
    """Spell a moment as 2.2 does in sub-jobs: local `YYYY-MM-DD hh:mm:ss.ffffff`."""
    second, micros = _split(at_s)
    return f"{_readable(second)}.{micros:06d}"


def _split(at_s: float) -> tuple[int, int]:
    fraction, second = math.modf(at_s)
    micros = round(fraction * 1_000_000)
    return (int(second) + 1, 0) if micros == 1_000_000 else (int(second), micros)


# Replies spell the same second thousands of times.


@functools.lru_cache(maxsize=4)
def _compact(second: int) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.localtime(second))


@functools.lru_cache(maxsize=4)
def _readable(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
