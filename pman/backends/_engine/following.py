"""`Following`: a job from the moment that the engine has it until it is to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pman.backends._engine import report
from pman.backends._engine.entries import Entry, Stage
from pman.backends._engine.finishing import Finishing
from pman.backends._engine.looks import Looks, Wanted
from pman.backends._engine.port import Phase, View
from pman.backends._engine.table import Table
from pman.backends._engine.timing import backoff
from pman.job.observation import Observation
from pman.job.state import JobState

#: The order of phases; there is no way back.
_RANK = {Phase.WAITING: 0, Phase.RUNNING: 1, Phase.ENDED: 2}


class Following:
    """Takes what looks have brought."""

    def __init__(
        self,
        table: Table,
        finishing: Finishing,
        place: Callable[[Entry], object],
        seen_all: Callable[[dict[str, View]], object],
    ) -> None:
        """Prepare.

        Args:
            place: Takes a job of a former daemon that the engine has never had.
            seen_all: Takes the result of a look at all.
        """
        self._table = table
        self._parts = table.parts
        self._engine = table.parts.engine
        self._finishing = finishing
        self._place = place
        self._seen_all = seen_all
        self.looks = Looks(
            table.parts.engine,
            table.parts.mover,
            table.look_calls,
            table.parts.outage,
            table.parts.timing,
            handle_of=self._handle_of,
            seen=self._seen,
        )

    def created(self, entry: Entry, handle: dict[str, Any]) -> None:
        """Learn that the engine has a job."""
        if entry.stage not in (Stage.ADOPTED, Stage.CREATING, Stage.UNSURE):
            return
        entry.stop_timers()
        entry.stage = Stage.LIVE
        entry.handle = handle
        entry.order = None
        entry.meta = ""
        entry.tries = 0
        entry.known_at = self.looks.count
        if entry.cancel is not None:
            self._finishing.cancel(entry)
            return
        state = None if entry.has_started else JobState.QUEUED
        seen = Observation(name=entry.name, state=state, handle=handle, reason="", message="")
        self._table.tell(entry, seen)
        self.look_again(entry)

    def changed(self, entry: Entry, *, is_hot: bool) -> None:
        """Learn that something has happened to a job."""
        if is_hot:
            entry.hot_s = self._parts.timing.hot_s
        if entry.stage is Stage.LIVE:
            self.look_again(entry)

    def look_again(self, entry: Entry) -> None:
        """Look now, and while it is about to change soon again and again, ever more seldom."""
        self.looks.ask(entry.name)
        if not entry.hot_s:
            return
        later = self._parts.mover.after(entry.hot_s, lambda: self.look_again(entry))
        entry.set_timer("hot", later)
        entry.hot_s = 2 * entry.hot_s if entry.hot_s < self._parts.timing.hot_max_s else 0.0

    def take(self, entry: Entry, view: View) -> None:
        """Take how a job stands."""
        if entry.stage in (Stage.ADOPTED, Stage.UNSURE):
            self.created(entry, view.handle)
        if entry.stage is not Stage.LIVE:
            return
        step = 0 if entry.view is None else _RANK[view.phase] - _RANK[entry.view.phase]
        if step < 0:
            return  # an older look, or a part that is made anew
        if step > 0:
            entry.hot_s = 0.0
            entry.stop_timer("hot")
        entry.view = view
        entry.handle = view.handle
        if entry.is_followed:
            self._parts.lives.see(view)
        if entry.readers and view.is_settled:
            readers, entry.readers = entry.readers, []
            for tell in readers:
                self._parts.lives.catch_up(entry.name, tell)
        if view.phase is Phase.ENDED:
            self._finishing.end(entry)
            return
        self._table.tell(entry, report.progress(view, has_started=entry.has_started))
        if view.phase is Phase.WAITING and view.reason:
            self._mind(entry, view)
        else:
            entry.has_started = entry.has_started or view.phase is Phase.RUNNING
            _unmind(entry)

    # --- looks ------------------------------------------------------------------------------

    def _handle_of(self, name: str) -> dict[str, Any] | None:
        entry = self._table.entries.get(name)
        return None if entry is None or entry.stage is not Stage.LIVE else entry.handle

    def _seen(self, number: int, wanted: Wanted, views: dict[str, View]) -> None:
        """Take the result of a look."""
        entries = self._table.entries
        for name, view in views.items():
            if (entry := entries.get(name)) is not None:
                self.take(entry, view)
        for name in list(entries if wanted is None else wanted):
            entry = entries.get(name)
            # A look that began before the engine had it says nothing.
            if entry is not None and name not in views and entry.known_at < number:
                self._miss(entry)
        if wanted is None:
            self._seen_all(views)

    def _miss(self, entry: Entry) -> None:
        """Deal with a job that a look has not shown."""
        if entry.stage is Stage.ADOPTED and entry.may_be_new:
            if entry.cancel is not None:
                self._finishing.unmade(entry)
            else:
                self._place(entry)
        elif entry.stage is Stage.ADOPTED and entry.handle is None:
            self._finishing.lose(entry)
        elif entry.stage in (Stage.ADOPTED, Stage.LIVE) and not entry.is_doubted:
            entry.is_doubted = True
            handle = entry.handle or {}
            self._table.calls.run(
                lambda: self._engine.look(entry.name, handle),
                lambda view: self._assured(entry, view),
                lambda _: self._still_doubted(entry),
            )

    def _assured(self, entry: Entry, view: View | None) -> None:
        """Take the engine's word on whether a job is gone."""
        entry.is_doubted = False
        if view is not None:
            self.take(entry, view)
        elif entry.stage in (Stage.ADOPTED, Stage.LIVE):
            self._finishing.lose(entry)

    def _still_doubted(self, entry: Entry) -> None:
        entry.is_doubted = False
        self.looks.ask(None)

    # --- a job that can't be started --------------------------------------------------------

    def _mind(self, entry: Entry, view: View) -> None:
        """See that it is tried again, and is not waited for for ever."""
        now = time.monotonic()
        if entry.reason_since is None:
            entry.reason_since = now
            entry.start_tries = 0
            self._start_later(entry)
        timeout_s = self._table.pending_timeout_s(entry)
        # An engine that was away says at first what was so before, or is just starting.
        left_s = max(
            entry.waits_since + timeout_s - time.time(),
            entry.reason_since + min(self._parts.timing.doubt_s, timeout_s) - now,
        )
        if left_s <= 0:
            self._finishing.give_up(entry, view)
        else:
            later = self._parts.mover.after(left_s, lambda: self.looks.ask(entry.name))
            entry.set_timer("pending", later)

    def _start_later(self, entry: Entry) -> None:
        timing = self._parts.timing
        delay_s = backoff(timing.start_s, timing.start_max_s, entry.start_tries)
        entry.start_tries += 1
        later = self._parts.mover.after(delay_s, lambda: self._start_again(entry))
        entry.set_timer("start", later)

    def _start_again(self, entry: Entry) -> None:
        """Have the engine try again what it could not start."""
        view = entry.view
        if view is not None:
            self._table.calls.run(
                lambda: self._engine.retry(view),
                lambda was_told: self._started_again(entry, was_told=was_told),
                lambda _: self._started_again(entry, was_told=None),
            )

    def _started_again(self, entry: Entry, *, was_told: bool | None) -> None:
        if entry.stage is not Stage.LIVE or entry.reason_since is None:
            return
        if was_told:
            self.changed(entry, is_hot=True)
        if was_told is not False:
            self._start_later(entry)


def _unmind(entry: Entry) -> None:
    entry.reason_since = None
    entry.stop_timer("pending")
    entry.stop_timer("start")
