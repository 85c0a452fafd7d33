"""`Saver`: the thread that keeps the readable snapshot up to date."""

from __future__ import annotations

import logging
import threading
import time

from pman.config import Settings
from pman.errors import SnapshotError
from pman.jobdb.record_json import UNSPELLABLE
from pman.jobdb.snapshot import SNAPSHOT_NAME, SnapshotFolder
from pman.jobdb.store import JobStore
from pman.jobdb.view import job_tree
from pman.output import OutputFiles
from pman.services.base import Service

_log = logging.getLogger(__name__)

#: How long the last save may take, seconds. What it leaves out is in `pman.db`, and in the snapshot
#: soon after the next start.
LAST_SAVE_S = 2.5


class _Demand:
    """Somebody who waits for a save that begins after he asked."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: SnapshotError | None = None


class Saver(Service):
    """Writes what has changed, every `db_save_period_s` seconds and on demand."""

    def __init__(self, settings: Settings, store: JobStore, output: OutputFiles) -> None:
        super().__init__("saver")
        self._period_s = settings.db_save_period_s or None
        self._store = store
        self._output = output
        self._folder = SnapshotFolder(settings.db_path / SNAPSHOT_NAME)
        self._saved: dict[str, int] | None = None  # name -> revision on disk; None: not looked yet
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._demands: list[_Demand] = []
        self._is_closed = False
        self._logged: set[str] = set()

    def save_now(self, timeout_s: float) -> None:
        """Write what has changed; return when it is there.

        Raises:
            SnapshotError: Some of it could not be written, or not in time.
        """
        demand = _Demand()
        with self._lock:
            if self._is_closed:
                raise SnapshotError("pman is stopping, the snapshot is not written any more")
            self._demands.append(demand)
        self._wake.set()
        if not demand.done.wait(timeout_s):
            raise SnapshotError(f"the snapshot took longer than {timeout_s} s to write")
        if demand.error is not None:
            raise SnapshotError(demand.error.message) from demand.error

    def request_stop(self) -> None:
        """Ask for the end; what has changed is saved first, as far as time allows."""
        super().request_stop()
        self._wake.set()

    def serve(self) -> None:
        """Save until `stopping` is set, and once more then."""
        while not self.stopping.is_set():
            self._wake.wait(self._period_s)
            self._wake.clear()
            if not self.stopping.is_set():
                self._answer()
        self._answer(time.monotonic() + LAST_SAVE_S)

    def teardown(self) -> None:
        """Turn away who asked too late."""
        with self._lock:
            self._is_closed = True
            late, self._demands = self._demands, []
        for demand in late:
            demand.error = SnapshotError("pman stopped before the snapshot was written")
            demand.done.set()

    def _answer(self, deadline: float | None = None) -> None:
        """Save, and tell those who asked before it began."""
        with self._lock:
            demands, self._demands = self._demands, []
        error = self._save(deadline)
        for demand in demands:
            demand.error = error
            demand.done.set()

    def _save(self, deadline: float | None) -> SnapshotError | None:
        """Write each job that has changed; return the last of the errors."""
        failed: SnapshotError | None = None
        failures = 0
        try:
            saved = self._look()
        except SnapshotError as exc:
            self._log_once(exc)
            return exc
        for name in self._changes(saved):
            if deadline is not None and time.monotonic() > deadline:
                _log.warning("the last snapshot is not complete; the next start completes it")
                break
            try:
                self._save_job(name, saved)
            except SnapshotError as exc:
                failed = exc
                failures += 1
                self._log_once(exc)
        if failed is None:
            self._logged.clear()
            return None
        return SnapshotError(f"{failures} jobs are not in the snapshot: {failed.message}")

    def _look(self) -> dict[str, int]:
        """Return what is on disk of the jobs that we have; looked at once, kept up to date."""
        if self._saved is None:
            found = self._folder.revisions()
            # The others belong to no job of ours: nobody asked for their removal, so they stay.
            self._saved = {name: found[name] for name in self._store.names() if name in found}
        return self._saved

    def _changes(self, saved: dict[str, int]) -> list[str]:
        """Return the jobs whose file is to be written or to be removed."""
        jobs = self._store.jobs()
        changed = [job.name for job in jobs if saved.get(job.name) != job.revision]
        if len(saved) + len(changed) > len(jobs):
            names = {job.name for job in jobs}
            changed += [name for name in saved if name not in names]
        return changed

    def _save_job(self, name: str, saved: dict[str, int]) -> None:
        job = self._store.get(name)
        if job is None:
            self._folder.remove(name)
            saved.pop(name, None)
            return
        try:
            # Each sub-job once: 2.2's copies would make it grow with the square of their number.
            tree = job_tree(job, self._output.read_text, is_cumulative=False)
            self._folder.write(job, tree)
        except UNSPELLABLE as exc:
            raise SnapshotError(f"job {name} cannot be put in the snapshot: {exc!r}") from exc
        saved[name] = job.revision

    def _log_once(self, error: SnapshotError) -> None:
        """Log an error unless one of its kind has been logged since the last save that worked."""
        cause = error.__cause__
        kind = repr(cause if isinstance(cause, OSError) else error)
        if kind not in self._logged:
            self._logged.add(kind)
            _log.error("%s", error)
