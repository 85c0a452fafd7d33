"""The contract between pman and a place that runs jobs.

A backend has its own threads, sockets and SDK. It never touches the job DB: what it sees it reports
as an `Observation`. All methods may be called from any thread.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pman.config import Settings
from pman.job.observation import Observation
from pman.job.record import Job, as_backend_sees
from pman.job.spec import JobSpec
from pman.meters import ErrorMeter
from pman.output import STREAMS, OutputFiles

#: Takes what a backend sees; what it returns is not looked at.
Observer = Callable[[Observation], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackendContext:
    """What a backend may know of the daemon.

    Attributes:
        settings: The daemon's settings.
        instance: Name of this job DB, for labels on an engine; stays the same over restarts.
        state_path: Folder under the DBpath that belongs to this backend alone; mode 0700.
        output: Where the output of jobs goes.
    """

    settings: Settings
    instance: str
    state_path: Path
    output: OutputFiles


class Backend(abc.ABC):
    """One place to run jobs. `job.name` is the key everywhere; `jid` is only shown to people.

    Attributes:
        errors: What has failed of its `calls`.
    """

    #: Spelling in `--container-env`, in records and in replies.
    name: ClassVar[str]

    #: What the output of a job is kept as; one that is not among them would always be empty.
    streams: ClassVar[tuple[str, ...]] = STREAMS

    #: What it asks of its engine, or of the shepherd, as far as that may fail.
    calls: ClassVar[tuple[str, ...]] = ()

    def __init__(self, context: BackendContext) -> None:
        self.context = context
        self.errors = ErrorMeter(self.calls)

    @abc.abstractmethod
    def start(self, observe: Observer) -> None:
        """Begin to watch.

        Args:
            observe: Takes what is seen from now on; thread-safe, does not block.

        Must not raise because an engine is away: that is `check`'s answer, per job.
        """

    @abc.abstractmethod
    def check(self, spec: JobSpec) -> None:
        """Refuse at once what can be refused at once; nothing is kept of a refused job.

        Raises:
            RequestError: The spec can't be run here; names the field and the value.
            BackendUnavailable: Nothing can be run here now; says what to do.
        """

    @abc.abstractmethod
    def submit(self, job: Job) -> None:
        """Have a job that is durable in the job DB started, exactly once.

        Returns when the backend has taken it, not when it runs. The same `job.name` submitted again
        is taken once. The handle, the state and all the rest arrive as observations.

        Raises:
            RequestError: It can't be taken beside what is there (`JobConflict`), and is forgotten.
            BackendError: It was not taken, and will not be started.
        """

    @abc.abstractmethod
    def reconcile(self, jobs: Sequence[Job]) -> None:
        """Take over the unfinished jobs of a former daemon; called once, after `start`.

        Each of them is followed to its end if it is still there, submitted if it never got here
        (state NEW and not known here), and observed as LOST, with the reason, if it is gone.
        """

    @abc.abstractmethod
    def cancel(self, job: Job, grace_s: float, signal: int | None = None) -> None:
        """End a job: ask, wait `grace_s` seconds, force.

        Args:
            signal: Number of the signal that asks; None: what the place uses, mostly SIGTERM.

        Returns at once. The end is observed as CANCELED; a job that has ended stays as it is.

        Raises:
            BackendUnavailable: The engine cannot be told now.
        """

    def check_signal(self, signal: int) -> None:
        """Refuse a signal that `cancel` can't send.

        Raises:
            RequestError: Names the field `signal` and the value.
        """
        return

    def cancel_after_restart(self, job: Job, grace_s: float, signal: int | None = None) -> None:
        """As `cancel`, for a job that a former daemon has canceled, or was about to.

        Args:
            grace_s: What is left of it.
        """
        self.cancel(job, grace_s, signal)

    @abc.abstractmethod
    def settled(self, job: Job) -> None:
        """Learn that the final state of `job` is durable: what was held to report it may go."""

    @abc.abstractmethod
    def remove(self, job: Job) -> None:
        """Remove all that the backend keeps of a final job, its output included."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop watching, within seconds. Jobs run on."""

    @property
    def route_url(self) -> str | None:
        """Where clients from outside reach pman through the platform of this backend, or None."""
        return None

    def state(self) -> str:
        """Return "ok", or what keeps jobs from being run here now; from memory, at once."""
        return "ok"

    @property
    def outages(self) -> int:
        """How often the state has turned from "ok" to something else since the start."""
        return 0

    def describe(self, spec: JobSpec) -> dict[str, Any]:
        """Return what `submit` would make of a spec that `check` has taken; makes nothing."""
        return {}

    def follow(self, job: Job) -> None:
        """See to it that what a running job prints is in its output files soon, until it ends.

        Returns at once; asked again while it is done already it does nothing more. Where the
        final files are written at the end only, what is there until then is beside them, with the
        suffix `LIVE_SUFFIX`.
        """
        return  # most write them as the job prints

    def part_count(self, job: Job) -> int:
        """Return how many parts or containers a job has, those not yet started included."""
        return max(1, len(job.parts), len(job.workers))

    def catch_up(self, job: Job, tell: Callable[[], object]) -> bool:
        """As `follow`; have `tell` called once what the job has printed by now is in its files.

        Args:
            tell: Called from any thread, perhaps before the return, and not at all where an engine
                does not answer: whoever waits sets a limit. It must not block.
        Returns:
            Whether it is called; False: there is nothing to wait for.
        """
        return False  # most write them as the job prints

    def recent_output(self, job: Job) -> str | None:
        """Return the end of what a running job has printed of late; None: it can't be told now.

        All of it, or about the last 64 KiB. From memory or files; may cause that an engine is asked
        for the next time.
        """
        return None

    def logs(self, job: Job) -> list[str]:
        """Return the `l_logs` entries of one job; from memory or files, never from an engine."""
        return []


def discard(job: Job, backends: Mapping[str, Backend], output: OutputFiles) -> None:
    """Remove what a final job has left with its backend and in files.

    Args:
        backends: By name; the job's own may be missing.
    Raises:
        PmanError: The backend can't remove it now.
        OSError: A file can't be removed.
    """
    backend = backends.get(job.backend)
    if backend is not None:
        backend.remove(as_backend_sees(job))
    output.remove(job.name, job.attempt)
