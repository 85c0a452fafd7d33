"""`Jobs`: what `EngineBackend` asks of the mover, handed to who does it.

All of it but `may_replace` and `request_stop` runs in the mover's thread, which so needs no lock
and never waits: what blocks is a call, and its result comes back as a step.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pman.backends._engine.creating import Creating, Ticket
from pman.backends._engine.entries import Entry, Stage
from pman.backends._engine.finishing import Finishing, withdrawal
from pman.backends._engine.following import Following
from pman.backends._engine.mover import Timer
from pman.backends._engine.order import Order
from pman.backends._engine.orphans import Orphans
from pman.backends._engine.peeks import MAX_BYTES
from pman.backends._engine.port import Phase, Unanswered, View
from pman.backends._engine.table import Parts, Table
from pman.backends._engine.wish import Wish
from pman.backends.base import Observer
from pman.job.record import Job
from pman.job.state import JobState

_log = logging.getLogger(__name__)

#: Jobs that were canceled before we were given them; the oldest are forgotten, should they be more.
MAX_WITHDRAWN = 10_000


class Jobs:
    """All jobs that this backend has to do with."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._engine = parts.engine
        self._table = Table(parts)
        self._entries = self._table.entries
        self._finishing = Finishing(self._table, going_on=lambda *job: self._following.take(*job))
        self._following = Following(
            self._table,
            self._finishing,
            place=lambda entry: self._creating.place(entry),
            seen_all=self._remove_orphans,
        )
        self._creating = Creating(self._table, self._finishing, self._following.created)
        self._orphans = Orphans(parts.settings.orphan_grace_s)
        self._orphan_timer: Timer | None = None
        #: Jobs canceled before we were given them, and how.
        self._withdrawn: dict[str, Wish] = {}
        self._is_reconciled = False

    # --- of all jobs ------------------------------------------------------------------------

    def start(self, observe: Observer) -> None:
        """Begin; called once, before the mover starts."""
        self._table.observe = observe
        self._creating.shares.start()
        self._parts.mover.after(self._parts.timing.slow_s, self._slow_look)

    def request_stop(self) -> None:
        """Begin nothing more. From any thread."""
        self._creating.shares.request_stop()
        self._table.close()

    def kick(self) -> None:
        """Go on with all that waited for the engine."""
        self._table.unpark()
        self._following.looks.hurry()

    def changed(self, name: str | None, *, is_hot: bool) -> None:
        """Learn that something has happened to a job; None: perhaps to any."""
        if name is None:
            self._following.looks.ask(None)
        elif (entry := self._entries.get(name)) is not None:
            self._following.changed(entry, is_hot=is_hot)

    def reconcile(self, jobs: Sequence[Job]) -> None:
        """Take over the unfinished jobs of a former daemon."""
        for job in jobs:
            if job.state.is_final or job.name in self._entries:
                continue
            entry = Entry(job.name, job.accepted_at, Stage.ADOPTED)
            entry.meta = job.meta
            entry.handle = job.handle
            entry.has_started = job.state is JobState.RUNNING
            entry.may_be_new = job.handle is None and not entry.has_started
            entry.pending_timeout_s = job.pending_timeout_s
            entry.cancel = self._withdrawn.pop(job.name, None)
            entry.known_at = self._following.looks.count
            self._entries[job.name] = entry
        self._is_reconciled = True
        self._following.looks.ask(None)

    def may_replace(self, name: str) -> bool:
        """Say whether the object of a job may go for another; waits a moment. From any thread."""
        entry = self._entries.get(name)
        if entry is None:
            return self._is_reconciled
        return entry.stage is Stage.DONE and entry.settled.wait(self._parts.timing.settle_s)

    # --- of one job -------------------------------------------------------------------------

    def begin(self, job: Job, order: Order, *, is_share_there: bool) -> Entry | None:
        """Take a job.

        Returns:
            The entry, for who is to create it now; None when nothing is to be done.
        """
        is_withdrawn = self._withdrawn.pop(job.name, None) is not None
        if is_withdrawn or job.state.is_final or job.name in self._entries:
            return None
        entry = Entry(job.name, job.accepted_at, Stage.CREATING)
        entry.pending_timeout_s = job.pending_timeout_s
        entry.order = order
        self._entries[job.name] = entry
        if not is_share_there:
            self._creating.wait_for_share(entry)
            return None
        return entry

    def create(self, entry: Entry, ticket: Ticket) -> None:
        """Have a job created while who submits it waits for a while."""
        self._creating.create(entry, ticket)

    def created(self, entry: Entry, handle: dict[str, Any]) -> None:
        """Learn that the engine has a job."""
        self._following.created(entry, handle)

    def unanswered(self, entry: Entry, error: Unanswered) -> None:
        """Learn that the engine may or may not have a job."""
        self._creating.unanswered(entry, error)

    def refused(self, entry: Entry) -> bool:
        """Forget a job that was not taken; return whether who submits it is to be told."""
        if entry.cancel is not None:
            self._finishing.unmade(entry)
            return False
        self._table.drop(entry.name)
        return True

    def needs_engine(self, job: Job) -> bool:
        """Say whether the engine has to be told when a job is canceled."""
        entry = self._entries.get(job.name)
        if entry is None:
            return False
        return entry.stage not in (Stage.SHARE, Stage.ENDING, Stage.DONE)

    def cancel(self, job: Job, grace_s: float, signal: int | None = None) -> None:
        """Have a job end, or sooner than was asked before; as for `Backend.cancel`."""
        entry = self._entries.get(job.name)
        if entry is None:
            self._withdraw(job, grace_s, signal)
        elif entry.cancel is not None:
            entry.cancel.add(grace_s, signal)
        elif entry.stage is not Stage.DONE:
            entry.cancel = Wish(grace_s, signal)
            if entry.stage is Stage.LIVE:
                self._finishing.cancel(entry)
            else:
                self._creating.cancel(entry)

    def settled(self, name: str) -> None:
        """Learn that the end of a job is durable."""
        if (entry := self._entries.get(name)) is not None:
            self._finishing.settled(entry)

    def held(self, name: str) -> dict[str, Any] | None:
        """Return the handle of what the engine may have of a job."""
        entry = self._entries.get(name)
        return None if entry is None else entry.handle

    def forget(self, name: str) -> None:
        """Drop all that is kept of a job, but that it was withdrawn: it may still be submitted."""
        self._table.drop(name)

    def follow(self, name: str) -> None:
        """Have what a job prints followed from now until it ends."""
        entry = self._entries.get(name)
        if entry is None or entry.stage is Stage.DONE or entry.is_followed:
            return
        entry.is_followed = True
        if entry.stage is Stage.LIVE and entry.view is not None:
            self._parts.lives.see(entry.view)

    def catch_up(self, name: str, tell: Callable[[], object]) -> None:
        """Have it followed, and `tell` called once what it has printed by now has been copied."""
        entry = self._entries.get(name)
        if entry is None or entry.stage is Stage.DONE:
            tell()
            return
        self.follow(name)
        if entry.view is not None and entry.view.is_settled:
            self._parts.lives.catch_up(name, tell)
        else:
            entry.readers.append(tell)  # until it has been looked at

    def peek(self, name: str) -> None:
        """Have the output of a running job looked at."""
        entry = self._entries.get(name)
        if entry is None or entry.stage is not Stage.LIVE or entry.view is None:
            return
        view = entry.view
        if view.phase is Phase.RUNNING and self._parts.outage.is_up:
            self._parts.peeks.begin(name)
            self._table.peek_calls.run(
                lambda: self._engine.peek(view, MAX_BYTES),
                lambda raw: self._parts.peeks.put(name, raw),
                # What is known stays; whoever asks again has it tried again.
                lambda _: self._parts.peeks.put(name, None),
            )

    # --- parts ------------------------------------------------------------------------------

    def _withdraw(self, job: Job, grace_s: float, signal: int | None) -> None:
        """Cancel a job that we were not given yet."""
        is_new = job.state is JobState.NEW
        if (wish := self._withdrawn.get(job.name)) is not None:
            wish.add(grace_s, signal)
        elif is_new or not self._is_reconciled:
            self._withdrawn[job.name] = Wish(grace_s, signal)
            if len(self._withdrawn) > MAX_WITHDRAWN:
                del self._withdrawn[next(iter(self._withdrawn))]
            if is_new:
                self._table.observe(withdrawal(job.name))

    def _slow_look(self) -> None:
        """See to it that a missed event is made good."""
        timing = self._parts.timing
        self._following.looks.ask(None)
        is_busy = any(entry.stage is not Stage.DONE for entry in self._entries.values())
        self._parts.mover.after(timing.slow_s if is_busy else timing.idle_s, self._slow_look)

    def _look_later(self, delay_s: float) -> None:
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
        self._orphan_timer = self._parts.mover.after(
            delay_s, lambda: self._following.looks.ask(None)
        )

    def _remove_orphans(self, views: Mapping[str, View]) -> None:
        """Remove what has been without a job for too long. Only jobs we know of can be told."""
        if not self._is_reconciled:
            return
        due = self._orphans.judge(views, self._entries)
        next_s = self._orphans.next_s()
        if next_s is not None:
            self._look_later(max(next_s, self._parts.timing.orphan_s))
        for name, handle in due:
            _log.info("removing the %s of job %s, which we don't know", self._engine.noun, name)
            self._table.calls.run(
                functools.partial(self._engine.remove, name, handle),
                lambda _: None,
                lambda _: None,  # the next look finds it again
            )
