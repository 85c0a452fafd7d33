"""`Entry`: what `EngineBackend` keeps of one job while it has to do with it. The mover's alone."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import Any

from pman.backends._engine.mover import Timer
from pman.backends._engine.order import Order
from pman.backends._engine.port import View
from pman.backends._engine.wish import Wish
from pman.job.observation import Observation


class Stage(enum.Enum):
    """Where a job is on its way through the engine."""

    ADOPTED = "adopted"  #: of a former daemon; the engine has not been asked yet
    SHARE = "share"  #: waits for its folder
    CREATING = "creating"  #: `Engine.create` is under way
    UNSURE = "unsure"  #: it is to be created; perhaps it has been
    LIVE = "live"  #: the engine has it
    ENDING = "ending"  #: is being stopped, or its output collected
    DONE = "done"  #: its end has been reported


class Entry:
    """One job.

    Attributes:
        name: Of the job.
        waits_since: When it was accepted, or its folder appeared, UTC epoch seconds.
        stage: See `Stage`.
        meta: The request as JSON text, until it is created.
        order: Read from `meta`, until it is created.
        handle: The engine's; None: nothing of it can be there.
        view: What was seen last.
        told: What was reported last.
        has_started: Whether RUNNING was reported, by this daemon or a former one.
        may_be_new: Whether the engine need not know it: if it doesn't, it is created.
        known_at: Number of the last look that had begun when the engine was known to have it.
        pending_timeout_s: How long it may wait for its start, seconds; None: `--pendingTimeout`.
        cancel: How it is to be canceled, once it is to be.
        is_followed: Whether somebody reads what it prints while it runs.
        readers: Of those who do, whom to tell that its output is there, once it has been seen.
        tries: Calls in a row that failed.
        reason_since: When it was first seen that it can't be started, monotonic seconds, or None.
        start_tries: How often it was tried again to have it started.
        hot_s: How long until the next look at it; it is about to change.
        is_doubted: Whether it is being asked whether it is gone.
        settled: Set once its end is durable, or it is forgotten.
        timers: By what for.
    """

    __slots__ = (
        "cancel",
        "handle",
        "has_started",
        "hot_s",
        "is_doubted",
        "is_followed",
        "known_at",
        "may_be_new",
        "meta",
        "name",
        "order",
        "pending_timeout_s",
        "readers",
        "reason_since",
        "settled",
        "stage",
        "start_tries",
        "timers",
        "told",
        "tries",
        "view",
        "waits_since",
    )

    def __init__(self, name: str, waits_since: float, stage: Stage) -> None:
        self.name = name
        self.waits_since = waits_since
        self.stage = stage
        self.meta = ""
        self.order: Order | None = None
        self.handle: dict[str, Any] | None = None
        self.view: View | None = None
        self.told: Observation | None = None
        self.has_started = False
        self.may_be_new = False
        self.known_at = 0
        self.pending_timeout_s: float | None = None
        self.cancel: Wish | None = None
        self.is_followed = False
        self.readers: list[Callable[[], object]] = []
        self.tries = 0
        self.start_tries = 0
        self.hot_s = 0.0
        self.is_doubted = False
        self.settled = threading.Event()
        self.reason_since: float | None = None
        self.timers: dict[str, Timer] = {}

    def set_timer(self, what: str, timer: Timer) -> None:
        """Keep a timer in the place of the former one."""
        self.stop_timer(what)
        self.timers[what] = timer

    def stop_timer(self, what: str) -> None:
        """Have it not run."""
        timer = self.timers.pop(what, None)
        if timer is not None:
            timer.cancel()

    def stop_timers(self) -> None:
        """Have none of them run."""
        for what in list(self.timers):
            self.stop_timer(what)
