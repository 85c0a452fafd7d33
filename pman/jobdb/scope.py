"""`ScopedStore`: the job DB as one sees it for whom only the jobs of one user exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pman.errors import Forbidden, UnknownJob, shown
from pman.job.observation import Observation
from pman.job.record import Job
from pman.jobdb.store import REMOVE_TIMEOUT_S, JobStore, OnJob, matching


class ScopedStore:
    """The jobs of one user, as if there were no others. Thread-safe; keeps nothing itself.

    It has the methods of `JobStore` that actions use. What costs time costs it by the user's own
    jobs, never by all: neither an answer nor how long it takes tells of others.
    """

    def __init__(self, store: JobStore, auid: str) -> None:
        """Restrict a store.

        Args:
            store: All jobs.
            auid: User whose jobs are seen; not empty.
        """
        self._store = store
        self._auid = auid

    # --- reading --------------------------------------------------------------------------

    def get(self, name: str) -> Job | None:
        """Return a job by name."""
        job = self._store.get(name)
        return job if job is not None and job.auid == self._auid else None

    def at(self, index: int) -> Job | None:
        """Return the n-th job, counted from 0, negative from the newest; None out of range."""
        jobs = self.jobs()
        return jobs[index] if -len(jobs) <= index < len(jobs) else None

    def names(self) -> list[str]:
        """Return all job names, in order."""
        return [job.name for job in self.jobs()]

    def jobs(self) -> list[Job]:
        """Return all jobs, in order."""
        return self._store.jobs_of(self._auid)

    def unfinished(self) -> list[Job]:
        """Return the jobs that are not final, in order."""
        return [job for job in self.jobs() if not job.state.is_final]

    def is_settled(self, name: str) -> bool:
        """Return whether the end of a job is durable; not if the job is gone."""
        return self.get(name) is not None and self._store.is_settled(name)

    @property
    def count(self) -> int:
        """Number of jobs."""
        return self._store.count_of(self._auid)

    def find(self, key: str, value: Any) -> list[Job]:
        """Return the jobs whose leaf `key` is `value`; see `JobStore.find`."""
        if key == "jid":
            return self._store.jobs_of(self._auid, value) if isinstance(value, str) else []
        if key == "auid":
            return self.jobs() if value == self._auid else []
        return matching(self.jobs(), key, value)

    def newest_first(
        self, *, below: int | None = None, jid: str = "", auid: str = "", is_open: bool = False
    ) -> Iterator[Job]:
        """Give jobs from the newest to the oldest; see `JobStore.newest_first`."""
        if auid and auid != self._auid:
            return
        for job in reversed(self._store.jobs_of(self._auid, jid or None)):
            if (below is None or job.order < below) and not (is_open and job.state.is_final):
                yield job

    def with_idempotency(self, key: str) -> Job | None:
        """Return the job that was submitted with an idempotency key (its digest), if any."""
        job = self._store.with_idempotency(key)
        return job if job is not None and job.auid == self._auid else None

    def few_with_jid(self, jid: str, most: int) -> list[Job] | None:
        """Return the jobs with a jid, in order; None if more than `most`, or hard to tell."""
        return self._store.few_of(self._auid, jid, most)

    def when_final(self, name: str, callback: OnJob) -> None:
        """Have `callback` called once the job is final (or removed): at once if it is already.

        Raises:
            UnknownJob: There is no such job.
        """
        if self.get(name) is None:
            raise UnknownJob(f"there is no job {name!r}")
        self._store.when_final(name, callback)

    def no_longer(self, name: str, callback: OnJob) -> None:
        """Take back a `when_final` that has not been called; nothing there is fine."""
        self._store.no_longer(name, callback)

    # --- changes --------------------------------------------------------------------------

    def submit(self, job: Job, *, idempotent: bool = False, timeout_s: float) -> tuple[Job, bool]:
        """Make a new job durable, then visible; see `JobStore.submit`.

        Raises:
            Forbidden: It belongs to somebody else.
        """
        if job.auid != self._auid:
            raise Forbidden(
                f"auid is {shown(job.auid)}, expected {shown(self._auid)}", field="auid"
            )
        return self._store.submit(job, idempotent=idempotent, auid=self._auid, timeout_s=timeout_s)

    def observe(self, observation: Observation) -> Job | None:
        """Apply what a backend saw; None when the job is unknown or final already."""
        return None if self.get(observation.name) is None else self._store.observe(observation)

    def remove(self, names: Iterable[str], timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Forget jobs; unknown names are ignored.

        Raises:
            SnapshotError: They are gone from memory, but not from the disk yet.
        """
        self._store.remove([name for name in names if self.get(name) is not None], timeout_s)

    def barrier(self, timeout_s: float) -> None:
        """Wait until all that can be seen here now is durable; see `JobStore.barrier`.

        Raises:
            SnapshotError: It is not.
        """
        self._store.barrier(timeout_s)

    def clear(self, jobs: Iterable[Job] | None = None) -> list[Job]:
        """Refuse: this is about the job DB as a whole.

        Raises:
            Forbidden: Always.
        """
        raise _not_whole()

    def replace_finished(self, jobs: Iterable[Job]) -> list[Job]:
        """Refuse: this is about the job DB as a whole.

        Raises:
            Forbidden: Always.
        """
        raise _not_whole()


def _not_whole() -> Forbidden:
    return Forbidden("the job DB as a whole needs a token that is bound to no auid")
