"""`Looks`: decides when the engine is asked how jobs stand. The mover's alone.

One look is under way at a time. Many jobs that may have changed cost one look at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pman.backends._engine.calls import Calls
from pman.backends._engine.mover import Mover
from pman.backends._engine.outage import Outage
from pman.backends._engine.port import Engine, View
from pman.backends._engine.timing import Timing, backoff

#: Looks at more jobs than this are one look at all.
FEW = 4

SOURCE = "call"

#: Which jobs are looked at: names and handles; None for all.
Wanted = Mapping[str, dict[str, Any]] | None
#: Takes the number of the look, counted from 1, what was looked for, and what is there.
Seen = Callable[[int, Wanted, dict[str, View]], object]


class Looks:
    """Gathers names, and has the engine asked."""

    def __init__(
        self,
        engine: Engine,
        mover: Mover,
        calls: Calls,
        outage: Outage,
        timing: Timing,
        handle_of: Callable[[str], dict[str, Any] | None],
        seen: Seen,
    ) -> None:
        """Prepare.

        Args:
            calls: With one thread, so that slow work elsewhere holds up no look.
            handle_of: None for a job that can only be found by its label.
            seen: Called by the mover with each result.
        """
        self._engine = engine
        self._mover = mover
        self._calls = calls
        self._outage = outage
        self._timing = timing
        self._handle_of = handle_of
        self._seen = seen
        self._names: set[str] = set()
        self._is_all = False
        self._is_under_way = False
        self._is_resting = False
        self._tries = 0
        self._wait_id = 0
        #: Number of the look that began last.
        self.count = 0

    def ask(self, name: str | None) -> None:
        """Have a job looked at soon; None: all."""
        if name is None:
            self._is_all = True
        else:
            self._names.add(name)
        self._begin()

    def hurry(self) -> None:
        """Look now if a look waits for the engine."""
        self._is_resting = False
        self._begin()

    def _begin(self) -> None:
        if self._is_under_way or self._is_resting or not (self._is_all or self._names):
            return
        wanted = self._wanted()
        self._names.clear()
        self._is_all = False
        self._is_under_way = True
        self.count += 1
        number, began = self.count, time.monotonic()
        self._calls.run(
            lambda: self._look(wanted),
            lambda views: self._done(number, wanted, views, began),
            lambda error: self._failed(wanted, error),
        )

    def _wanted(self) -> Wanted:
        if self._is_all or len(self._names) > FEW:
            return None
        handles = {}
        for name in self._names:
            handle = self._handle_of(name)
            if handle is None:
                return None
            handles[name] = handle
        return handles

    def _look(self, wanted: Wanted) -> dict[str, View]:
        if not self._outage.is_up:
            self._outage.connect(self._engine)
        if wanted is None:
            return self._engine.look_all()
        views = {}
        for name, handle in wanted.items():
            view = self._engine.look(name, handle)
            if view is not None:
                views[name] = view
        return views

    def _done(self, number: int, wanted: Wanted, views: dict[str, View], began: float) -> None:
        self._is_under_way = False
        self._tries = 0
        self._outage.up(SOURCE)
        if wanted is None:  # a busy engine gets as much rest as it was asked for work
            self._rest(min(time.monotonic() - began, self._timing.connect_max_s))
        self._seen(number, wanted, views)
        self._begin()

    def _failed(self, wanted: Wanted, error: Exception) -> None:
        self._is_under_way = False
        self._outage.down(SOURCE, error)
        if wanted is None:
            self._is_all = True
        else:
            self._names.update(wanted)
        self._rest(backoff(self._timing.connect_s, self._timing.connect_max_s, self._tries))
        self._tries += 1

    def _rest(self, rest_s: float) -> None:
        self._is_resting = True
        self._wait_id += 1
        mine = self._wait_id

        def wake() -> None:
            if self._wait_id == mine:
                self.hurry()

        self._mover.after(rest_s, wake)
