"""`Finishing`: from the moment that a job is to end, or has ended, until nothing is left of it."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable

from pman.backends._engine.calls import Calls
from pman.backends._engine.ending import Ending, Stop
from pman.backends._engine.entries import Entry, Stage
from pman.backends._engine.port import View
from pman.backends._engine.sink import LogSink
from pman.backends._engine.table import LONG_STOP_S, Table
from pman.backends._engine.wish import Wish
from pman.errors import PmanError
from pman.job.observation import Observation
from pman.job.state import JobState

_log = logging.getLogger(__name__)


class Finishing:
    """Stops, collects, reports, and, once the end is durable, removes."""

    def __init__(self, table: Table, going_on: Callable[[Entry, View], object]) -> None:
        """Prepare.

        Args:
            going_on: Takes a job that was to be given up, and has started meanwhile.
        """
        self._table = table
        self._parts = table.parts
        self._engine = table.parts.engine
        self._going_on = going_on

    def end(self, entry: Entry, stop: Stop | None = None) -> None:
        """Begin the end of a job that the engine has; None: it has ended by itself."""
        entry.stage = Stage.ENDING
        entry.stop_timers()
        entry.tries = 0
        output, max_bytes = self._parts.context.output, self._parts.settings.max_output_bytes
        ending = Ending(
            self._engine,
            lambda: LogSink(output, entry.name, max_bytes),
            entry.name,
            entry.handle or {},
            entry.view,
            stop,
            settle=lambda: self._parts.lives.finish(entry.name),
        )
        self._go_on(entry, ending)

    def cancel(self, entry: Entry) -> None:
        """Begin the end of a job that the engine has and that was canceled."""
        assert entry.cancel is not None
        self.end(entry, Stop(JobState.CANCELED, "canceled", "canceled", entry.cancel))

    def give_up(self, entry: Entry, view: View) -> None:
        """Begin the end of a job that can't be started."""
        wish = Wish(self._parts.settings.kill_grace_s)
        stop = Stop(JobState.FAILED, view.reason, view.message, wish, only_waiting=True)
        self.end(entry, stop)

    def unmade(self, entry: Entry) -> None:
        """Report the cancel of a job that the engine does not have."""
        self.done(entry, withdrawal(entry.name))

    def fail(self, entry: Entry, reason: str, message: str) -> None:
        """Report the end of a job that could not be created."""
        if entry.cancel is not None:
            self.unmade(entry)
            return
        self.done(entry, _end_now(entry.name, JobState.FAILED, reason, message))

    def lose(self, entry: Entry) -> None:
        """Report that a job is gone."""
        # What is left of its output is what was followed, by us or a former daemon.
        self._table.calls.run(
            lambda: self._parts.lives.finish(entry.name), lambda _: None, lambda _: None
        )
        if entry.cancel is not None:
            self.done(entry, withdrawal(entry.name, "canceled"))
            return
        message = f"the {self._engine.noun} is gone: somebody else has removed it"
        self.done(entry, _end_now(entry.name, JobState.LOST, "lost", message))

    def done(self, entry: Entry, seen: Observation) -> None:
        """Report the end of a job; the rest follows once that is durable."""
        entry.stage = Stage.DONE
        entry.stop_timers()
        entry.tries = 0
        entry.view = entry.told = entry.order = None
        entry.meta = ""
        self._parts.peeks.drop(entry.name)
        self._table.observe(seen)
        readers, entry.readers = entry.readers, []
        for tell in readers:
            tell()

    def settled(self, entry: Entry) -> None:
        """Learn that the end of a job is durable."""
        if entry.stage is not Stage.DONE or entry.settled.is_set():
            return
        entry.settled.set()
        keep_s = self._parts.settings.keep_finished_s
        if entry.handle is None:
            self._table.drop(entry.name)
        elif keep_s:
            remove = functools.partial(self._remove, entry)
            entry.set_timer("remove", self._parts.mover.after(keep_s, remove))
        else:
            self._remove(entry)

    def _go_on(self, entry: Entry, ending: Ending) -> None:
        self._calls_for(ending.stop).run(
            ending.run,
            lambda outcome: self._ended(entry, outcome),
            lambda error: self._not_ended(entry, ending, error),
        )

    def _calls_for(self, stop: Stop | None) -> Calls:
        if stop is None:
            return self._table.calls
        is_long = stop.wish.left_s() > LONG_STOP_S
        return self._table.long_stops if is_long else self._table.stops

    def _ended(self, entry: Entry, outcome: Observation | View) -> None:
        if isinstance(outcome, Observation):
            self.done(entry, outcome)
        elif entry.cancel is not None:
            self.cancel(entry)
        else:
            entry.stage = Stage.LIVE
            self._going_on(entry, outcome)

    def _not_ended(self, entry: Entry, ending: Ending, error: Exception) -> None:
        if entry.tries == 0:
            _log.warning("job %s can't be finished yet: %s", entry.name, error)
        if not isinstance(error, (PmanError, OSError)):
            ending.fault(error)
        self._table.again(entry, functools.partial(self._go_on, entry, ending))

    def _remove(self, entry: Entry) -> None:
        name, handle = entry.name, entry.handle or {}
        if self._table.entries.get(name) is entry:
            self._table.calls.run(
                lambda: self._engine.remove(name, handle),
                lambda _: self._table.drop(name),
                lambda error: self._not_removed(entry, error),
            )

    def _not_removed(self, entry: Entry, error: Exception) -> None:
        if entry.tries == 0:
            noun = self._engine.noun
            _log.warning("the %s of job %s can't be removed yet: %s", noun, entry.name, error)
        self._table.again(entry, functools.partial(self._remove, entry))


def withdrawal(name: str, message: str = "canceled before it was started") -> Observation:
    """Say that a job was canceled of which the engine has nothing."""
    return _end_now(name, JobState.CANCELED, "canceled", message)


def _end_now(name: str, state: JobState, reason: str, message: str) -> Observation:
    return Observation(name=name, state=state, reason=reason, message=message, ended_at=time.time())
