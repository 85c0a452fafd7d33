"""`EngineBackend`: jobs in containers of any `Engine`.

Threads: the mover, which alone knows the jobs (`Jobs`) and reports; the watcher, which keeps the
connection; threads for calls that block; the caller's, in `submit` and `remove`. The mover never
waits for an engine, and nobody else changes an entry.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pman.backends._engine.counted import CALLS, CountedEngine
from pman.backends._engine.creating import Ticket, engine_path
from pman.backends._engine.entries import Entry
from pman.backends._engine.jobs import Jobs
from pman.backends._engine.lives import Lives
from pman.backends._engine.looks import SOURCE
from pman.backends._engine.mover import Mover
from pman.backends._engine.names import run_name
from pman.backends._engine.order import Order, order_from_meta
from pman.backends._engine.outage import Outage
from pman.backends._engine.peeks import MAX_BYTES, Peeks
from pman.backends._engine.port import Engine, Unanswered
from pman.backends._engine.shares import is_there
from pman.backends._engine.table import Parts
from pman.backends._engine.timing import Timing
from pman.backends._engine.watcher import Watcher
from pman.backends.base import Backend, BackendContext, Observer
from pman.errors import BackendUnavailable, PmanError, RequestError, SubmitFailed
from pman.job.record import Job, new_job
from pman.job.spec import JobSpec
from pman.job.state import JobState
from pman.output import STREAMS, joined

_log = logging.getLogger(__name__)


class EngineBackend(Backend):
    """Runs jobs as objects of an engine; a subclass names itself and makes the engine.

    A cancel is kept by the queue, not here: should the daemon die between the end of the
    containers and its report, the next one reports what the engine shows, an end by a signal.
    """

    calls = CALLS

    #: Whether a job waits until its `shareDir` is there, in pman's own file system.
    waits_for_share: ClassVar[bool] = True

    def __init__(
        self, context: BackendContext, engine: Engine, timing: Timing | None = None
    ) -> None:
        super().__init__(context)
        self._engine = CountedEngine(engine, self.errors)
        self._timing = timing or Timing()
        self._mover = Mover(f"{self.name}-mover")
        self._outage = Outage(self.name, on_up=lambda: self._mover.post(self._jobs.kick))
        self._peeks = Peeks(self._timing.peek_s)
        max_bytes = context.settings.max_output_bytes
        self._lives = Lives(self.name, self._engine, context.output, max_bytes, self._timing)
        self._jobs = Jobs(
            Parts(
                context=context,
                name=self.name,
                engine=self._engine,
                mover=self._mover,
                outage=self._outage,
                timing=self._timing,
                peeks=self._peeks,
                lives=self._lives,
                order_of=self.order_of,
                waits_for_share=self.waits_for_share,
            )
        )
        self._watcher = Watcher(self.name, self._engine, self._outage, self._changed, self._timing)
        engine.may_replace = self._jobs.may_replace

    # --- the contract -----------------------------------------------------------------------

    def start(self, observe: Observer) -> None:
        """Begin to watch; the engine is reached in the background."""
        self._jobs.start(observe)
        self._mover.start()
        self._watcher.start()

    def check(self, spec: JobSpec) -> None:
        """Refuse what the engine can't honour, and all while it is away."""
        order = self.order_of(spec.meta, "")
        self._need_engine()
        try:
            self._engine.check(order)
        except BackendUnavailable as exc:
            self._outage.down(SOURCE, exc)  # who comes next need not wait for it
            self._changed(None, False)
            raise

    def submit(self, job: Job) -> None:
        """Have the engine create a job's object, unless it has to wait for its folder.

        Raises:
            RequestError: The engine refuses it; 409 for a name that is taken.
            BackendError: As for `Backend.submit`.
        """
        order = self.order_of(json.loads(job.meta), job.name)
        is_share_there = (
            not self.waits_for_share or order.share_dir is None or is_there(Path(order.share_dir))
        )
        entry = self._mover.ask(
            lambda: self._jobs.begin(job, order, is_share_there=is_share_there), closed=None
        )
        if entry is None:
            return
        if self._engine.creates_slowly:
            self._create_aside(entry)
        else:
            self._create(entry, order)

    def part_count(self, job: Job) -> int:
        """Return how many containers a job has; before they start, by its spec."""
        try:
            asked = self.order_of(json.loads(job.meta), job.name).workers
        except RequestError:
            asked = 1  # a former pman may have taken what this one does not
        return max(asked, len(job.workers))

    def describe(self, spec: JobSpec) -> dict[str, Any]:
        """Return the engine's objects for a spec, by kind; its job's own name is made up.

        Raises:
            RequestError: As for `check`.
            BackendUnavailable: The engine can't be asked.
        """
        order = self.order_of(spec.meta, new_job(spec, self.name, time.time()).name)
        self._need_engine()
        return self._engine.describe(order, engine_path(order, self.context.settings.store_base))

    def reconcile(self, jobs: Sequence[Job]) -> None:
        """Take over the jobs of a former daemon, as soon as the engine is there."""
        self._mover.post(lambda: self._jobs.reconcile(jobs))

    def check_signal(self, signal: int) -> None:
        """Refuse a signal that the engine can't send."""
        self._engine.check_signal(signal)

    def cancel(self, job: Job, grace_s: float, signal: int | None = None) -> None:
        """Have the job's containers ended.

        Raises:
            BackendUnavailable: It can't be told now.
        """
        if job.state.is_final:
            return
        if self._mover.ask(lambda: self._jobs.needs_engine(job), closed=False):
            self._need_engine()
        self._mover.post(lambda: self._jobs.cancel(job, grace_s, signal))

    def settled(self, job: Job) -> None:
        """Have the job's object removed, `keep_finished_s` later."""
        self._mover.post(lambda: self._jobs.settled(job.name))

    def remove(self, job: Job) -> None:
        """Remove the job's object, if there may be one, and its output.

        Raises:
            BackendUnavailable: There may be an object, and the engine can't be told.
            OSError: A file can't be removed.
        """
        name = run_name(job)
        handle = self._mover.ask(lambda: self._jobs.held(name), closed=None)
        if handle is not None:
            self._need_engine()
            self._engine.remove(name, handle)
        self._mover.post(lambda: self._jobs.forget(name))
        self.context.output.remove(name)

    def close(self) -> None:
        """Stop watching; jobs run on."""
        deadline = time.monotonic() + self._timing.close_s
        self._jobs.request_stop()
        self._lives.close()
        self._watcher.request_stop()
        self._mover.close(self._timing.close_s)
        self._watcher.join(max(0.0, deadline - time.monotonic()))
        self._engine.close()

    def logs(self, job: Job) -> list[str]:
        """Return the text of all containers: from files, or what was last seen of a running job."""
        if job.state.is_final:
            return [self.log_text(job)]
        text, is_due = self._peeks.text(run_name(job))
        if is_due:
            self._mover.post(lambda: self._jobs.peek(run_name(job)))
        return [text]

    def follow(self, job: Job) -> None:
        """Have what the job's containers print written to live files, from its first byte on."""
        self._mover.post(lambda: self._jobs.follow(run_name(job)))

    def catch_up(self, job: Job, tell: Callable[[], object]) -> bool:
        """Have the live files of a running job brought up to what the engine has by now."""
        if job.state is not JobState.RUNNING:
            return False
        return self._mover.post(lambda: self._jobs.catch_up(run_name(job), tell))

    def recent_output(self, job: Job) -> str | None:
        """Return the end of what a running job has printed, of the live files if it is followed."""
        name = run_name(job)
        text = self._lives.recent(name, MAX_BYTES)
        if text is not None:
            return text
        text, is_due = self._peeks.text(name, self._timing.recent_s)
        if is_due:
            self._mover.post(lambda: self._jobs.peek(name))
        return text or None

    # --- for subclasses and others ----------------------------------------------------------

    def order_of(self, meta: Mapping[str, Any], job_name: str) -> Order:
        """Read the order out of a request.

        Raises:
            RequestError: It can't be read; names the field and the value.
        """
        return order_from_meta(meta, job_name=job_name)

    def log_text(self, job: Job) -> str:
        """Return the output of a final job: its workers in order, stdout before stderr."""
        output, name = self.context.output, run_name(job)
        return joined(
            output.read_text(name, worker, stream)
            for worker in range(max(1, len(job.workers)))
            for stream in STREAMS
        )

    def state(self) -> str:
        """Return "ok", or what keeps the engine from being used."""
        return self._outage.problem or "ok"

    @property
    def outages(self) -> int:
        """How often the engine has gone away."""
        return self._outage.count

    # --- parts ------------------------------------------------------------------------------

    def _changed(self, name: str | None, is_hot: bool) -> None:
        self._mover.post(lambda: self._jobs.changed(name, is_hot=is_hot))

    def _need_engine(self) -> None:
        """Raise unless the engine can be used; asks it only if nothing is known of late.

        Raises:
            BackendUnavailable: It can't; says what to do.
        """
        problem = self._outage.problem
        if problem is None:
            return
        if self._outage.age_s() < self._timing.fresh_s:
            raise BackendUnavailable(problem)
        self._reach()

    def _reach(self) -> None:
        """Connect, unless that is done.

        Raises:
            BackendUnavailable: The engine can't be used; says what to do.
        """
        if self._outage.is_up:
            return
        try:
            self._outage.connect(self._engine)
        except BackendUnavailable as exc:
            self._outage.down(SOURCE, exc)
            raise
        self._outage.up(SOURCE)
        self._watcher.nudge()

    def _create_aside(self, entry: Entry) -> None:
        """Have a job created; wait for it no longer than a client should."""
        ticket = Ticket()
        try:
            self._reach()
        except PmanError:
            if self._mover.ask(lambda: self._jobs.refused(entry), closed=True):
                raise
            return
        self._mover.post(lambda: self._jobs.create(entry, ticket))
        ticket.is_over.wait(self._timing.create_s)
        error = self._mover.ask(ticket.give_back, closed=None)
        if error is not None:
            raise error

    def _create(self, entry: Entry, order: Order) -> None:
        share_path = engine_path(order, self.context.settings.store_base)
        try:
            self._reach()
            handle = self._engine.create(order, share_path)
        except Unanswered as exc:
            error = exc
            self._mover.post(lambda: self._jobs.unanswered(entry, error))
        except PmanError:
            if self._mover.ask(lambda: self._jobs.refused(entry), closed=True):
                raise
        except Exception as exc:
            # Should it be there nevertheless, it belongs to no job, and is removed as an orphan.
            _log.exception("job %s was not created", entry.name)
            self._mover.post(lambda: self._jobs.refused(entry))
            message = f"making the {self._engine.noun} failed: {exc!r}; the log of pman says more"
            raise SubmitFailed(message) from exc
        else:
            self._mover.post(lambda: self._jobs.created(entry, handle))
