"""`JobStore`: the jobs in memory, and the only way to change one.

Its lock is held for memory work only. A `Job` that it holds is never changed: each change puts a
new object in its place, so that readers need no lock and no copy.
"""

from __future__ import annotations

import collections
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from pman.errors import JobConflict, SnapshotError, UnknownJob
from pman.job import event
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import check_transition
from pman.jobdb.footprint import compact
from pman.jobdb.index import NameIndex
from pman.jobdb.journal import Commit, Journal
from pman.jobdb.ledger import Ledger
from pman.jobdb.merge import allowed, merge
from pman.jobdb.order import OrderIndex
from pman.jobdb.record_json import encode_record
from pman.jobdb.view import job_leaf

_log = logging.getLogger(__name__)

#: How long a removal may take to become durable, seconds.
REMOVE_TIMEOUT_S = 30.0

#: Jobs of one jid, of one auid or unfinished that are sorted for a walk; of more, all jobs are
#: walked instead, as then there is one of them at every few steps.
MAX_SORTED = 1000

#: Jobs of one user, or with one jid, that are looked through at once.
FEW_TO_LOOK_AT = 1024

OnJob = Callable[[Job], None]

#: Takes the jobs that are gone, and finished ones that were put in their place.
OnExchange = Callable[[Sequence[Job], Sequence[Job]], None]


class _Pending:
    """A job that is on its way to the disk, not yet seen by anybody."""

    __slots__ = ("commit", "is_abandoned", "job")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.commit: Commit
        self.is_abandoned = False


