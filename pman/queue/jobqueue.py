"""`JobQueue`: the only one that tells backends to start and to end jobs.

What holds a job back is in its record (`Job.hold`), so that it outlives the daemon; each step of it
is one change of the record, made in the store, where the first of two that race for a job wins.
The tables here follow from the records. Their lock is never held when store or backend is called.

Nothing here waits for the disk: what needs a durable record is done when the store says that it is.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pman.backends.base import Backend
from pman.errors import BackendError, BackendUnavailable, PmanError, RequestError, SnapshotError
from pman.job.observation import Observation
from pman.job.record import (
    Cancellation,
    Hold,
    Job,
    as_backend_sees,
    attempt_of,
    job_name_of,
    past_try,
)
from pman.job.state import JobState
from pman.jobdb.journal import Commit
from pman.jobdb.merge import allowed, merge
from pman.jobdb.store import JobStore
from pman.queue import rules
from pman.queue.alarms import Alarm, Alarms, Kind
from pman.queue.line import Line
from pman.settings import Settings

_log = logging.getLogger(__name__)

#: How long a submission may wait for the disk, seconds.
COMMIT_TIMEOUT_S = 30.0

#: Before a backend that could not be reached gets held jobs again, seconds; doubled each time.
PAUSE_FIRST_S, PAUSE_MAX_S = 1.0, 30.0

#: Before a job that is to end is told again, seconds, beyond its grace; its backend may be away.
TELL_AGAIN_S = 10.0

#: Alarms of one job.
JOB_ALARMS: tuple[Kind, ...] = ("retry", "pending", "timeout", "cancel")

#: Runs what may block, for a backend, in another thread.
Run = Callable[..., None]


def _run_here(backend: str, errand: Callable[..., None], *args: Any) -> None:
    errand(*args)


class JobQueue:
    """All unfinished jobs, from their acceptance to their end. Thread-safe."""

    def __init__(
        self,
        store: JobStore,
        backends: Mapping[str, Backend],
        settings: Settings,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Make a queue; `attach` gives it threads, `take_over` the jobs of a former daemon.

        Args:
            backends: By name; may be filled until `take_over`.
            now: UTC epoch seconds.
        """
        self._store = store
        self._backends = backends
        self._grace_s = settings.kill_grace_s
        self._now = now
        self._run: Run = _run_here
        self._wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()  # of all that follows
        self._line = Line(dict(settings.max_jobs), settings.max_jobs_per_auid)
        self._alarms = Alarms()
        self._dependents: dict[str, dict[str, None]] = {}
        self._pauses_s: dict[str, float] = {}
        #: Tries that have failed and of which the next is not durable.
        self._open_tries: set[str] = set()
        #: Jobs that are to end, and whose backend has been told so for somebody.
        self._told: set[str] = set()
        store.on_settled(self._settled)
        store.on_exchanged(self._on_exchanged)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a place."""
        return self._line.waiting

    def attach(self, wake: Callable[[], None], run: Run) -> None:
        """Have `step` called soon after each `wake`, and what may block done by `run`."""
        self._wake = wake
        self._run = run

    # --- from clients -------------------------------------------------------------------------

    def submit(
        self,
        job: Job,
        *,
        after: Sequence[Job] = (),
        idempotent: bool = False,
        auid: str | None = None,
    ) -> tuple[Job, bool]:
        """Accept a job: when this returns it is durable, and its backend has it or it waits.

        Args:
            job: From `new_job`; ours from now on.
            after: Jobs that must end well first.
            idempotent, auid: As for `JobStore.submit`.
        Returns:
            The job, and whether it is the new one.
        Raises:
            SnapshotError: The disk did not take it; nothing is left of it.
            RequestError: It can't be taken as it is; nothing is kept of it.
            BackendError: It was not taken; it has FAILED.
        """
        others = list(dict.fromkeys(o.name for o in after if o.state is not JobState.COMPLETED))
        self._enter(job, others)
        try:
            kept, is_new = self._store.submit(
                job, idempotent=idempotent, auid=auid, timeout_s=COMMIT_TIMEOUT_S
            )
        except PmanError:
            self._forget(job)
            raise
        if not is_new:
            self._forget(job)
            return kept, False
        self._set_alarms(kept)
        if job.hold == "":
            self._start(kept)
        elif job.hold == "limit":
            with self._lock:
                self._line.ready(job.name)
            self._wake()
        else:
            self._look_at_others(job.name, others)
        return self._store.get(job.name) or kept, True

    def cancel(self, job: Job, grace_s: float, signal: int | None = None) -> None:
        """End a job: one that is held at once, another as `Backend.cancel` does.

        Returns when it is recorded, not when that is durable: see `JobStore.barrier`. A job that
        has ended stays as it is.

        Raises:
            RequestError: Its backend can't end it in this way; it goes on as before.
            BackendUnavailable: Its backend can't be told now; likewise, unless it is to end anyway.
        """
        if signal is not None and not job.is_held:
            self._backend(job).check_signal(signal)
        former = job

        def canceled(now: Job) -> Job | None:
            nonlocal former
            former = now
            if now.is_held:
                return self._canceled_unstarted(now)
            return rules.canceled(now, grace_s, signal, self._now())

        changed = self._store.change(job.name, canceled)
        now = changed[0] if changed is not None else self._store.get(job.name)
        if now is None or (changed is None and now.state.is_final):
            return
        if now.state.is_final:
            self._ended(now)
            return
        try:
            self._backend(now).cancel(as_backend_sees(now), grace_s, signal)
        except PmanError:
            if changed is not None:
                self._store.change(
                    job.name, lambda now: self._not_canceled(now, changed[0].cancel, former)
                )
            raise
        # From here on nobody takes back what is recorded; who was told a moment ago that the
        # backend is away may have done so.
        with self._lock:
            self._told.add(job.name)
        again = self._store.change(job.name, canceled)
        if again is not None and again[0].state.is_final:
            self._ended(again[0])
        self._look_after(job.name, self._grace(now)[0])

    # --- from backends ------------------------------------------------------------------------

    def observe(self, seen: Observation) -> None:
        """Take what a backend saw of a try; the observer of all backends."""
        job = self._store.get(seen.name)
        if job is not None and _is_plain(job):
            changed = self._store.change(seen.name, lambda job: self._seen_plainly(job, seen))
            if changed is not None:
                if changed[0].state.is_final:
                    self._ended(changed[0])
                return
        attempt, name = attempt_of(seen.name), job_name_of(seen.name)
        seen = msgspec.structs.replace(seen, name=name)
        changed = self._store.change(name, lambda job: self._seen(job, attempt, seen))
        if changed is None:
            self._seen_again(name, attempt, seen)
            return
        new, commit = changed
        if new.state.is_final:
            self._ended(new)
        elif new.attempt > attempt:
            self._failed(new, commit)
        elif new.started_at is not None and not new.ending:
            self._set_alarms(new)

    def _settled(self, job: Job) -> None:
        """Tell the backend that an end is durable. By the writing thread."""
        backend = self._backends.get(job.backend)
        if backend is not None:
            backend.settled(as_backend_sees(job))

    # --- at the start -------------------------------------------------------------------------

    def take_over(self, jobs: Iterable[Job]) -> dict[str, list[Job]]:
        """Know the unfinished jobs of a former daemon, in order; before anything else.

        Returns:
            What each backend is to reconcile, by its name: what it may have. See `reconcile`.
        """
        given: dict[str, list[Job]] = {name: [] for name in self._backends}
        held = []
        with self._lock:  # until all are here: the last may be the first to run
            for name in given:
                self._line.pause(name)
        for job in jobs:
            if job.backend not in self._backends:
                continue
            if job.is_held:
                held.append(job)
            else:
                with self._lock:
                    self._line.occupy(job)
                given[job.backend].append(as_backend_sees(job))
            self._set_alarms(job)
        for job in held:
            if job.hold == "after":
                others = job.after or []
                with self._lock:
                    self._depend(job.name, others)
                self._look_at_others(job.name, others)
            elif job.hold == "limit":
                with self._lock:
                    self._line.add(job)
        with self._lock:
            for name in given:
                self._line.resume(name)
        return given

    def reconcile(self, backend: Backend, jobs: Sequence[Job]) -> None:
        """Have a backend take over what `take_over` has returned for it."""
        backend.reconcile(jobs)
        for job in jobs:
            if job.ending == rules.CANCELING:
                self._tell(job_name_of(job.name))

    # --- from the queue's thread --------------------------------------------------------------

    def step(self) -> float | None:
        """Do what is due; return seconds until something is, or None."""
        with self._lock:
            due = self._alarms.due(self._now())
        for alarm in due:
            self._ring(alarm)
        while chosen := self._take_chosen():
            for name in chosen:
                self._release(name)
        with self._lock:
            at = self._alarms.next_at()
        return None if at is None else max(0.0, at - self._now())

    def _take_chosen(self) -> list[str]:
        with self._lock:
            return self._line.take_chosen()

    def _ring(self, alarm: Alarm) -> None:
        kind, name = alarm
        if kind == "resume":
            with self._lock:
                self._line.resume(name)
            return
        job = self._store.get(name)
        if job is None or job.state.is_final:
            return
        if not rules.is_due(job, kind, self._now()):
            self._set_alarms(job)  # the alarm was about a former try
        elif kind == "cancel":
            self._run(job.backend, self._tell, name)
        elif kind == "retry":
            self._to_line(job)
        elif kind == "timeout":
            self._end(job, rules.TIMEOUT, rules.timeout_message(job))
        else:
            message = rules.pending_message(job)
            if self._fail(name, rules.PENDING, message, lambda job: job.is_held) is None:
                self._end(job, rules.PENDING, message)

    # --- held jobs ----------------------------------------------------------------------------

    def _enter(self, job: Job, others: Sequence[str]) -> None:
        """Decide whether a new job has to wait, and for what."""
        if others:
            job.after = list(others)
            with self._lock:
                self._depend(job.name, others)
            job.hold, job.reason, job.message = "after", "after", _after_message(len(others))
        else:
            with self._lock:
                if self._line.pass_by(job):
                    return
                self._line.add(job, is_ready=False)
            job.hold, job.reason, job.message = "limit", "limit", LIMIT_MESSAGE
        job.state = JobState.QUEUED

    def _forget(self, job: Job) -> None:
        """Undo `_enter` for a job that was not accepted."""
        with self._lock:
            self._line.leave(job.name)
            self._depend_no_more(job.name, job.after or ())
        self._wake()

    def _depend(self, name: str, others: Iterable[str]) -> None:
        for other in others:
            self._dependents.setdefault(other, {})[name] = None

    def _depend_no_more(self, name: str, others: Iterable[str]) -> None:
        for other in others:
            dependents = self._dependents.get(other)
            if dependents is not None:
                dependents.pop(name, None)
                if not dependents:
                    del self._dependents[other]

    def _look_at_others(self, name: str, others: Sequence[str]) -> None:
        """See to it that nobody waits for a job that has ended meanwhile."""
        for other in others:
            job = self._store.get(other)
            if job is None or job.state.is_final:
                with self._lock:
                    self._depend_no_more(name, [other])
                failed = self._follow(name, other, job)
                if failed is not None:
                    self._ended(failed)
        if not others and (job := self._store.get(name)) is not None:
            self._to_line(job)

    def _to_line(self, job: Job) -> None:
        """Have a held job wait for a place, for nothing else any more."""
        with self._lock:
            is_chosen = self._line.add(job)
        if is_chosen:
            self._wake()
            return
        self._store.change(
            job.name,
            lambda job: _held(job, "limit", "limit", LIMIT_MESSAGE) if job.is_held else None,
        )

    def _release(self, name: str) -> None:
        """Have a job that has a place given to its backend, once that is durable."""
        changed = self._store.change(
            name,
            lambda job: (
                msgspec.structs.replace(
                    job,
                    hold="released",
                    reason="",
                    message="",
                    released_at=self._now(),
                    parts=[],
                    workers=[],
                    shown_attempt=0,
                )
                if job.is_held
                else None
            ),
        )
        if changed is None:
            with self._lock:
                self._line.leave(name)
            return
        job, commit = changed

        def give(error: SnapshotError | None) -> None:
            if error is None:  # else the daemon ends, and the next one finds it held
                self._run(job.backend, self._give, name)

        commit.on_done(give)

    def _give(self, name: str) -> None:
        """Give a released job to its backend. By a thread that may wait."""
        job = self._store.get(name)
        if job is None or job.state.is_final or job.hold != "released":
            return
        try:
            self._backend(job).submit(as_backend_sees(job))
        except BackendUnavailable as exc:
            self._give_later(job, exc)
        except PmanError as exc:
            self._fail(name, "submit_failed", exc.message)
        else:
            with self._lock:
                self._pauses_s.pop(job.backend, None)

    def _give_later(self, job: Job, error: BackendUnavailable) -> None:
        """Hold a job again, and all others of its backend, until it may be there."""
        with self._lock:
            pause_s = self._pauses_s.get(job.backend, PAUSE_FIRST_S)
            self._pauses_s[job.backend] = min(2 * pause_s, PAUSE_MAX_S)
            self._line.pause(job.backend)
            self._alarms.set(("resume", job.backend), self._now() + pause_s)
            self._line.leave(job.name)
        changed = self._store.change(job.name, lambda job: self._not_given(job, error.message))
        if changed is not None and changed[0].state.is_final:
            self._ended(changed[0])
        elif changed is not None:
            with self._lock:
                self._line.add(changed[0])
        self._wake()

    def _not_given(self, job: Job, message: str) -> Job | None:
        """Return a released job that its backend does not have: at its end if it was to end."""
        if job.hold != "released":
            return None
        ending = job.ending
        if ending == rules.CANCELING:
            return self._canceled_unstarted(job)
        if ending:
            return merge(job, _end_seen(job, JobState.FAILED, ending, job.message), self._now)
        return _held(job, "limit", "backend_unavailable", message)

    # --- starts and ends ----------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        """Hand a new job that nothing holds back to its backend.

        Raises:
            RequestError: It can't be taken as it is; nothing is kept of it.
            BackendError: It was not taken; it has FAILED.
            SnapshotError: It was not taken, which is not durable: a later daemon may start it.
        """
        try:
            self._backend(job).submit(job)
        except RequestError:
            self._forget(job)
            self._drop_alarms(job.name)
            self._store.remove([job.name])
            raise
        except BackendError as exc:
            failed = self._fail(job.name, "submit_failed", exc.message)
            if failed is not None:  # who hears that it was not taken may submit it elsewhere
                failed.wait(COMMIT_TIMEOUT_S)
            raise

    def _seen_plainly(self, job: Job, seen: Observation) -> Job | None:
        """As `_seen`, for a job that asks for nothing, if that is still so."""
        return merge(job, allowed(job, seen), self._now) if _is_plain(job) else None

    def _seen(self, job: Job, attempt: int, seen: Observation) -> Job | None:
        """Return what an observation makes of a job. With the store's lock held."""
        if job.attempt != attempt or job.is_held:
            return None
        seen = rules.judged(job, allowed(job, seen))
        if rules.has_another_try(job, seen):
            return rules.next_try(job, seen, self._now())
        return merge(job, seen, self._now)

    def _seen_again(self, name: str, attempt: int, seen: Observation) -> None:
        """Answer the end of a try that is known already: who reports it has not heard of it."""
        job = self._store.get(name)
        if job is None or seen.state is None or not seen.state.is_final:
            return
        if job.attempt == attempt and not job.is_held:
            self._store.observe(seen)
        elif attempt < job.attempt:
            past = past_try(job, attempt)
            with self._lock:
                is_open = past.name in self._open_tries
            if not is_open:
                self._settled(past)

    def _failed(self, job: Job, commit: Commit) -> None:
        """Have the next try of a job begin in time, and the end of the last one settled."""
        past = past_try(job, job.attempt - 1)

        def settle(error: SnapshotError | None) -> None:
            with self._lock:
                self._open_tries.discard(past.name)
            if error is None:
                self._settled(past)

        with self._lock:
            self._open_tries.add(past.name)
            self._line.leave(job.name)
            self._alarms.drop(("timeout", job.name))
        commit.on_done(settle)
        self._set_alarms(job)
        self._wake()

    def _end(self, job: Job, ending: str, message: str) -> None:
        """Have a job ended whose time is up, once it is durable why."""
        kind: Kind = "timeout" if ending == rules.TIMEOUT else "pending"
        with self._lock:  # until it has ended: its backend may be away, or restart meanwhile
            self._alarms.set((kind, job.name), self._now() + self._grace_s + TELL_AGAIN_S)
        if job.ending:
            self._run(job.backend, self._tell, job.name)
            return
        changed = self._store.change(
            job.name,
            lambda now: (
                None
                if now.is_held
                or (now.attempt, now.started_at) != (job.attempt, job.started_at)
                or now.ending
                else msgspec.structs.replace(now, reason=ending, message=message)
            ),
        )
        if changed is None:
            return

        def tell(error: SnapshotError | None) -> None:
            if error is None:
                self._run(job.backend, self._tell, job.name)

        changed[1].on_done(tell)

    def _tell(self, name: str) -> None:
        """Tell a backend to end a job. By a thread that may wait."""
        job = self._store.get(name)
        if job is None or job.is_held or not job.ending:
            return
        try:
            backend, ending = self._backend(job), job.ending
            grace_s, signal = self._grace(job)
            tell = backend.cancel_after_restart if ending == rules.CANCELING else backend.cancel
            tell(as_backend_sees(job), grace_s, signal)
        except PmanError as exc:
            _log.warning("job %s can't be ended now: %s", name, exc)
            self._look_after(name, 0.0)
        else:
            if ending == rules.CANCELING:
                self._look_after(name, grace_s)

    def _grace(self, job: Job) -> tuple[float, int | None]:
        """Return how long a job that is to end may still take, and the signal that asks it."""
        wish = job.cancel if job.ending == rules.CANCELING else None
        if wish is None:  # its time was up; or it was canceled by a pman that did not keep that
            return self._grace_s, None
        return wish.left_s(self._now()), wish.signal

    def _look_after(self, name: str, grace_s: float) -> None:
        """Tell again of a job that is to end, should it not have ended by then."""
        with self._lock:
            is_next = self._alarms.set(("cancel", name), self._now() + grace_s + TELL_AGAIN_S)
        job = self._store.get(name)
        if job is None or job.state.is_final:  # whose alarms are dropped already
            with self._lock:
                self._alarms.drop(("cancel", name))
        elif is_next:
            self._wake()

    def _not_canceled(self, job: Job, wish: Cancellation | None, former: Job) -> Job | None:
        """Return a job of which the backend could not be told that it is to end; None: it is to.

        Args:
            wish: How it was to end.
            former: The job before that.
        """
        if job.ending != rules.CANCELING or job.cancel != wish:
            return None
        if former.ending != rules.CANCELING and job.name in self._told:
            return None  # somebody else was answered that it ends
        return msgspec.structs.replace(
            job, reason=former.reason, message=former.message, cancel=former.cancel
        )

    def _canceled_unstarted(self, job: Job) -> Job:
        message = f"canceled before {'it was started' if job.attempt == 1 else 'its next try'}"
        return merge(job, _end_seen(job, JobState.CANCELED, "canceled", message), self._now)

    def _fail(
        self,
        name: str,
        reason: str,
        message: str,
        only_if: Callable[[Job], bool] = lambda _: True,
    ) -> Commit | None:
        """Have a job end FAILED that no backend has; None: it does not."""
        failed = self._change_to_failed(name, reason, message, only_if)
        if failed is None:
            return None
        self._ended(failed[0])
        return failed[1]

    def _change_to_failed(
        self, name: str, reason: str, message: str, only_if: Callable[[Job], bool]
    ) -> tuple[Job, Commit] | None:
        return self._store.change(
            name,
            lambda job: (
                merge(job, _end_seen(job, JobState.FAILED, reason, message), self._now)
                if only_if(job)
                else None
            ),
        )

    def _ended(self, job: Job | None, name: str = "") -> None:
        """Do what follows the end of a job, and of those that end with it.

        Args:
            job: As it has ended; None: it is gone.
            name: Its name, then.
        """
        ends: collections.deque[tuple[str, Job | None]] = collections.deque()
        ends.append((job.name if job is not None else name, job))
        while ends:
            name, job = ends.popleft()
            with self._lock:
                self._line.leave(name)
                dependents = self._dependents.pop(name, None) if self._dependents else None
                if job is not None and job.after:
                    self._depend_no_more(name, job.after)
                self._alarms.drop(("cancel", name))
                self._told.discard(name)
            if job is None or job.timeout_s is not None or job.pending_timeout_s is not None:
                self._drop_alarms(name)
            for other in dependents or ():
                failed = self._follow(other, name, job)
                if failed is not None:
                    ends.append((other, failed))
        self._wake()

    def _follow(self, name: str, other: str, job: Job | None) -> Job | None:
        """Do what follows for a job from the end of one that it waits for.

        Args:
            name: Of the job that waits.
            other: Name of the one that has ended.
            job: That one, as it has ended; None: it is gone.
        Returns:
            The job that waits, if it has failed with the other.
        """
        if job is None or job.state is not JobState.COMPLETED:
            return self._fail_with(name, other, job)
        self._one_less(name, other)
        return None

    def _one_less(self, name: str, other: str) -> None:
        """Have a job wait no more for another, which has ended well."""

        def without(job: Job) -> Job | None:
            if job.hold != "after" or other not in (job.after or ()):
                return None
            left = [each for each in job.after or () if each != other]
            return msgspec.structs.replace(job, after=left, message=_after_message(len(left)))

        changed = self._store.change(name, without)
        if changed is not None and not changed[0].after:
            self._to_line(changed[0])

    def _fail_with(self, name: str, other: str, job: Job | None) -> Job | None:
        """Have a job fail because one that it waits for has not ended well; None: it does not."""
        how = "is gone" if job is None else f"is {job.state.value}"
        who = f"job {job.jid!r}" if job is not None and job.jid else f"the job {other}"
        message = f"{who}, which it was to follow, {how}"
        failed = self._change_to_failed(
            name, "dependency_failed", message, lambda job: job.hold == "after"
        )
        return None if failed is None else failed[0]

    def _on_exchanged(self, gone: Sequence[Job], placed: Sequence[Job]) -> None:
        """Learn that jobs are gone; whoever waits for one waits no more."""
        for job in gone:
            if job.name in self._dependents:
                self._ended(job if job.state.is_final else None, job.name)

    # --- parts --------------------------------------------------------------------------------

    def _backend(self, job: Job) -> Backend:
        backend = self._backends.get(job.backend)
        if backend is None:
            raise BackendUnavailable(
                f"job {job.jid!r} runs on the backend {job.backend!r}, which this pman was not"
                " started with; start it with that --container-env",
                field="value",
            )
        return backend

    def _set_alarms(self, job: Job) -> None:
        """Set the alarms that follow from a record."""
        is_next = False
        with self._lock:
            if job.hold == "retry" and job.not_before is not None:
                is_next |= self._alarms.set(("retry", job.name), job.not_before)
            start_by, end_by = rules.start_deadline(job), rules.end_deadline(job)
            if end_by is not None:
                is_next |= self._alarms.set(("timeout", job.name), end_by)
            if job.started_at is not None and job.ending != rules.PENDING:
                self._alarms.drop(("pending", job.name))
            elif start_by is not None:
                is_next |= self._alarms.set(("pending", job.name), start_by)
        if is_next:
            self._wake()

    def _drop_alarms(self, name: str) -> None:
        with self._lock:
            for kind in JOB_ALARMS:
                self._alarms.drop((kind, name))


#: What a job is shown with that waits for a place.
LIMIT_MESSAGE = "waits until fewer jobs run: see --maxJobs and --maxJobsPerAuid"


def _is_plain(job: Job) -> bool:
    """Tell whether what is seen of a job needs no thought: most jobs ask for nothing."""
    return (
        job.attempt == 1
        and not job.retries
        and not job.hold
        and job.timeout_s is None
        and job.pending_timeout_s is None
        and not job.ending
    )


def _held(job: Job, hold: Hold, reason: str, message: str) -> Job:
    return msgspec.structs.replace(job, hold=hold, reason=reason, message=message)


def _end_seen(job: Job, state: JobState, reason: str, message: str) -> Observation:
    return Observation(name=job.name, state=state, reason=reason, message=message, hold="")


def _after_message(count: int) -> str:
    return f"waits for {count} other job{'s' if count != 1 else ''} to end well"
