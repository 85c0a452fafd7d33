"""`Keeper`: the thread that lets finished jobs go when there are too many of them, and orphans."""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from pman.backends.base import Backend, discard
from pman.config import Settings
from pman.errors import PmanError, SnapshotError
from pman.job.record import Job
from pman.jobdb.orphans import OrphanRemoval
from pman.jobdb.retention import Ledger, Limits
from pman.jobdb.snapshot import SNAPSHOT_NAME, SnapshotFolder
from pman.jobdb.store import JobStore
from pman.output import OutputFiles
from pman.services.base import Service

_log = logging.getLogger(__name__)

#: Jobs that go at a time: one transaction, and some milliseconds of removing files.
STEP_JOBS = 50

#: Between two such steps, and between two looks at as many output folders, so that whoever needs
#: the disk or the interpreter gets it, seconds.
PAUSE_S = 0.01

#: Jobs that end within this time are looked at together, seconds.
GATHER_S = 0.25

#: How often the age of jobs is looked at, and what could not be removed is tried again, seconds.
PERIOD_S = 60.0

DAY_S = 24 * 3600


class Keeper(Service):
    """Drops finished jobs beyond `keep_jobs`, `keep_days` and `keep_bytes`, in order of their end.

    A job that was imported counts as if it had ended when it came: nobody has seen it here before.
    A job that goes leaves its backend, its files, the snapshot, the memory and `pman.db`, in this
    order. What a crash leaves undone is found again at the next start: the record is still there.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        backends: Mapping[str, Backend],
        output: OutputFiles,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a keeper; the store tells it what ends from now on.

        Args:
            backends: May be filled until `start`.
            now: UTC epoch seconds.
        """
        super().__init__("keeper")
        self._store = store
        self._backends = backends
        self._output = output
        self._now = now
        self._snapshot = SnapshotFolder(settings.db_path / SNAPSHOT_NAME)
        self._ledger = Ledger(
            Limits(settings.keep_jobs, settings.keep_days * DAY_S, settings.keep_bytes)
        )
        self._orphans = OrphanRemoval(output.root)
        self._news: collections.deque[tuple[bool, str]] = collections.deque()
        self._unmeasured: collections.deque[str] = collections.deque()
        self._wake = threading.Event()
        store.on_settled(self._on_settled)
        store.on_exchanged(self._on_exchanged)

    # --- from any thread ------------------------------------------------------------------

    def request_stop(self) -> None:
        """Ask for the end; what is left to do is found again at the next start."""
        super().request_stop()
        self._wake.set()

    def _on_settled(self, job: Job) -> None:
        self._tell(True, (job,))

    def _on_exchanged(self, gone: Sequence[Job], placed: Sequence[Job]) -> None:
        self._tell(False, (*gone, *placed))  # one that came back has a new place in the order
        self._tell(True, sorted(placed, key=_order))

    def _tell(self, is_here: bool, jobs: Iterable[Job]) -> None:
        self._news.extend((is_here, job.name) for job in jobs)
        if not self._wake.is_set():
            self._wake.set()

    # --- the service ----------------------------------------------------------------------

    def serve(self) -> None:
        """Keep within the limits until `stopping` is set."""
        self._take_stock()
        retry_at = time.monotonic() + PERIOD_S
        while not self.stopping.is_set():
            self._wake.clear()
            self._take_news()
            self._measure()
            if time.monotonic() > retry_at:
                self._ledger.release()
                retry_at = time.monotonic() + PERIOD_S
            has_orphans = self._orphans.step(STEP_JOBS)
            if self._drop() or self._unmeasured or has_orphans:
                self.stopping.wait(PAUSE_S)
            else:
                self._wake.wait(PERIOD_S)
                self.stopping.wait(GATHER_S)

    def _take_stock(self) -> None:
        """Take in what was there at the start."""
        finished = (job for job in self._store.jobs() if job.state.is_final)
        for job in sorted(finished, key=_order):
            self._add(job.name)

    def _take_news(self) -> None:
        while self._news:
            is_here, name = self._news.popleft()
            # A job may go before we hear of its end; that it has gone comes behind it, then.
            if is_here and self._store.get(name) is not None:
                self._add(name)
            else:
                self._ledger.discard(name)

    def _add(self, name: str) -> None:
        if name not in self._ledger:
            self._ledger.add(name)
        self._unmeasured.append(name)

    def _measure(self) -> None:
        """Look how much some of the jobs have printed."""
        for _ in range(min(STEP_JOBS, len(self._unmeasured))):
            name = self._unmeasured.popleft()
            if name in self._ledger:
                job = self._store.get(name)
                attempts = 1 if job is None else job.attempt
                self._ledger.add(name, self._output.size_bytes(name, attempts))

    def _drop(self) -> bool:
        """Let some jobs go that are too many; return whether there were any."""
        names = self._ledger.surplus(self._now(), self._kept_since, STEP_JOBS)
        gone = [job for name in names if (job := self._discard(name)) is not None]
        if gone:
            self._forget(gone)
        return bool(names)

    def _forget(self, jobs: list[Job]) -> None:
        try:
            self._store.clear(jobs)
        except SnapshotError as exc:
            # The writer tries again, and the next start finds what is left.
            _log.error("jobs that were to go are still in the job DB: %s", exc)
        for job in jobs:
            self._ledger.discard(job.name)

    def _discard(self, name: str) -> Job | None:
        """Remove what a job has left everywhere but in the store; None: it stays, or has gone."""
        job = self._store.get(name)
        if job is None:
            self._ledger.discard(name)
            return None
        try:
            discard(job, self._backends, self._output)
            self._snapshot.remove(name)
        except (PmanError, OSError) as exc:
            _log.error("job %s is kept for now: %s", name, exc)
            self._ledger.hold(name)
            return None
        return job

    def _kept_since(self, name: str) -> float:
        job = self._store.get(name)
        return 0.0 if job is None else _kept_since(job)


def _kept_since(job: Job) -> float:
    """Return the moment that the age of a finished job counts from."""
    return max(_ended_at(job), job.imported_at or 0.0)


def _order(job: Job) -> tuple[float, float, str]:
    return _kept_since(job), _ended_at(job), job.name


def _ended_at(job: Job) -> float:
    return job.accepted_at if job.ended_at is None else job.ended_at
