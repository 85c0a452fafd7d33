"""`JobQueue` with its threads and a job DB, on the backend of a kit."""

from __future__ import annotations

import uuid
from typing import Any

from daemon_process import wait_until
from jobdb_builders import stop
from kits import Kit

from pman.backends.base import Backend, BackendContext
from pman.job.record import Job, new_job
from pman.job.spec import spec_from_meta
from pman.job.state import JobState
from pman.jobdb.database import Database
from pman.jobdb.store import JobStore
from pman.queue import JobQueue
from pman.services.queuedriver import QueueDriver
from pman.services.writer import Writer
from pman.settings import Settings


class QueueOn:
    """A queue on one backend; `restart` makes all of it anew, as the next daemon does."""

    def __init__(self, kit: Kit, **settings: Any) -> None:
        self.kit = kit
        self.settings = Settings(db_path=kit.folder, kill_grace_s=1.0, **settings)
        Database.create(kit.folder / "pman.db", [], str(uuid.uuid4())).close()
        self._open()

    def _open(self) -> None:
        database = Database.open(self.kit.folder / "pman.db")
        jobs = database.read_all()
        self._writer = Writer(database)
        self._writer.start()
        self._writer.wait_ready()
        self.store = JobStore(self._writer)
        self.store.load(jobs)
        self.backend: Backend = self.kit.build(
            BackendContext(
                settings=self.kit.settings(),
                instance=self.kit.instance,
                state_path=self.kit.folder / "state",
                output=self.kit.output,
            )
        )
        self.kit._open.append(self.backend)  # which the kit looks into
        backends = {self.backend.name: self.backend}
        self.queue = JobQueue(self.store, backends, self.settings)
        self._driver = QueueDriver(self.queue)
        given = self.queue.take_over(self.store.unfinished())
        self.backend.start(self.queue.observe)
        self.queue.reconcile(self.backend, given[self.backend.name])
        self._driver.start()

    def restart(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        stop(self._driver)
        self.backend.close()
        stop(self._writer)

    def submit(self, cmd: str = "", *, after: list[Job] | None = None, **meta: Any) -> Job:
        """Submit a job; without `cmd` with the `argv` in `meta`."""
        command = {"cmd": cmd} if cmd else {}
        spec = spec_from_meta({"auid": "t", "jid": "j", **self.kit.meta(), **command, **meta})
        self.backend.check(spec)
        now_s = self.store._now()
        job, _ = self.queue.submit(new_job(spec, self.backend.name, now_s), after=after or ())
        return job

    def job(self, job: Job) -> Job:
        found = self.store.get(job.name)
        assert found is not None
        return found

    def wait(self, job: Job, *states: JobState) -> Job:
        """Wait until a job is in one of `states`, or in a final one if none are named."""

        def look() -> Job | None:
            now = self.job(job)
            return now if (now.state in states if states else now.state.is_final) else None

        what = f"{states or 'the end'} of {job.cmd!r}"
        found: Job = wait_until(look, what, self.kit.deadline_s)
        return found

    def printed(self, job: Job) -> str:
        """Return what the newest try of a job has printed to stdout."""
        return self.kit.output.read_text(self.job(job).run_name, 0, "stdout")
