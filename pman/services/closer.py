"""`BackendCloser`: gives the backends their place in the order of the stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from pman.backends.base import Backend
from pman.errors import BackendError, UnknownJob
from pman.job.record import Job
from pman.jobdb.store import JobStore
from pman.queue import JobQueue
from pman.services.base import Service
from pman.services.errands import Errands
from pman.wire import HOST

_log = logging.getLogger(__name__)

#: What canceled jobs get beyond their grace until their end is recorded, seconds.
BEYOND_GRACE_S = 2.0


class BackendCloser(Service):
    """Closes the backends after the listeners and before the disks; ends host jobs if asked to."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        errands: Errands,
        store: JobStore,
        queue: JobQueue,
        kill_grace_s: float | None,
    ) -> None:
        """Make a closer.

        Args:
            backends: By name.
            errands: Ended first.
            store: Knows which jobs run.
            queue: Ends them; what it holds back stays, for the next daemon.
            kill_grace_s: How long host jobs may take to end when they are told to; None leaves
                them running.
        """
        super().__init__("backends")
        self._backends = backends
        self._errands = errands
        self._store = store
        self._queue = queue
        self._kill_grace_s = kill_grace_s

    def teardown(self) -> None:
        """End what is to be ended, and close the backends; all other jobs run on."""
        self._errands.close()
        if self._kill_grace_s is not None:
            self._end_host_jobs(self._kill_grace_s)
        for backend in self._backends.values():
            backend.close()

    def _end_host_jobs(self, grace_s: float) -> None:
        deadline = time.monotonic() + grace_s + BEYOND_GRACE_S
        jobs = [job for job in self._store.unfinished() if job.backend == HOST and not job.is_held]
        ends = [self._end(job, grace_s) for job in jobs]
        late = [end for end in ends if not end.wait(max(0.0, deadline - time.monotonic()))]
        if late:
            _log.error("%d of %d host jobs have not ended in time", len(late), len(jobs))

    def _end(self, job: Job, grace_s: float) -> threading.Event:
        """Cancel a job; return what is set once its end is known."""
        end = threading.Event()
        try:
            self._queue.cancel(job, grace_s)
            self._store.when_final(job.name, lambda _: end.set())
        except BackendError as exc:
            _log.error("job %s runs on: %s", job.name, exc)
            end.set()
        except UnknownJob:
            end.set()
        return end
