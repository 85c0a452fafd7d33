"""An observer that puts observations together as the job DB does, and can be waited for."""

from __future__ import annotations

import threading
import time

from pman.job.observation import Observation
from pman.job.record import Job, new_job
from pman.job.spec import spec_from_meta
from pman.job.state import TRANSITIONS, JobState

#: How long anything in a test may take before it counts as failed, seconds.
DEADLINE_S = 30.0
#: What an observation replaces in a job, its state apart.
FIELDS = [field for field in Observation.__struct_fields__ if field not in ("name", "state")]


def make_job(cmd: str, **meta: object) -> Job:
    """Make a job that has just been accepted."""
    spec = spec_from_meta({"cmd": cmd, "auid": "tester", "jid": "1", **meta})
    return new_job(spec, "host", time.time())


class Recorder:
    """Takes observations of jobs; `jobs` holds how each stands."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self.jobs: dict[str, Job] = {}
        self.states: dict[str, list[JobState]] = {}
        self._changed = threading.Condition()

    def add(self, *jobs: Job) -> None:
        """Know jobs, as the job DB does before they are submitted."""
        with self._changed:
            for job in jobs:
                self.jobs.setdefault(job.name, job)

    def observe(self, seen: Observation) -> None:
        """Take an observation; the observer of a backend."""
        with self._changed:
            job = self.jobs.get(seen.name)
            if job is None or job.state.is_final:
                return
            for field in FIELDS:
                value = getattr(seen, field)
                if value is not None:
                    setattr(job, field, value)
            if seen.state is not None and seen.state is not job.state:
                assert seen.state in TRANSITIONS[job.state], (job.state, seen.state)
                job.state = seen.state
                self.states.setdefault(job.name, []).append(seen.state)
            self._changed.notify_all()

    def wait(self, job: Job, *states: JobState) -> Job:
        """Wait until a job is in one of `states`, or in a final one if none are named."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: job.state in states if states else job.state.is_final, self._deadline_s
            )
        assert done, f"{job.cmd!r} is {job.state}, {job.message!r}"
        return job

    def wait_all(self, jobs: list[Job]) -> None:
        """Wait until all of them have ended."""
        for job in jobs:
            self.wait(job)

    def wait_parts_ended(self, job: Job, count: int) -> None:
        """Wait until so many parts have ended."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: sum(part.ended_at is not None for part in job.parts) >= count,
                self._deadline_s,
            )
