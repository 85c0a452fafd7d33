"""`Jobs`: moves each job along, from what the engine shows and what clients ask for.

All of it runs in the mover's thread, which so needs no lock and never waits: what blocks is a call,
and its result comes back as a step.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pman.backends._engine import report
from pman.backends._engine.calls import Calls
from pman.backends._engine.ending import Ending, Stop
from pman.backends._engine.entries import Entry, Stage
from pman.backends._engine.looks import Looks, Wanted
from pman.backends._engine.mover import Mover
from pman.backends._engine.order import Order
from pman.backends._engine.orphans import Orphans
from pman.backends._engine.outage import Outage
from pman.backends._engine.peeks import MAX_BYTES, Peeks
from pman.backends._engine.port import Engine, Phase, View
from pman.backends._engine.shares import Shares
from pman.backends._engine.sink import LogSink
from pman.backends._engine.timing import Timing, backoff
from pman.backends.base import BackendContext, Observer
from pman.errors import BackendUnavailable, JobConflict, PmanError, RequestError
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState

_log = logging.getLogger(__name__)

#: Threads for calls that are over soon, for those that wait for containers to end, and for looks.
CALL_THREADS, STOP_THREADS, LOOK_THREADS = 8, 8, 1

#: How far an engine's object is; it does not go back.
_RANK = {Phase.WAITING: 0, Phase.RUNNING: 1, Phase.ENDED: 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What `Jobs` works with.

    Attributes:
        order_of: Reads an order from a request and the name of its job.
        waits_for_share: Whether a job waits until its folder is there.
    """

    context: BackendContext
    name: str
    engine: Engine
    mover: Mover
    outage: Outage
    timing: Timing
    peeks: Peeks
    order_of: Callable[[Mapping[str, Any], str], Order]
    waits_for_share: bool