class JobStore:
    """All jobs that pman knows, in the order in which they were accepted. Thread-safe.

    Attributes:
        ledger: How many there are; only to be read.
    """

    def __init__(self, journal: Journal, now: Callable[[], float] = time.time) -> None:
        self.ledger = Ledger()
        self._journal = journal
        self._now = now
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._order = OrderIndex(self._has_number)
        self._by_jid = NameIndex()
        self._by_auid = NameIndex()
        self._unfinished: dict[str, None] = {}
        self._pending: dict[str, _Pending] = {}
        self._pending_by_jid = NameIndex()
        self._by_idempotency = NameIndex()
        self._pending_by_idempotency = NameIndex()
        self._unsettled: set[str] = set()
        self._settled_callbacks: list[OnJob] = []
        self._exchange_callbacks: list[OnExchange] = []
        self._state_callbacks: tuple[OnJob, ...] = ()
        self._waiters: dict[str, dict[OnJob, None]] = {}  # inner ones in the order of calls
        self._events: collections.deque[tuple[Job, Sequence[OnJob]]] = collections.deque()
        self._is_delivering = False

    # --- changes --------------------------------------------------------------------------

    def load(self, jobs: Iterable[Job]) -> None:
        """Take in what the disk holds, in order; at start only."""
        with self._lock:
            for job in jobs:
                job.order = self._order.take_number(job.order)
                self._put(job)

    def submit(
        self, job: Job, *, idempotent: bool = False, auid: str | None = None, timeout_s: float
    ) -> tuple[Job, bool]:
        """Make a new job durable, then visible.

        Args:
            job: From `new_job`. Is there one with the same key in its `idempotency`, that is
                returned instead.
            idempotent: Return the oldest job with the same jid instead, if there is one, and none
                with the same key.
            auid: If not None, only one of this user counts as such.
            timeout_s: For the disk.
        Returns:
            The job, and whether it is the new one.
        Raises:
            SnapshotError: The disk did not take it; nothing is left of it.
            JobConflict: There is a job of that name.
            RequestError: It cannot be written down.
        """
        with self._lock:
            first = self._first_like(job, auid, is_idempotent=idempotent)
            if isinstance(first, Job):
                return first, False
            pending = first if first is not None else self._hand_over(job)
        if pending.job is not job:
            return self._wait_for(pending, timeout_s), False
        try:
            pending.commit.wait(timeout_s)
        except SnapshotError:
            with self._lock:
                if job.name not in self._jobs:  # else it was written at the very last moment
                    pending.is_abandoned = True
                    raise
        for callback in self._state_callbacks:
            callback(job)
        return self.get(job.name) or job, True

    def observe(self, observation: Observation) -> Job | None:
        """Apply what a backend saw.

        A final state stays final, and states do not go backwards: such a state is ignored.

        Returns:
            The job as it is now, or None when the job is unknown or final already.
        """
        with self._lock:
            job = self._jobs.get(observation.name)
            if job is None:
                return None
            if job.state.is_final:
                is_repeated = job.name not in self._unsettled
            else:
                new = self._change(job, observation)
        if job.state.is_final:
            if is_repeated and observation.state is not None and observation.state.is_final:
                self._tell_settled(job)  # who reports the end again has not heard of it
            return None
        self._deliver()
        return new

    def change(self, name: str, make: Callable[[Job], Job | None]) -> tuple[Job, Commit] | None:
        """Put in the place of a job that is not final what `make` makes of it.

        Args:
            make: Called with the lock held: takes the job, and returns a changed copy, or None
                (or the job itself) to leave it. With a higher `attempt` it begins its next try.
        Returns:
            The job as it is now, and the promise of the disk; None when nothing was changed.
        Raises:
            InvalidTransition: It went where a job may not go; nothing was changed.
        """
        with self._lock:
            job = self._jobs.get(name)
            new = None if job is None or job.state.is_final else make(job)
            if job is None or new is None or new is job:
                return None
            check_transition(job.state, new.state, is_retry=new.attempt > job.attempt)
            new.revision = job.revision + 1
            commit = self._replace(job, new)
        self._deliver()
        return new, commit

    def remove(self, names: Iterable[str], timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Forget jobs; unknown names are ignored.

        Raises:
            SnapshotError: They are gone from memory, but not from the disk yet.
        """
        with self._lock:
            gone = [job for name in names if (job := self._jobs.get(name)) is not None]
            commit = self._drop(gone)
        self._deliver()
        self._tell_exchange(gone)
        commit.wait(timeout_s)

    def clear(self, jobs: Iterable[Job] | None = None) -> list[Job]:
        """Forget finished jobs.

        Args:
            jobs: Which; all when None. Those that are not finished stay.
        Returns:
            The jobs that are gone.
        Raises:
            SnapshotError: As in `remove`.
        """
        with self._lock:
            wanted = list(self._jobs) if jobs is None else [job.name for job in jobs]
            gone = [
                job
                for name in wanted
                if (job := self._jobs.get(name)) is not None and job.state.is_final
            ]
            commit = self._drop(gone)
        self._deliver()
        self._tell_exchange(gone)
        commit.wait(REMOVE_TIMEOUT_S)
        return gone

    def replace_finished(self, jobs: Iterable[Job]) -> list[Job]:
        """Put `jobs` in the place of all finished ones; those that run stay, in front.

        Args:
            jobs: Finished ones. One that runs here under the same name is left out.
        Returns:
            Finished jobs that are gone, without those that came back under their name.
        Raises:
            SnapshotError: The change is in memory, but not on the disk yet.
        """
        with self._lock:
            at_s = self._now()
            gone = {job.name: job for job in self._jobs.values() if job.state.is_final}
            for job in gone.values():
                self._take_out(job)
            placed: list[Job] = []
            events: list[event.Event] = []
            for job in jobs:
                if job.name in self._jobs or job.name in self._pending:
                    continue
                events += self._replacement(gone.get(job.name), job, at_s)
                former = gone.pop(job.name, job)
                revision = max(job.revision, former.revision) + 1
                number = self._order.take_number()
                new = msgspec.structs.replace(job, revision=revision, order=number)
                placed.append(self._put(new))
            names = [*gone, *(job.name for job in placed)]
            events[:0] = [event.deleted(job, at_s) for job in gone.values()]
            commit = self._journal.replace(names, placed, events)
        self._tell_exchange(list(gone.values()), placed)
        commit.wait(REMOVE_TIMEOUT_S)
        return list(gone.values())

    def barrier(self, timeout_s: float) -> None:
        """Wait until all that can be seen here now is durable.

        Raises:
            SnapshotError: It is not, because the disk would not take it or took too long.
        """
        # A change is with the journal before anybody can see it: both happen under the lock.
        self._journal.barrier().wait(timeout_s)

    # --- reading --------------------------------------------------------------------------

    def get(self, name: str) -> Job | None:
        """Return a job by name."""
        return self._jobs.get(name)

    def at(self, index: int) -> Job | None:
        """Return the n-th job, counted from 0, negative from the newest; None out of range."""
        with self._lock:
            name = self._order.at(index)
            return None if name is None else self._jobs[name]

    def names(self) -> list[str]:
        """Return all job names, in order."""
        with self._lock:
            return list(self._jobs)

    def jobs(self) -> list[Job]:
        """Return all jobs, in order."""
        with self._lock:
            return list(self._jobs.values())

    def unfinished(self) -> list[Job]:
        """Return the jobs that are not final, in order."""
        with self._lock:
            return [self._jobs[name] for name in self._unfinished]

    def is_settled(self, name: str) -> bool:
        """Return whether the end of a job is durable; not if the job is gone."""
        with self._lock:
            job = self._jobs.get(name)
            return job is not None and job.state.is_final and name not in self._unsettled

    @property
    def count(self) -> int:
        """Number of jobs."""
        return len(self._jobs)

    def find(self, key: str, value: Any) -> list[Job]:
        """Return the jobs whose leaf `key` is `value`, same type and value, in order.

        A leaf that a job does not have equals nothing. `jid` and `auid` are looked up in an index.
        Source: WIRE.md 4.3.
        """
        if key in ("jid", "auid"):
            if not isinstance(value, str):
                return []
            index = self._by_jid if key == "jid" else self._by_auid
            with self._lock:
                return [self._jobs[name] for name in index.names(value)]
        return matching(self.jobs(), key, value)

    def newest_first(
        self, *, below: int | None = None, jid: str = "", auid: str = "", is_open: bool = False
    ) -> Iterator[Job]:
        """Give jobs from the newest to the oldest, as they are when it is their turn.

        Args:
            below: Only those with a smaller `order`.
            jid, auid: Only those with this one; "" for any.
            is_open: Only those that are not final.
        """
        with self._lock:
            few = self._few(jid, auid, is_open=is_open)
            names = self._order.newest_first(below) if few is None else few
        for name in names:
            job = self._jobs.get(name)
            if (
                job is not None
                and (below is None or job.order < below)
                and (not jid or job.jid == jid)
                and (not auid or job.auid == auid)
                and not (is_open and job.state.is_final)
            ):
                yield job

    def with_idempotency(self, key: str) -> Job | None:
        """Return the job that was submitted with an idempotency key (its digest), if any."""
        with self._lock:
            name = self._by_idempotency.first(key)
            return None if name is None else self._jobs[name]

    def few_with_jid(self, jid: str, most: int) -> list[Job] | None:
        """Return the jobs with a jid, in order; None if there are more than `most`."""
        with self._lock:
            index, jobs = self._by_jid, self._jobs
            return None if index.count(jid) > most else [jobs[name] for name in index.names(jid)]

    def jobs_of(self, auid: str, jid: str | None = None) -> list[Job]:
        """Return the jobs of one user, with `jid` those with this job id, in order.

        Costs no more than the smaller of the two indexes.
        """
        with self._lock:
            return self._jobs_of(auid, jid)

    def few_of(self, auid: str, jid: str, most: int) -> list[Job] | None:
        """Return a user's jobs with a jid, in order; None if more than `most`, or hard to tell."""
        with self._lock:
            if min(self._by_auid.count(auid), self._by_jid.count(jid)) > FEW_TO_LOOK_AT:
                return None
            jobs = self._jobs_of(auid, jid)
        return None if len(jobs) > most else jobs

    def count_of(self, auid: str) -> int:
        """Return how many jobs a user has."""
        with self._lock:
            return self._by_auid.count(auid)

    # --- subscriptions --------------------------------------------------------------------

    def when_final(self, name: str, callback: OnJob) -> None:
        """Have `callback` called once the job is final (or removed): at once if it is already.

        Raises:
            UnknownJob: There is no such job.
        """
        with self._lock:
            job = self._jobs.get(name)
            if job is not None and not job.state.is_final:
                self._waiters.setdefault(name, {})[callback] = None
                return
        if job is None:
            raise UnknownJob(f"there is no job {name!r}")
        callback(job)

    def no_longer(self, name: str, callback: OnJob) -> None:
        """Take back a `when_final` that has not been called; nothing there is fine."""
        with self._lock:
            waiters = self._waiters.get(name)
            if waiters is not None:
                waiters.pop(callback, None)
                if not waiters:
                    del self._waiters[name]

    def on_settled(self, callback: OnJob) -> None:
        """Have `callback` called when the final state of a job is durable, perhaps repeatedly.

        Called by the thread that writes: it must return at once.
        """
        self._settled_callbacks.append(callback)

    def on_state(self, callback: OnJob) -> None:
        """Have `callback` called with each job that is accepted, or whose state or try is another.

        Called outside the lock: of a job that is accepted in the thread that submits it, else one
        call after the other, in order. At start only.
        """
        self._state_callbacks = (*self._state_callbacks, callback)

    def on_exchanged(self, callback: OnExchange) -> None:
        """Have `callback` called when jobs are gone, and which finished ones came in their place.

        Called outside the lock, by the thread that asked for it; it must return at once.
        """
        self._exchange_callbacks.append(callback)

    # --- with the lock held ---------------------------------------------------------------

    def _few(self, jid: str, auid: str, *, is_open: bool) -> list[str] | None:
        """Return the names in an index that holds few, newest first; None: there is none such."""
        if jid and self._by_jid.count(jid) <= MAX_SORTED:
            names = self._by_jid.names(jid)
        elif is_open and len(self._unfinished) <= MAX_SORTED:
            names = list(self._unfinished)
        elif auid and self._by_auid.count(auid) <= MAX_SORTED:
            names = self._by_auid.names(auid)
        else:
            return None
        return sorted(names, key=lambda name: -self._jobs[name].order)

    def _has_number(self, name: str, number: int) -> bool:
        job = self._jobs.get(name)
        return job is not None and job.order == number

    def _jobs_of(self, auid: str, jid: str | None) -> list[Job]:
        if jid is None or self._by_auid.count(auid) < self._by_jid.count(jid):
            jobs = [self._jobs[name] for name in self._by_auid.names(auid)]
            return jobs if jid is None else [job for job in jobs if job.jid == jid]
        jobs = [self._jobs[name] for name in self._by_jid.names(jid)]
        return [job for job in jobs if job.auid == auid]

    def _first_like(
        self, job: Job, auid: str | None, *, is_idempotent: bool
    ) -> Job | _Pending | None:
        """Return the job that stands for `job`, if there is one, or one that comes to be it."""
        key = _key_of(job)
        name, pending = self._by_idempotency.first(key), self._pending_by_idempotency.first(key)
        if name is None and pending is None and is_idempotent:
            if auid is not None:
                return self._first_own(auid, job.jid)
            name, pending = self._by_jid.first(job.jid), self._pending_by_jid.first(job.jid)
        if name is not None:
            return self._jobs[name]
        return None if pending is None else self._pending[pending]

    def _first_own(self, auid: str, jid: str) -> Job | _Pending | None:
        """Return the oldest job of a user with a jid, or one that comes to be it."""
        for own in self._jobs_of(auid, jid):
            return own
        coming = [self._pending[name] for name in self._pending_by_jid.names(jid)]
        return next((each for each in coming if each.job.auid == auid), None)

    def _hand_over(self, job: Job) -> _Pending:
        if job.name in self._jobs or job.name in self._pending:
            raise JobConflict(f"there is a job {job.name!r} already")
        job.order = self._order.take_number()
        record = encode_record(job)
        pending = _Pending(job)
        # Under the lock, so that the order in the journal is the order here; `_committed` waits
        # for it.
        pending.commit = self._journal.write(
            job,
            fresh=record,
            on_done=functools.partial(self._committed, pending),
            events=[event.accepted(job, self._now())],
        )
        self._pending[job.name] = pending
        self._pending_by_jid.add(job.jid, job.name)
        self._pending_by_idempotency.add(_key_of(job), job.name)
        return pending

    def _change(self, job: Job, observation: Observation) -> Job:
        new = merge(job, allowed(job, observation), self._now)
        if new is not job:
            self._replace(job, new)
        return new

    def _replace(self, former: Job, new: Job) -> Commit:
        """Put a changed job in its place, and have it written; waiters are told by `_deliver`."""
        self._put(new)
        waiters: Sequence[OnJob] = ()
        on_done = None
        if new.state is not former.state or new.attempt != former.attempt:
            waiters = self._state_callbacks
        if new.state.is_final:
            self.ledger.ended(new)
            waiters = [*waiters, *self._waiters.pop(new.name, ())]
            self._unsettled.add(new.name)
            on_done = functools.partial(self._settled, new)
        events = event.changes(former, new, self._now())
        commit = self._journal.write(new, on_done=on_done, events=events)
        if waiters:
            self._events.append((new, waiters))
        return commit

    def _put(self, job: Job) -> Job:
        """Store a new job behind the others, or a changed one in its place."""
        compact(job)
        former = self._jobs.get(job.name)
        self.ledger.put(former, job)
        if former is None:
            self._order.add(job.order, job.name)
            self._by_jid.add(job.jid, job.name)
            self._by_auid.add(job.auid, job.name)
            self._by_idempotency.add(_key_of(job), job.name)
        self._jobs[job.name] = job
        if job.state.is_final:
            self._unfinished.pop(job.name, None)
        else:
            self._unfinished[job.name] = None
        return job

    def _drop(self, jobs: Sequence[Job]) -> Commit:
        for job in jobs:
            self._take_out(job)
            if waiters := self._waiters.pop(job.name, None):
                self._events.append((job, tuple(waiters)))
        at_s = self._now()
        events = [event.deleted(job, at_s) for job in jobs]
        return self._journal.delete([job.name for job in jobs], events)

    @staticmethod
    def _replacement(former: Job | None, job: Job, at_s: float) -> list[event.Event]:
        """Return the events of a job that is put in the place of a former one, or comes anew."""
        if former is None:
            return [event.accepted(job, at_s)]
        return event.changes(former, job, at_s)

    def _take_out(self, job: Job) -> None:
        # The one that is here: the caller's may be older.
        self.ledger.take_out(self._jobs.pop(job.name))
        self._order.discard()
        self._by_jid.discard(job.jid, job.name)
        self._by_auid.discard(job.auid, job.name)
        self._by_idempotency.discard(_key_of(job), job.name)
        self._unfinished.pop(job.name, None)
        self._unsettled.discard(job.name)

    # --- without the lock -----------------------------------------------------------------

    def _wait_for(self, pending: _Pending, timeout_s: float) -> Job:
        """Return the job that somebody else is submitting."""
        pending.commit.wait(timeout_s)
        job = self.get(pending.job.name)
        if job is None:
            raise SnapshotError(f"the job with id {pending.job.jid!r} was not written in time")
        return job

    def _committed(self, pending: _Pending, error: SnapshotError | None) -> None:
        """Publish a job that is durable. By the writing thread."""
        job = pending.job
        with self._lock:
            del self._pending[job.name]
            self._pending_by_jid.discard(job.jid, job.name)
            self._pending_by_idempotency.discard(_key_of(job), job.name)
            if error is not None:
                return
            if pending.is_abandoned:
                # Its submitter was told that it failed.
                self._journal.delete([job.name], [event.deleted(job, self._now())])
                return
            self._put(job)
            self.ledger.accepted(job)

    def _settled(self, job: Job, error: SnapshotError | None) -> None:
        """Pass on that a final state is durable. By the writing thread."""
        if error is not None:
            return  # the daemon ends; the backend reports the end to the next one
        with self._lock:
            self._unsettled.discard(job.name)
        self._tell_settled(job)

    def _tell_exchange(self, gone: Sequence[Job], placed: Sequence[Job] = ()) -> None:
        for callback in self._exchange_callbacks:
            callback(gone, placed)

    def _tell_settled(self, job: Job) -> None:
        for callback in self._settled_callbacks:
            callback(job)

    def _deliver(self) -> None:
        """Call back for all ends so far; one thread at a time, so that order is kept."""
        while True:
            with self._lock:
                if self._is_delivering or not self._events:
                    return
                self._is_delivering = True
                job, waiters = self._events.popleft()
            try:
                for callback in waiters:
                    callback(job)
            finally:
                with self._lock:
                    self._is_delivering = False


def matching(jobs: Iterable[Job], key: str, value: Any) -> list[Job]:
    """Return those whose leaf `key` is `value`, same type and value. Source: WIRE.md 4.3."""
    return [job for job in jobs if _is_same(job_leaf(job, key), value)]


def _key_of(job: Job) -> str:
    """Return the digest of the client's idempotency key."""
    return job.idempotency.partition(":")[0] if job.idempotency else ""


def _is_same(ours: Any, theirs: Any) -> bool:
    """Compare as 2.2 does: `1` is neither `1.0` nor `true`."""
    return type(ours) is type(theirs) and bool(ours == theirs)
