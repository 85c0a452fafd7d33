"""`Writer`: the one thread that writes `pman.db`, many changes to a commit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence

import msgspec

from pman.errors import PmanError, SnapshotError
from pman.job.record import Job
from pman.jobdb.database import Database
from pman.jobdb.journal import Commit, Done
from pman.jobdb.record_json import UNSPELLABLE, encode_record
from pman.meters import CommitMeter
from pman.services.base import Service

_log = logging.getLogger(__name__)

#: Between two tries to write what the disk did not take, seconds; doubled up to the second.
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 30.0


class _Change(msgspec.Struct):
    """What one call of the journal asked for.

    Attributes:
        commit: Told how it ends.
        deletes: Names; go first.
        jobs: States to write; `record` is the encoded form of the only one, if there is one.
        is_fresh: Fails at once instead of being tried again.
    """

    commit: Commit
    deletes: Sequence[str] = ()
    jobs: Sequence[Job] = ()
    record: bytes | None = None
    is_fresh: bool = False


class Writer(Service):
    """A `Journal`: whatever came in while one commit was under way makes up the next one."""

    def __init__(self, database: Database, meter: CommitMeter | None = None) -> None:
        super().__init__("writer")
        self._database = database
        self._meter = meter or CommitMeter()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._queue: list[_Change] = []
        self._is_closed = False
        self._kept: list[_Change] = []  # of the writer's thread alone: to be tried again

    # --- the journal, from any thread -----------------------------------------------------

    def write(self, job: Job, *, fresh: bytes | None = None, on_done: Done | None = None) -> Commit:
        """Have the state of one job written; see `Journal`.

        Raises:
            SnapshotError: `fresh` was given, and the writer has stopped.
        """
        change = _Change(Commit(on_done), (), (job,), fresh, fresh is not None)
        if not self._enqueue(change):
            if fresh is not None:
                raise _closed()
            return _dropped()
        return change.commit

    def delete(self, names: Sequence[str]) -> Commit:
        """Have jobs removed; see `Journal`."""
        change = _Change(Commit(), tuple(names))
        return change.commit if self._enqueue(change) else _dropped()

    def replace(self, names: Sequence[str], jobs: Sequence[Job]) -> Commit:
        """Have jobs removed and others put behind all that are left; see `Journal`."""
        change = _Change(Commit(), tuple(names), tuple(jobs))
        return change.commit if self._enqueue(change) else _dropped()

    def _enqueue(self, change: _Change) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            self._queue.append(change)
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
            is_last = self.stopping.is_set()
            has_news = self._wake.wait(0 if is_last else retry_s if self._kept else None)
            self._wake.clear()
            if self._write_queued():
                retry_s = RETRY_FIRST_S
            elif not has_news:
                retry_s = min(2 * retry_s, RETRY_MAX_S)
            if is_last:
                return

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
        changes = self._kept + queued
        if not changes:
            return True
        begun_at = time.monotonic()
        try:
            self._database.apply(*_fold(changes))
        except SnapshotError as exc:
            self._meter.failures += 1
            self._keep(changes, exc)
            return False
        finally:
            self._meter.times.add(time.monotonic() - begun_at)
            self._meter.sizes.add(len(changes))
        if self._kept:
            _log.info("the job DB takes changes again")
        self._kept = []
        for change in changes:
            change.commit.settle()
        return True

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


def _fold(changes: Iterable[_Change]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Return records to write and names to delete first, the newest state of each job only."""
    newest: dict[str, tuple[Job, bytes | None]] = {}
    deletes: dict[str, None] = {}
    for change in changes:
        for name in change.deletes:
            newest.pop(name, None)
            deletes[name] = None
        for job in change.jobs:
            newest[job.name] = (job, change.record)
    encoded = ((name, record or _encode(job)) for name, (job, record) in newest.items())
    return [(name, record) for name, record in encoded if record is not None], list(deletes)


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
