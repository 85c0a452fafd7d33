"""`Writer`: the one thread that writes `pman.db`, many changes to a commit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from pman.errors import PmanError, SnapshotError
from pman.job.event import Event
from pman.job.record import Job
from pman.jobdb.database import Database
from pman.jobdb.journal import Commit, Done
from pman.jobdb.numbering import Numbering
from pman.jobdb.outbox import Letter, OutboxChanges, letter_for
from pman.jobdb.record_json import UNSPELLABLE, encode_record
from pman.meters import CommitMeter
from pman.services.base import Service

_log = logging.getLogger(__name__)

#: Between two tries to write what the disk did not take, seconds; doubled up to the second. If
#: somebody waits for a change that has come since, the first.
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 30.0


class _Change(msgspec.Struct):
    """What one call of the journal asked for.

    Attributes:
        commit: Told how it ends.
        deletes: Names; go first.
        jobs: States to write; `record` is the encoded form of the only one, if there is one.
        is_fresh: Fails at once instead of being tried again.
        events: What has happened; numbered when it is written.
        is_end: Whether somebody is to be called back, as this is the end of the only job.
        outbox: What has become of letters.
    """

    commit: Commit
    deletes: Sequence[str] = ()
    jobs: Sequence[Job] = ()
    record: bytes | None = None
    is_fresh: bool = False
    events: Sequence[Event] = ()
    is_end: bool = False
    outbox: OutboxChanges | None = None


class _Batch(msgspec.Struct):
    """What one transaction writes; see `Database.apply`."""

    upserts: list[tuple[str, bytes]]
    deletes: list[str]
    events: list[Event]
    outbox: OutboxChanges | None


#: Takes events that have become durable.
OnEvents = Callable[[Sequence[Event]], None]

#: Takes letters that have become durable.
OnLetters = Callable[[Sequence[Letter]], None]


class Writer(Service):
    """A `Journal`: whatever came in while one commit was under way makes up the next one.

    Attributes:
        numbering: Gives events their numbers.
    """

    def __init__(
        self, database: Database, keep_events: int = 0, meter: CommitMeter | None = None
    ) -> None:
        """Prepare a writer.

        Args:
            keep_events: About how many events stay on disk; 0: all.
            meter: Kept up to date.
        Raises:
            SnapshotError: The data base cannot be read.
        """
        super().__init__("writer")
        self._database = database
        self._meter = meter or CommitMeter()
        database.keep_events = keep_events
        self.numbering = Numbering(database.last_seq)
        self._events_callbacks: list[OnEvents] = []
        self._letters_callbacks: list[OnLetters] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._queue: list[_Change] = []
        self._is_closed = False
        self._is_awaited = False  # whether somebody waits for one that is queued
        # Of the writer's thread alone:
        self._kept: list[_Change] = []  # to be tried again
        self._failed_at = 0.0  # when that was tried last, monotonic seconds

    def on_events(self, callback: OnEvents) -> None:
        """Have `callback` called with events that have become durable, in order.

        Called by the thread that writes, before anybody goes on who waits for the changes and after
        these can be seen in the store: it must return at once.
        """
        self._events_callbacks.append(callback)

    def on_letters(self, callback: OnLetters) -> None:
        """Have `callback` called with letters that have become durable; as with `on_events`."""
        self._letters_callbacks.append(callback)

    # --- the journal, from any thread -----------------------------------------------------

    def write(
        self,
        job: Job,
        *,
        fresh: bytes | None = None,
        on_done: Done | None = None,
        events: Sequence[Event] = (),
    ) -> Commit:
        """Have the state of one job written; see `Journal`.

        Raises:
            SnapshotError: `fresh` was given, and the writer has stopped.
        """
        change = _Change(
            Commit(on_done),
            (),
            (job,),
            fresh,
            fresh is not None,
            events,
            bool(job.callback) and job.state.is_final and bool(events),
        )
        if not self._enqueue(change, is_awaited=change.is_fresh):
            if fresh is not None:
                raise _closed()
            return _dropped()
        return change.commit

    def delete(self, names: Sequence[str], events: Sequence[Event] = ()) -> Commit:
        """Have jobs removed; see `Journal`."""
        change = _Change(Commit(), tuple(names), events=events)
        return change.commit if self._enqueue(change) else _dropped()

    def replace(
        self, names: Sequence[str], jobs: Sequence[Job], events: Sequence[Event] = ()
    ) -> Commit:
        """Have jobs removed and others put behind all that are left; see `Journal`."""
        change = _Change(Commit(), tuple(names), tuple(jobs), events=events)
        return change.commit if self._enqueue(change) else _dropped()

    def barrier(self) -> Commit:
        """Return the promise of all that was handed over until now; see `Journal`."""
        change = _Change(Commit(), is_fresh=True)
        return change.commit if self._enqueue(change) else _dropped()

    def change_outbox(self, changes: OutboxChanges) -> None:
        """Have written what has become of letters; tried again until it works."""
        self._enqueue(_Change(Commit(), outbox=changes), is_awaited=False)

    def _enqueue(self, change: _Change, *, is_awaited: bool = True) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            self._queue.append(change)
            self._is_awaited |= is_awaited
        self._wake.set()
        return True

    # --- the service ----------------------------------------------------------------------

    def request_stop(self) -> None:
        """Ask for the end; what is queued is written first."""
        super().request_stop()
        self._wake.set()

    def serve(self) -> None:
        """Write what is queued until `stopping` is set and nothing is left."""
        retry_s = RETRY_FIRST_S
        while True:
            is_due = self._wait_for_turn(retry_s)
            is_last = self.stopping.is_set()
            if self._write_queued():
                retry_s = RETRY_FIRST_S
            elif is_due:
                retry_s = min(2 * retry_s, RETRY_MAX_S)
            if is_last:
                return

    def _wait_for_turn(self, retry_s: float) -> bool:
        """Wait until there is something to write, and the disk may be asked for it.

        Each try takes all that is kept: with one for each change that comes, a full disk would
        cost the more the longer it lasts.

        Returns:
            Whether something was kept and `retry_s` has passed.
        """
        if not self._kept:
            self._wake.wait()
            self._wake.clear()
            return False
        while not self.stopping.is_set():
            since_s = time.monotonic() - self._failed_at
            if since_s >= retry_s:
                return True
            wait_s = min(RETRY_FIRST_S, retry_s) if self._is_awaited else retry_s
            if since_s >= wait_s:
                return False
            self._wake.wait(wait_s - since_s)
            self._wake.clear()
        return False

    def teardown(self) -> None:
        """Take nothing more; write what came in last; tell those who wait for more."""
        with self._lock:
            self._is_closed = True
        if self._queue:
            self._write_queued()
        for change in self._kept:
            change.commit.settle(_closed())
        if self._kept:
            _log.error("%d changes of jobs could not be written", len(self._kept))
        self._database.close()

    def _write_queued(self) -> bool:
        """Write what is queued and what was kept; return whether the disk took it."""
        with self._lock:
            queued, self._queue = self._queue, []
            self._is_awaited = False
        changes = self._kept + queued
        if not changes:
            return True
        begun_at = time.monotonic()
        try:
            batch = _fold(changes, self.numbering)
            self._database.apply(batch.upserts, batch.deletes, batch.events, batch.outbox)
        except SnapshotError as exc:
            self._meter.failures += 1
            self.numbering.take_back(self._database.horizon.of(None))
            self._keep(changes, exc)
            return False
        finally:
            self._meter.times.add(time.monotonic() - begun_at)
            self._meter.sizes.add(len(changes))
        if self._kept:
            _log.info("the job DB takes changes again")
        self._kept = []
        for change in changes:
            change.commit.call_back()
        self._publish(batch)
        for change in changes:
            change.commit.release()
        return True

    def _publish(self, batch: _Batch) -> None:
        if batch.events:
            for take_events in self._events_callbacks:
                take_events(batch.events)
            self.numbering.settle()
        if batch.outbox is not None and batch.outbox.new:
            for take_letters in self._letters_callbacks:
                take_letters(batch.outbox.new)

    def _keep(self, changes: Iterable[_Change], error: SnapshotError) -> None:
        if not self._kept:
            _log.error("changes of jobs wait for the disk: %s", error)
        kept = []
        for change in changes:
            if change.is_fresh:
                change.commit.settle(error)
            else:
                change.commit.postpone(error)
                kept.append(change)
        self._kept = kept
        self._failed_at = time.monotonic()


def _fold(changes: Sequence[_Change], numbering: Numbering) -> _Batch:
    """Return what to write: of each job only the newest state, but all that has happened to it."""
    newest: dict[str, tuple[Job, bytes | None]] = {}
    deletes: dict[str, None] = {}
    for change in changes:
        for name in change.deletes:
            newest.pop(name, None)
            deletes[name] = None
        for job in change.jobs:
            newest[job.name] = (job, change.record)
    upserts = []
    lost = set()
    for name, (job, record) in newest.items():
        encoded = record or _encode(job)
        if encoded is None:
            lost.add(name)
        else:
            upserts.append((name, encoded))
    events = _happened(changes, lost)
    numbering.give(events)
    return _Batch(upserts, list(deletes), events, _fold_outbox(changes, lost))


def _happened(changes: Iterable[_Change], lost: set[str]) -> list[Event]:
    """Return the events, but for those of jobs whose state cannot be written.

    Those of one change have one moment. The events of each user stand together there, so that
    their numbers do not count others between them.
    """
    events: list[Event] = []
    for change in changes:
        together = change.events
        if len(together) > 1:
            together = sorted(together, key=_user)
        events += [event for event in together if event.job not in lost]
    return events


def _user(event: Event) -> str:
    return event.auid


def _fold_outbox(changes: Iterable[_Change], lost: set[str]) -> OutboxChanges | None:
    new: list[Letter] = []
    tried: list[Letter] = []
    done: list[str] = []
    for change in changes:
        if change.is_end and change.jobs[0].name not in lost:
            new.append(letter_for(change.jobs[0], change.events[-1]))
        if change.outbox is not None:
            new += change.outbox.new
            tried += change.outbox.tried
            done += change.outbox.done
    return OutboxChanges(new, tried, done) if new or tried or done else None


def _encode(job: Job) -> bytes | None:
    """Encode a later state; what cannot be written down must not take the rest with it.

    Returns:
        The record, without what the backend knows of the job if that is at fault; None: as it is
        the job cannot be written at all.
    """
    try:
        return encode_record(job)
    except (PmanError, *UNSPELLABLE) as exc:
        _log.error("job %s: what its backend knows of it cannot be kept: %r", job.name, exc)
    try:
        return encode_record(msgspec.structs.replace(job, handle=None, extra=None))
    except (PmanError, *UNSPELLABLE) as exc:
        _log.error("job %s: its state is not in the job DB: %r", job.name, exc)
        return None


def _closed() -> SnapshotError:
    return SnapshotError("pman is stopping, the job DB takes no more changes")


def _dropped() -> Commit:
    commit = Commit()
    commit.settle(_closed())
    return commit
