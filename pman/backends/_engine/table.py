"""`Table`: the jobs that `EngineBackend` has to do with, and what all who move them share.

The mover's alone, like all that works on it: `Creating`, `Following`, `Finishing`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pman.backends._engine.calls import Calls
from pman.backends._engine.entries import Entry
from pman.backends._engine.lives import Lives
from pman.backends._engine.mover import Mover
from pman.backends._engine.order import Order
from pman.backends._engine.outage import Outage
from pman.backends._engine.peeks import Peeks
from pman.backends._engine.port import Engine
from pman.backends._engine.timing import Timing, backoff
from pman.backends.base import BackendContext, Observer
from pman.config import Settings
from pman.job.observation import Observation

#: Threads for calls that are over soon, for those that wait for containers to end, for looks, and
#: for what running jobs print: that is only for show, and the node it comes from may be silent.
CALL_THREADS, STOP_THREADS, LOOK_THREADS, PEEK_THREADS = 8, 32, 1, 2

#: Containers that have more time than this to end are waited for by other threads, seconds, and how
#: many: nobody's hour may hold up the ends of others.
LONG_STOP_S, LONG_STOP_THREADS = 60.0, 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What the jobs are moved with.

    Attributes:
        order_of: Reads an order from a request and the name of its job.
        lives: Follows what running jobs print.
        waits_for_share: Whether a job waits until its folder is there.
    """

    context: BackendContext
    name: str
    engine: Engine
    mover: Mover
    outage: Outage
    timing: Timing
    peeks: Peeks
    lives: Lives
    order_of: Callable[[Mapping[str, Any], str], Order]
    waits_for_share: bool

    @property
    def settings(self) -> Settings:
        """The daemon's settings."""
        return self.context.settings


class Table:
    """Entries by job name.

    Attributes:
        calls: Has engine calls made that are over soon.
        stops: Has those made that wait for containers to end, of managers too.
        look_calls: Has looks made.
        peek_calls: Has the output of running jobs read.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.entries: dict[str, Entry] = {}
        self.observe: Observer = lambda _: None
        self.calls = Calls(parts.name, CALL_THREADS, parts.mover)
        self.stops = Calls(f"{parts.name}-stop", STOP_THREADS, parts.mover)
        self.long_stops = Calls(f"{parts.name}-long-stop", LONG_STOP_THREADS, parts.mover)
        self.look_calls = Calls(f"{parts.name}-look", LOOK_THREADS, parts.mover)
        self.peek_calls = Calls(f"{parts.name}-peek", PEEK_THREADS, parts.mover)
        #: What is to be gone on with as soon as the engine is there.
        self._parked: list[tuple[Entry, Callable[[], object]]] = []

    def close(self) -> None:
        """Have no more calls made. From any thread."""
        for calls in (self.calls, self.stops, self.long_stops, self.look_calls, self.peek_calls):
            calls.close()

    def drop(self, name: str) -> None:
        """Forget a job."""
        entry = self.entries.pop(name, None)
        if entry is not None:
            entry.stop_timers()
            entry.settled.set()
        self.parts.peeks.drop(name)
        self.parts.lives.drop(name)

    def tell(self, entry: Entry, seen: Observation) -> None:
        """Report how a job stands, if that is new."""
        if entry.told != seen:
            entry.told = seen
            self.observe(seen)

    def pending_timeout_s(self, entry: Entry) -> float:
        """Return how long a job may wait for its start, seconds."""
        own_s = entry.pending_timeout_s
        return self.parts.settings.pending_timeout_s if own_s is None else own_s

    def pending_words(self, entry: Entry) -> str:
        """Say how long that is, and who has said so."""
        source = "--pendingTimeout" if entry.pending_timeout_s is None else "pendingTimeout"
        return f"within {self.pending_timeout_s(entry):g} s ({source})"

    def again(self, entry: Entry, step: Callable[[], object]) -> None:
        """Do something again after a while, and once the engine is there."""
        timing = self.parts.timing
        delay_s = backoff(timing.again_s, timing.again_max_s, entry.tries)
        entry.tries += 1
        resume = self.parts.mover.after(delay_s, lambda: self.when_up(entry, step))
        entry.set_timer("again", resume)

    def when_up(self, entry: Entry, step: Callable[[], object]) -> None:
        """Do something as soon as the engine is there."""
        if self.parts.outage.is_up:
            step()
        else:
            self._parked.append((entry, step))

    def unpark(self) -> None:
        """Do what has waited for the engine."""
        parked, self._parked = self._parked, []
        for entry, step in parked:
            if self.entries.get(entry.name) is entry:
                entry.tries = 0
                step()
