"""`JobQueue` on a real job DB and the stub backend, with a clock that is set by hand."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from daemon_process import wait_until
from jobdb_builders import stop

from pman.backends.base import BackendContext
from pman.backends.stub import StubBackend
from pman.config import Settings
from pman.errors import BackendUnavailable
from pman.job.record import Job, as_backend_sees, new_job
from pman.job.spec import spec_from_meta
from pman.job.state import JobState
from pman.jobdb.database import Database
from pman.jobdb.store import JobStore
from pman.output import OutputFiles
from pman.queue import JobQueue
from pman.services.writer import Writer

#: A moment, in UTC epoch seconds.
THEN = 1_795_423_317.0


class QueueStub(StubBackend):
    """The stub, which may be away; remembers what it was given, in order."""

    name = "host"

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self.is_away = False
        self.given: list[Job] = []
        self.settled_names: list[str] = []

    def submit(self, job: Job) -> None:
        if self.is_away:
            raise BackendUnavailable("the stub is away")
        self.given.append(job)
        super().submit(job)

    def settled(self, job: Job) -> None:
        self.settled_names.append(job.name)
        super().settled(job)


class QueueHarness:
    """A queue, and all that it works on; `restart` is what a kill -9 leaves."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = Settings(db_path=folder, **settings)
        self.time = THEN
        Database.create(folder / "pman.db", [], str(uuid.uuid4())).close()
        self._open()

    def _open(self) -> None:
        database = Database.open(self.folder / "pman.db")
        jobs = database.read_all()
        self.writer = Writer(database)
        self.writer.start()
        self.writer.wait_ready()
        self.store = JobStore(self.writer, self.now)
        self.store.load(jobs)
        self.backend = QueueStub(
            BackendContext(
                settings=self.settings,
                instance="test",
                state_path=self.folder / "stub",
                output=OutputFiles(self.folder / "output", 1 << 20),
            )
        )
        self.queue = JobQueue(self.store, {"host": self.backend}, self.settings, self.now)
        given = self.queue.take_over(self.store.unfinished())
        self.backend.start(self.queue.observe)
        self.queue.reconcile(self.backend, given["host"])

    def restart(self) -> None:
        """Begin anew with what is on disk and what the engine knows."""
        self.close()
        self._open()

    def close(self) -> None:
        self.backend.close()
        stop(self.writer)

    def now(self) -> float:
        return self.time

    def submit(self, jid: str, cmd: str = "wait", *, after: Sequence[Job] = (), **meta: Any) -> Job:
        spec = spec_from_meta({"cmd": cmd, "auid": "t", "jid": jid, **meta})
        self.time += 0.001
        job, _ = self.queue.submit(
            new_job(spec, "host", self.time), after=after, idempotent=spec.idempotent
        )
        return job

    def job(self, job: Job) -> Job:
        """Return how a job stands."""
        found = self.store.get(job.name)
        assert found is not None
        return found

    def end(self, job: Job, code: int = 0) -> None:
        """Have a job end in the stub."""
        self.backend.end(as_backend_sees(self.job(job)).name, code)

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """Return what `look` returns once it is true; the queue does its work meanwhile."""

        def turn() -> Any:
            self.queue.step()
            return look()

        return wait_until(turn, what)

    def wait_state(self, job: Job, *states: JobState) -> Job:
        return self.until(
            lambda: self.job(job) if self.job(job).state in states else None,
            f"{job.jid} is one of {states}",
        )

    def wait_running(self, *jobs: Job) -> None:
        for job in jobs:
            self.wait_state(job, JobState.RUNNING)

    def settle(self) -> None:
        """Have all that follows from what has happened be done."""
        self.queue.step()
        self.writer.delete([]).wait(20.0)
        self.queue.step()

    def given(self) -> list[str]:
        """Return the ids of the jobs that the backend was given, in order."""
        return [job.jid for job in self.backend.given]


NewQueue = Callable[..., QueueHarness]
