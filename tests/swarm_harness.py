"""A `SwarmEngine` on a real swarm: orders, waiting for what the engine shows, and nothing left."""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pman.backends._engine.order import Manager, Order
from pman.backends._engine.port import Phase, View
from pman.backends._swarm.engine import SwarmEngine
from pman.config import Settings

IMAGE = "local/busybox:1"

#: Longest wait for anything that a healthy engine does, seconds.
DEADLINE_S = 60.0


class Kept(dict[tuple[int, str], bytearray]):
    """A `Sink` in memory: {(worker, stream): bytes}."""

    def write(self, worker: int, stream: str, raw: bytes) -> None:
        """Append."""
        self.setdefault((worker, stream), bytearray()).extend(raw)


class SwarmBox:
    """One engine of an instance of its own, and the jobs that were made with it."""

    def __init__(self, **settings: Any) -> None:
        # Names differ from those of anybody else who uses the same swarm.
        self.instance = f"box-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.settings = Settings(db_path=Path("/nonexistent"), **{"kill_grace_s": 2.0, **settings})
        self._numbers = itertools.count(1)
        self._happened = threading.Condition()
        self.changes: list[tuple[str | None, bool]] = []
        self.engine = self.new_engine()

    def new_engine(self) -> SwarmEngine:
        """Return another engine of the same instance: what a new daemon has."""
        engine = SwarmEngine(self.settings, self.instance, self.settings.db_path)
        engine.connect()
        return engine

    def order(self, *command: str, **fields: Any) -> Order:
        """Return an order of an unused jid."""
        number = next(self._numbers)
        values: dict[str, Any] = {
            "job_name": f"20260102030405.000006_{uuid.uuid4()}",
            "jid": f"{self.instance}-{number}",
            "cmd": " ".join(command),
            "image": IMAGE,
            "command": list(command),
        }
        return Order(**(values | fields))

    def shell(self, script: str, **fields: Any) -> Order:
        """Return an order for a shell script."""
        return self.order("sh", "-c", script, **fields)

    def run(self, order: Order, share_path: str | None = None) -> dict[str, Any]:
        """Check and create; return the handle."""
        self.engine.check(order)
        return self.engine.create(order, share_path)

    def ended(self, order: Order, handle: dict[str, Any]) -> View:
        """Return the view of a job once it has ended."""
        return self.seen(order, handle, lambda view: view.phase is Phase.ENDED)

    def seen(self, order: Order, handle: dict[str, Any], is_it: Callable[[View], object]) -> View:
        """Return the first view of a job that `is_it` likes."""
        deadline = time.monotonic() + DEADLINE_S
        view = None
        while time.monotonic() < deadline:
            view = self.engine.look(order.job_name, handle)
            if view is not None and is_it(view):
                return view
            self.wait_change(0.1)
        raise AssertionError(f"not seen within {DEADLINE_S:g} s; last: {view}")

    def collected(self, view: View) -> Kept:
        """Return the whole output of a job."""
        kept = Kept()
        self.engine.collect(view, kept)
        return kept

    @contextmanager
    def watching(self) -> Iterator[threading.Thread]:
        """Follow the engine's events into `changes`."""
        stop = threading.Event()
        watcher = threading.Thread(target=self.engine.watch, args=(self._take, stop))
        watcher.start()
        try:
            self.wait_until(lambda: (None, False) in self.changes)
            yield watcher
        finally:
            stop.set()
            self.engine.interrupt()
            watcher.join(DEADLINE_S)

    def _take(self, job_name: str | None, is_hot: bool) -> None:
        with self._happened:
            self.changes.append((job_name, is_hot))
            self._happened.notify_all()

    def wait_change(self, timeout_s: float) -> None:
        """Return at the next event, or after a while."""
        with self._happened:
            self._happened.wait(timeout_s)

    def wait_until(self, is_so: Callable[[], object]) -> None:
        """Return once `is_so`, which is asked at each event."""
        with self._happened:
            assert self._happened.wait_for(is_so, DEADLINE_S), self.changes

    def close(self) -> None:
        """Remove all that was made."""
        self.engine.connect()
        for view in self.engine.look_all().values():
            self.engine.remove(view.job_name, view.handle)
        assert self.engine.look_all() == {}
        self.engine.close()


@contextmanager
def swarm_box(**settings: Any) -> Iterator[SwarmBox]:
    """Give a box, and leave nothing behind."""
    box = SwarmBox(**settings)
    try:
        yield box
    finally:
        box.close()


#: The manager image that `tests/swarm_manager` is built into.
MANAGER = Manager("local/swarm-manager:test", "swarm.py")
