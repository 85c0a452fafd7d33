"""`Creating`: a job until the engine has it, where that takes more than one call in `submit`."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pman.backends._engine.entries import Entry, Stage
from pman.backends._engine.finishing import Finishing
from pman.backends._engine.order import Order
from pman.backends._engine.port import Unanswered, View
from pman.backends._engine.shares import Shares
from pman.backends._engine.table import Table
from pman.errors import BackendUnavailable, JobConflict, PmanError, RequestError
from pman.job.observation import Observation
from pman.job.state import JobState

#: So often in a row an engine that is there may fail to create a job before it is given up.
MIN_TRIES = 5


class Ticket:
    """Of one who submits a job and waits for it to be created.

    Attributes:
        is_over: Set once it is known what became of the job.
        error: Why it was refused; the mover's, like `is_held`.
        is_held: Whether somebody still waits.
    """

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.error: PmanError | None = None
        self.is_held = True

    def give_back(self) -> PmanError | None:
        """Wait no more: a refusal is reported as the end of the job from now on."""
        self.is_held = False
        return self.error


class Creating:
    """Waits for folders, creates, and finds out whether a create that got no answer was done."""

    def __init__(
        self,
        table: Table,
        finishing: Finishing,
        created: Callable[[Entry, dict[str, Any]], object],
    ) -> None:
        """Prepare.

        Args:
            created: Takes a job that the engine has, and its handle.
        """
        self._table = table
        self._parts = table.parts
        self._engine = table.parts.engine
        self._finishing = finishing
        self._created = created
        post = table.parts.mover.post
        self.shares = Shares(
            table.parts.name,
            table.parts.timing.share_s,
            found=lambda name: post(lambda: self._share_found(name)),
            missing=lambda name: post(lambda: self._share_missing(name)),
        )

    def place(self, entry: Entry) -> None:
        """Have a job of a former daemon created that never got so far."""
        try:
            entry.order = self._parts.order_of(json.loads(entry.meta), entry.name)
        except RequestError as exc:
            self._finishing.fail(entry, "rejected", exc.message)
            return
        if self._parts.waits_for_share and entry.order.share_dir is not None:
            self.wait_for_share(entry)
        else:
            self._create_soon(entry)

    def _create_soon(self, entry: Entry) -> None:
        """Create a job as soon as the engine is there."""
        entry.stage = Stage.UNSURE
        self._table.when_up(entry, functools.partial(self._find_or_create, entry))

    def wait_for_share(self, entry: Entry) -> None:
        """Create a job once its folder is there."""
        assert entry.order is not None
        assert entry.order.share_dir is not None
        entry.stage = Stage.SHARE
        self.shares.add(entry.name, Path(entry.order.share_dir))

    def unanswered(self, entry: Entry, error: Exception) -> None:
        """Find out, later, whether the engine has a job; create it if not."""
        entry.stage = Stage.UNSURE
        seen = Observation(
            name=entry.name, state=JobState.QUEUED, reason="not_created", message=_words(error)
        )
        self._table.tell(entry, seen)
        self._table.again(entry, functools.partial(self._find_or_create, entry))

    def cancel(self, entry: Entry) -> None:
        """Have a job not created that waits for its folder or for another try."""
        if entry.stage is Stage.SHARE:
            self.shares.discard(entry.name)
            self._finishing.unmade(entry)
        elif entry.stage is Stage.UNSURE:
            entry.stop_timer("again")
            self._find_or_create(entry)

    def _share_found(self, name: str) -> None:
        entry = self._table.entries.get(name)
        if entry is not None and entry.stage is Stage.SHARE:
            entry.stop_timers()
            entry.waits_since = time.time()
            self._create_soon(entry)

    def _share_missing(self, name: str) -> None:
        entry = self._table.entries.get(name)
        if entry is None or entry.stage is not Stage.SHARE or entry.order is None:
            return
        folder = entry.order.share_dir
        self._table.tell(
            entry,
            Observation(
                name=name,
                state=JobState.QUEUED,
                reason="share_missing",
                message=f"waits for the folder {folder!r} to appear",
            ),
        )
        left_s = entry.waits_since + self._table.pending_timeout_s(entry) - time.time()
        give_up = functools.partial(self._share_too_late, entry)
        entry.set_timer("pending", self._parts.mover.after(left_s, give_up))

    def _share_too_late(self, entry: Entry) -> None:
        assert entry.order is not None
        self.shares.discard(entry.name)
        folder = entry.order.share_dir
        message = f"the folder {folder!r} did not appear {self._table.pending_words(entry)}"
        self._finishing.fail(entry, "share_missing", message)

    def _find_or_create(self, entry: Entry) -> None:
        if entry.stage is not Stage.UNSURE:
            return
        entry.stage = Stage.CREATING
        if entry.cancel is None:
            self.create(entry)
        else:
            self._find(entry)

    def create(self, entry: Entry, ticket: Ticket | None = None) -> None:
        """Have a job created: `Engine.create` finds it if that has been done already."""
        order = entry.order
        assert order is not None
        calls = self._table.stops if self._engine.creates_slowly else self._table.calls
        calls.run(
            lambda: self._engine.create(order, engine_path(order, self._parts.settings.store_base)),
            lambda handle: self._made(entry, handle, ticket),
            lambda error: self._not_made(entry, error, ticket),
        )

    def _made(self, entry: Entry, handle: dict[str, Any], ticket: Ticket | None) -> None:
        self._created(entry, handle)
        if ticket is not None:
            ticket.is_over.set()

    def _not_made(self, entry: Entry, error: Exception, ticket: Ticket | None) -> None:
        is_refused = isinstance(error, PmanError) and not isinstance(error, Unanswered)
        if ticket is None or not ticket.is_held or not is_refused or entry.cancel is not None:
            self._not_created(entry, error)
        elif isinstance(error, PmanError):
            ticket.error = error
            self._table.drop(entry.name)
        if ticket is not None:
            ticket.is_over.set()

    def _not_created(self, entry: Entry, error: Exception) -> None:
        if isinstance(error, JobConflict):
            self._finishing.fail(entry, "name_taken", error.message)
        elif isinstance(error, PmanError) and not isinstance(error, BackendUnavailable):
            self._finishing.fail(entry, "rejected", error.message)
        elif self._is_too_late(entry):
            self._find(entry, _words(error))
        else:
            self.unanswered(entry, error)

    def _is_too_late(self, entry: Entry) -> bool:
        """Say whether an engine that is there has failed for too long."""
        is_late = time.time() > entry.waits_since + self._table.pending_timeout_s(entry)
        return is_late and entry.tries >= MIN_TRIES and self._parts.outage.is_up

    def _find(self, entry: Entry, trouble: str = "") -> None:
        """Look by its label for a job that is not to be created any more.

        Args:
            trouble: Why; it was canceled if "".
        """
        self._table.calls.run(
            lambda: self._clean(entry.name),
            lambda view: self._found(entry, view, trouble),
            lambda error: self.unanswered(entry, error),
        )

    def _clean(self, name: str) -> View | None:
        view = self._engine.look_all().get(name)
        if view is None:
            self._engine.remove(name, {})  # of what is made first something may be there
        return view

    def _found(self, entry: Entry, view: View | None, trouble: str) -> None:
        if view is not None:
            self._created(entry, view.handle)
        elif trouble:
            words = self._table.pending_words(entry)
            self._finishing.fail(entry, "not_created", f"not created {words}: {trouble}")
        else:
            self._finishing.unmade(entry)


def _words(error: Exception) -> str:
    return error.message if isinstance(error, PmanError) else repr(error)


def engine_path(order: Order, store_base: str | None) -> str | None:
    """Return where the engine finds the folder for `/share`.

    Source: WIRE.md 14.1, step 2.
    """
    if order.share_dir is None or store_base is None:
        return order.share_dir
    return str(Path(store_base, Path(order.share_dir).name))