class Jobs:
    """All jobs that this backend has to do with."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.context.settings
        self._engine = parts.engine
        self._mover = parts.mover
        self._outage = parts.outage
        self._timing = parts.timing
        self._entries: dict[str, Entry] = {}
        #: Jobs canceled before we were given them, and with what grace.
        self._withdrawn: dict[str, float] = {}
        #: What is to be gone on with as soon as the engine is there.
        self._parked: list[tuple[Entry, Callable[[], object]]] = []
        self._is_reconciled = False
        self._orphans = Orphans(self._settings.orphan_grace_s)
        self._observe: Observer = lambda _: None
        self._calls = Calls(parts.name, CALL_THREADS, parts.mover)
        self._stops = Calls(f"{parts.name}-stop", STOP_THREADS, parts.mover)
        self._look_calls = Calls(f"{parts.name}-look", LOOK_THREADS, parts.mover)
        self._shares = Shares(
            parts.name,
            parts.timing.share_s,
            found=lambda name: self._mover.post(lambda: self._share_found(name)),
            missing=lambda name: self._mover.post(lambda: self._share_missing(name)),
        )
        self._looks = Looks(
            parts.engine,
            parts.mover,
            self._look_calls,
            parts.outage,
            parts.timing,
            handle_of=self._handle_of,
            seen=self._seen,
        )

    # --- of all jobs ------------------------------------------------------------------------

    def start(self, observe: Observer) -> None:
        """Begin; called once, before the mover starts."""
        self._observe = observe
        self._shares.start()
        self._mover.after(self._timing.slow_s, self._slow_look)

    def request_stop(self) -> None:
        """Begin nothing more. From any thread."""
        self._shares.request_stop()
        for calls in (self._calls, self._stops, self._look_calls):
            calls.close()

    def kick(self) -> None:
        """Go on with all that waited for the engine."""
        parked, self._parked = self._parked, []
        for entry, step in parked:
            if self._entries.get(entry.name) is entry:
                entry.tries = 0
                step()
        self._looks.hurry()

    def changed(self, name: str | None, is_hot: bool) -> None:
        """Learn that something has happened to a job, or perhaps to any."""
        if name is None:
            self._looks.ask(None)
            return
        entry = self._entries.get(name)
        if entry is None:
            return
        if is_hot:
            entry.hot_s = self._timing.hot_s
        if entry.stage is Stage.LIVE:
            self._look_again(entry)

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
            entry.cancel_s = self._withdrawn.pop(job.name, None)
            entry.known_at = self._looks.count
            self._entries[job.name] = entry
        self._is_reconciled = True
        self._looks.ask(None)

    def may_replace(self, name: str) -> bool:
        """Say whether the object of a job may go for another; waits a moment. From any thread."""
        entry = self._entries.get(name)
        if entry is None:
            return self._is_reconciled
        return entry.stage is Stage.DONE and entry.end.wait(self._timing.settle_s)

    # --- of one job, for `EngineBackend` ----------------------------------------------------

    def begin(self, job: Job, order: Order, is_share_there: bool) -> Entry | None:
        """Take a job.

        Returns:
            The entry, for who is to create it now; None when nothing is to be done.
        """
        if self._withdrawn.pop(job.name, None) is not None or job.name in self._entries:
            return None
        entry = Entry(job.name, job.accepted_at, Stage.CREATING)
        entry.order = order
        self._entries[job.name] = entry
        if not is_share_there:
            self._wait_for_share(entry)
            return None
        return entry

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
        entry.known_at = self._looks.count
        if entry.cancel_s is not None:
            self._end_live(entry, _canceled(entry.cancel_s))
            return
        state = None if entry.has_started else JobState.QUEUED
        self._tell(
            entry, Observation(name=entry.name, state=state, handle=handle, reason="", message="")
        )
        self._look_again(entry)

    def unanswered(self, entry: Entry) -> None:
        """Learn that the engine may or may not have a job."""
        entry.stage = Stage.UNSURE
        self._again(entry, functools.partial(self._find_or_create, entry))

    def refused(self, entry: Entry) -> bool:
        """Forget a job that was not taken; return whether who submits it is to be told."""
        if entry.cancel_s is not None:
            self._end_unmade(entry)
            return False
        self._entries.pop(entry.name, None)
        return True

    def needs_engine(self, job: Job) -> bool:
        """Say whether the engine has to be told when a job is canceled."""
        entry = self._entries.get(job.name)
        if entry is None:
            return False
        return entry.stage not in (Stage.SHARE, Stage.ENDING, Stage.DONE)

    def cancel(self, job: Job, grace_s: float) -> None:
        """Have a job end."""
        entry = self._entries.get(job.name)
        if entry is None:
            self._withdraw(job, grace_s)
        elif entry.cancel_s is None and entry.stage is not Stage.DONE:
            entry.cancel_s = grace_s
            if entry.stage is Stage.SHARE:
                self._shares.discard(entry.name)
                self._end_unmade(entry)
            elif entry.stage is Stage.LIVE:
                self._end_live(entry, _canceled(grace_s))
            elif entry.stage is Stage.UNSURE:
                entry.stop_timers()
                self._find_or_create(entry)

    def settled(self, name: str) -> None:
        """Learn that the end of a job is durable."""
        entry = self._entries.get(name)
        if entry is None or entry.stage is not Stage.DONE or entry.end.is_set():
            return
        entry.end.set()
        if entry.handle is None:
            self.forget(name)
            return
        remove = functools.partial(self._remove, entry)
        if self._settings.keep_finished_s:
            entry.set_timer("remove", self._mover.after(self._settings.keep_finished_s, remove))
        else:
            remove()

    def held(self, name: str) -> dict[str, Any] | None:
        """Return the handle of what the engine may have of a job."""
        entry = self._entries.get(name)
        return None if entry is None else entry.handle

    def forget(self, name: str) -> None:
        """Drop all that is kept of a job."""
        self._withdrawn.pop(name, None)
        entry = self._entries.pop(name, None)
        if entry is not None:
            entry.stop_timers()
            entry.end.set()
        self._parts.peeks.drop(name)

    def peek(self, name: str) -> None:
        """Have the output of a running job looked at."""
        entry = self._entries.get(name)
        if entry is None or entry.stage is not Stage.LIVE or entry.view is None:
            return
        view = entry.view
        if view.phase is Phase.RUNNING and self._outage.is_up:
            self._calls.run(
                lambda: self._engine.peek(view, MAX_BYTES),
                lambda raw: self._parts.peeks.put(name, raw),
                lambda _: None,  # what is known stays; whoever asks again has it tried again
            )

    # --- before it is created ---------------------------------------------------------------

    def _withdraw(self, job: Job, grace_s: float) -> None:
        is_new = job.state is JobState.NEW
        if job.name not in self._withdrawn and (is_new or not self._is_reconciled):
            self._withdrawn[job.name] = grace_s
            if is_new:
                self._observe(_unmade(job.name))

    def _wait_for_share(self, entry: Entry) -> None:
        assert entry.order is not None
        entry.stage = Stage.SHARE
        self._shares.add(entry.name, Path(entry.order.share_dir or "/"))

    def _share_found(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is not None and entry.stage is Stage.SHARE:
            entry.stop_timers()
            entry.stage = Stage.UNSURE
            self._create(entry)

    def _share_missing(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is None or entry.stage is not Stage.SHARE or entry.order is None:
            return
        folder = entry.order.share_dir
        self._tell(
            entry,
            Observation(
                name=name,
                state=JobState.QUEUED,
                reason="share_missing",
                message=f"waits for the folder {folder!r} to appear",
            ),
        )
        timeout_s = self._settings.pending_timeout_s
        message = f"the folder {folder!r} did not appear within {timeout_s:g} s (--pendingTimeout)"
        give_up = functools.partial(self._fail, entry, "share_missing", message)
        entry.set_timer("pending", self._mover.after(self._left_s(entry), give_up))

    def _place(self, entry: Entry) -> None:
        """Have a job of a former daemon created that never got so far."""
        try:
            entry.order = self._parts.order_of(json.loads(entry.meta), entry.name)
        except RequestError as exc:
            self._fail(entry, "rejected", exc.message)
            return
        entry.stage = Stage.UNSURE
        if self._parts.waits_for_share and entry.order.share_dir is not None:
            self._wait_for_share(entry)
        else:
            self._create(entry)

    def _create(self, entry: Entry) -> None:
        """Have a job created, by a call of its own."""
        if not self._outage.is_up:
            self._parked.append((entry, functools.partial(self._find_or_create, entry)))
            return
        order = entry.order
        assert order is not None
        entry.stage = Stage.CREATING
        self._calls.run(
            lambda: self._engine.create(order, engine_path(order, self._settings.store_base)),
            lambda handle: self.created(entry, handle),
            lambda error: self._not_created(entry, error),
        )

    def _not_created(self, entry: Entry, error: Exception) -> None:
        if isinstance(error, JobConflict):
            self._fail(entry, "name_taken", error.message)
        elif isinstance(error, PmanError) and not isinstance(error, BackendUnavailable):
            self._fail(entry, "rejected", error.message)
        else:
            self.unanswered(entry)

    def _find_or_create(self, entry: Entry) -> None:
        if entry.stage is not Stage.UNSURE:
            return
        if entry.cancel_s is None:
            self._create(entry)
            return
        entry.stage = Stage.CREATING
        self._calls.run(
            lambda: self._engine.look_all().get(entry.name),
            lambda view: self._found(entry, view),
            lambda _: self.unanswered(entry),
        )

    def _found(self, entry: Entry, view: View | None) -> None:
        if view is not None:
            self.created(entry, view.handle)
        else:
            self._end_unmade(entry)

    # --- what the engine shows --------------------------------------------------------------

    def _handle_of(self, name: str) -> dict[str, Any] | None:
        entry = self._entries.get(name)
        return None if entry is None or entry.stage is not Stage.LIVE else entry.handle

    def _look_again(self, entry: Entry) -> None:
        """Look now, and while it is about to change soon again and again, ever more seldom."""
        self._looks.ask(entry.name)
        if not entry.hot_s:
            return
        entry.set_timer("hot", self._mover.after(entry.hot_s, lambda: self._look_again(entry)))
        entry.hot_s = 2 * entry.hot_s if entry.hot_s < self._timing.hot_max_s else 0.0

    def _cool(self, entry: Entry) -> None:
        entry.hot_s = 0.0
        entry.stop_timer("hot")

    def _slow_look(self) -> None:
        self._looks.ask(None)
        period_s = self._timing.slow_s if self._is_busy() else self._timing.idle_s
        self._mover.after(period_s, self._slow_look)

    def _is_busy(self) -> bool:
        return any(entry.stage is not Stage.DONE for entry in self._entries.values())

    def _seen(self, number: int, wanted: Wanted, views: dict[str, View]) -> None:
        """Take the result of a look."""
        for name, view in views.items():
            entry = self._entries.get(name)
            if entry is not None:
                self._take(entry, view)
        names = list(self._entries) if wanted is None else wanted
        for name in names:
            entry = self._entries.get(name)
            if entry is not None and name not in views and entry.known_at < number:
                self._miss(entry)
        if wanted is None and self._is_reconciled:
            self._remove_orphans(views)

    def _take(self, entry: Entry, view: View) -> None:
        if entry.stage in (Stage.ADOPTED, Stage.UNSURE):
            self.created(entry, view.handle)
        if entry.stage is not Stage.LIVE:
            return
        if entry.view is not None:
            step = _RANK[view.phase] - _RANK[entry.view.phase]
            if step < 0:
                return  # an older look, or a part that is made anew
            if step:
                self._cool(entry)
        entry.view = view
        entry.handle = view.handle
        if view.phase is Phase.ENDED:
            self._end_live(entry, None)
            return
        self._tell(entry, report.progress(view, has_started=entry.has_started))
        if view.phase is Phase.WAITING:
            self._mind_waiting(entry, view)
        else:
            entry.has_started = True
            entry.stop_timer("pending")
            entry.stop_timer("start")

    def _miss(self, entry: Entry) -> None:
        """Deal with a job that the engine does not show."""
        if entry.stage is Stage.ADOPTED and entry.may_be_new:
            if entry.cancel_s is not None:
                self._end_unmade(entry)
            else:
                self._place(entry)
        elif entry.stage is Stage.ADOPTED and entry.handle is None:
            self._lose(entry)
        elif entry.stage in (Stage.ADOPTED, Stage.LIVE) and not entry.is_doubted:
            entry.is_doubted = True
            handle = entry.handle or {}
            self._calls.run(
                lambda: self._engine.look(entry.name, handle),
                lambda view: self._assured(entry, view),
                lambda _: self._doubt_later(entry),
            )

    def _assured(self, entry: Entry, view: View | None) -> None:
        """Take the engine's word on whether a job is gone."""
        entry.is_doubted = False
        if view is not None:
            self._take(entry, view)
        elif entry.stage in (Stage.ADOPTED, Stage.LIVE):
            self._lose(entry)

    def _doubt_later(self, entry: Entry) -> None:
        entry.is_doubted = False
        self._looks.ask(None)

    def _lose(self, entry: Entry) -> None:
        if entry.cancel_s is not None:
            self._done(entry, _unmade(entry.name, "canceled"))
            return
        message = f"the {self._engine.noun} is gone: somebody else has removed it"
        seen = Observation(name=entry.name, state=JobState.LOST, reason="lost", message=message)
        seen.ended_at = time.time()
        self._done(entry, seen)

    # --- that can't be started --------------------------------------------------------------

    def _mind_waiting(self, entry: Entry, view: View) -> None:
        """See that a job that can't be started is tried again, and is not waited for for ever."""
        if not view.reason:
            entry.stop_timer("pending")
            entry.stop_timer("start")
            return
        left_s = self._left_s(entry)
        if left_s <= 0:
            self._give_up(entry, view)
            return
        if "pending" not in entry.timers:
            # The look that follows shows whether it still can't.
            entry.set_timer("pending", self._mover.after(left_s, lambda: self._out_of_time(entry)))
        if "start" not in entry.timers:
            self._start_later(entry)

    def _out_of_time(self, entry: Entry) -> None:
        entry.stop_timer("pending")
        self._looks.ask(entry.name)

    def _left_s(self, entry: Entry) -> float:
        """Return how long a job may still wait, seconds."""
        return entry.accepted_at + self._settings.pending_timeout_s - time.time()

    def _give_up(self, entry: Entry, view: View) -> None:
        stop = Stop(
            state=JobState.FAILED,
            reason=view.reason,
            message=view.message,
            grace_s=self._settings.kill_grace_s,
            only_waiting=True,
        )
        self._end_live(entry, stop)

    def _start_later(self, entry: Entry) -> None:
        delay_s = backoff(self._timing.start_s, self._timing.start_max_s, entry.start_tries)
        entry.start_tries += 1
        entry.set_timer("start", self._mover.after(delay_s, lambda: self._start_again(entry)))

    def _start_again(self, entry: Entry) -> None:
        """Have the engine try again what it could not start."""
        view = entry.view
        if entry.stage is not Stage.LIVE or view is None or not view.reason:
            return
        self._calls.run(
            lambda: self._engine.retry(view),
            lambda was_told: self._started_again(entry, was_told),
            lambda _: self._start_later(entry),
        )

    def _started_again(self, entry: Entry, was_told: bool) -> None:
        if entry.stage is Stage.LIVE and was_told:
            entry.hot_s = self._timing.hot_s
            self._look_again(entry)
            self._start_later(entry)

    # --- the end ----------------------------------------------------------------------------

    def _end_live(self, entry: Entry, stop: Stop | None) -> None:
        """Begin the end of a job that the engine has: perhaps stop it, collect, report."""
        entry.stage = Stage.ENDING
        entry.stop_timers()
        entry.tries = 0
        output, max_bytes = self._parts.context.output, self._settings.max_output_bytes
        ending = Ending(
            self._engine,
            lambda: LogSink(output, entry.name, max_bytes),
            entry.name,
            entry.handle or {},
            entry.view,
            stop,
        )
        self._go_on_ending(entry, ending)

    def _go_on_ending(self, entry: Entry, ending: Ending) -> None:
        calls = self._calls if ending.stop is None else self._stops
        calls.run(
            ending.run,
            lambda outcome: self._ended(entry, outcome),
            lambda error: self._not_ended(entry, ending, error),
        )

    def _ended(self, entry: Entry, outcome: Observation | View) -> None:
        if isinstance(outcome, Observation):
            self._done(entry, outcome)
        elif entry.cancel_s is not None:
            self._end_live(entry, _canceled(entry.cancel_s))
        else:
            entry.stage = Stage.LIVE
            self._take(entry, outcome)

    def _not_ended(self, entry: Entry, ending: Ending, error: Exception) -> None:
        if entry.tries == 0:
            _log.warning("job %s can't be finished yet: %s", entry.name, error)
        self._again(entry, lambda: self._go_on_ending(entry, ending))

    def _end_unmade(self, entry: Entry) -> None:
        self._done(entry, _unmade(entry.name))

    def _fail(self, entry: Entry, reason: str, message: str) -> None:
        """End a job that was not created."""
        if entry.stage is Stage.SHARE:
            self._shares.discard(entry.name)
        if entry.cancel_s is not None:
            self._end_unmade(entry)
            return
        seen = Observation(name=entry.name, state=JobState.FAILED, reason=reason, message=message)
        seen.ended_at = time.time()
        self._done(entry, seen)

    def _done(self, entry: Entry, seen: Observation) -> None:
        """Report the end of a job; the rest follows once that is durable."""
        entry.stage = Stage.DONE
        entry.stop_timers()
        entry.tries = 0
        entry.view = entry.told = entry.order = None
        entry.meta = ""
        self._parts.peeks.drop(entry.name)
        self._observe(seen)

    def _remove(self, entry: Entry) -> None:
        name, handle = entry.name, entry.handle or {}
        if self._entries.get(name) is not entry:
            return
        self._calls.run(
            lambda: self._engine.remove(name, handle),
            lambda _: self.forget(name),
            lambda error: self._not_removed(entry, error),
        )

    def _not_removed(self, entry: Entry, error: Exception) -> None:
        if entry.tries == 0:
            noun = self._engine.noun
            _log.warning("the %s of job %s can't be removed yet: %s", noun, entry.name, error)
        self._again(entry, functools.partial(self._remove, entry))

    def _remove_orphans(self, views: Mapping[str, View]) -> None:
        for name, handle in self._orphans.judge(views, self._entries):
            _log.info("removing the %s of job %s, which we don't know", self._engine.noun, name)
            self._calls.run(
                functools.partial(self._engine.remove, name, handle),
                lambda _: None,
                lambda _: None,  # the next look finds it again
            )

    # --- used by all ------------------------------------------------------------------------

    def _tell(self, entry: Entry, seen: Observation) -> None:
        """Report how a job stands, if that is new."""
        if entry.told != seen:
            entry.told = seen
            self._observe(seen)

    def _again(self, entry: Entry, step: Callable[[], object]) -> None:
        """Do something again after a while, once the engine is there."""
        delay_s = backoff(self._timing.again_s, self._timing.again_max_s, entry.tries)
        entry.tries += 1

        def resume() -> None:
            if self._outage.is_up:
                step()
            else:
                self._parked.append((entry, step))

        entry.set_timer("again", self._mover.after(delay_s, resume))


def engine_path(order: Order, store_base: str | None) -> str | None:
    """Return where the engine finds the folder for `/share`.

    Source: WIRE.md 14.1, step 2.
    """
    if order.share_dir is None or store_base is None:
        return order.share_dir
    return str(Path(store_base, Path(order.share_dir).name))


def _canceled(grace_s: float) -> Stop:
    return Stop(state=JobState.CANCELED, reason="canceled", message="canceled", grace_s=grace_s)


def _unmade(name: str, message: str = "canceled before it was started") -> Observation:
    return Observation(
        name=name,
        state=JobState.CANCELED,
        reason="canceled",
        message=message,
        ended_at=time.time(),
    )
