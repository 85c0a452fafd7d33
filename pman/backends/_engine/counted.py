"""`CountedEngine`: an engine whose failures are counted, whoever calls it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pman.backends._engine.halt import Halt
from pman.backends._engine.order import Order
from pman.backends._engine.port import Changed, Engine, Phase, Sink, Unanswered, View
from pman.backends._engine.wish import Wish
from pman.errors import BackendError, BackendUnavailable, RequestError
from pman.job.record import Worker
from pman.meters import FAILED, REFUSED, UNANSWERED, UNAVAILABLE, ErrorMeter

#: Methods of `Engine` that ask it something.
CALLS = (
    *("connect", "check", "create", "describe", "look_all", "look", "watch"),
    *("collect", "peek", "follow", "stop", "remove", "retry"),
)

#: Those of them that write to a sink, which may fail by itself.
WRITING = frozenset({"collect", "follow", "stop"})


def _never() -> bool:
    return False


class CountedEngine(Engine):
    """Passes all calls on to an engine, and counts those that raise.

    Not counted: what is wrong with a request, a disk that can't keep output, and a connection that
    broke because it was to end.
    """

    def __init__(self, engine: Engine, errors: ErrorMeter) -> None:
        """Prepare.

        Args:
            errors: Has `CALLS`.
        """
        self.noun = engine.noun
        self.creates_slowly = engine.creates_slowly
        self._engine = engine
        self._errors = errors

    def connect(self) -> None:
        """See `Engine`."""
        with self._counted("connect"):
            self._engine.connect()

    def check(self, order: Order) -> None:
        """See `Engine`."""
        with self._counted("check"):
            self._engine.check(order)

    def create(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """See `Engine`."""
        with self._counted("create"):
            return self._engine.create(order, share_path)

    def describe(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """See `Engine`."""
        with self._counted("describe"):
            return self._engine.describe(order, share_path)

    def look_all(self) -> dict[str, View]:
        """See `Engine`."""
        with self._counted("look_all"):
            return self._engine.look_all()

    def look(self, job_name: str, handle: dict[str, Any]) -> View | None:
        """See `Engine`."""
        with self._counted("look"):
            return self._engine.look(job_name, handle)

    def watch(self, changed: Changed, stop: threading.Event) -> None:
        """See `Engine`."""
        with self._counted("watch", is_over=stop.is_set):
            self._engine.watch(changed, stop)

    def interrupt(self) -> None:
        """See `Engine`."""
        self._engine.interrupt()

    def collect(self, view: View, sink: Sink) -> None:
        """See `Engine`."""
        with self._counted("collect"):
            self._engine.collect(view, sink)

    def peek(self, view: View, max_bytes: int) -> bytes:
        """See `Engine`."""
        with self._counted("peek"):
            return self._engine.peek(view, max_bytes)

    def stage_of(self, worker: Worker) -> Phase:
        """See `Engine`."""
        return self._engine.stage_of(worker)

    def follow(self, view: View, worker: int, sink: Sink, halt: Halt, *, waits: bool) -> None:
        """See `Engine`."""
        with self._counted("follow", is_over=halt.is_set):
            self._engine.follow(view, worker, sink, halt, waits=waits)

    def stop(self, view: View, wish: Wish, sink: Sink) -> bool:
        """See `Engine`."""
        with self._counted("stop"):
            return self._engine.stop(view, wish, sink)

    def remove(self, job_name: str, handle: dict[str, Any]) -> None:
        """See `Engine`."""
        with self._counted("remove"):
            self._engine.remove(job_name, handle)

    def check_signal(self, signal: int) -> None:
        """See `Engine`."""
        self._engine.check_signal(signal)

    def retry(self, view: View) -> bool:
        """See `Engine`."""
        with self._counted("retry"):
            return self._engine.retry(view)

    def close(self) -> None:
        """See `Engine`."""
        self._engine.close()

    @contextlib.contextmanager
    def _counted(self, call: str, is_over: Callable[[], bool] = _never) -> Iterator[None]:
        """Count what is raised.

        Args:
            is_over: Tells whether the call was to end.
        """
        try:
            yield
        except Exception as exc:
            is_disk = isinstance(exc, OSError) and call in WRITING
            if not (is_disk or isinstance(exc, RequestError) or is_over()):
                self._errors.add(call, _reason(exc))
            raise


def _reason(error: Exception) -> str:
    match error:
        case Unanswered():
            return UNANSWERED
        case BackendUnavailable():
            return UNAVAILABLE
        case BackendError():
            return REFUSED
        case _:
            return FAILED
