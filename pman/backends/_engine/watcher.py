"""`Watcher`: the thread that keeps the connection to the engine and passes its events on."""

from __future__ import annotations

import logging
import threading

from pman.backends._engine.outage import Outage
from pman.backends._engine.port import Changed, Engine
from pman.backends._engine.timing import Timing, backoff
from pman.errors import BackendUnavailable

_log = logging.getLogger(__name__)

SOURCE = "watch"


class Watcher:
    """Connects, watches, and begins again whenever that ends."""

    def __init__(
        self, name: str, engine: Engine, outage: Outage, changed: Changed, timing: Timing
    ) -> None:
        self._engine = engine
        self._outage = outage
        self._report = changed
        self._timing = timing
        self._stop = threading.Event()
        self._nudge = threading.Event()
        self._tries = 0
        self._thread = threading.Thread(target=self._run, name=f"{name}-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def nudge(self) -> None:
        """Connect at once, should it be waiting to."""
        self._nudge.set()

    def request_stop(self) -> None:
        """Ask for the end."""
        self._stop.set()
        self._nudge.set()
        self._engine.interrupt()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, so long."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._nudge.clear()
            try:
                self._outage.connect(self._engine)
                self._engine.watch(self._changed, self._stop)
            except BackendUnavailable as exc:
                self._failed(exc)
            except Exception as exc:  # noqa: BLE001  else nothing would be seen any more
                _log.exception("watching failed in an unexpected way")
                self._failed(exc)
            self._nudge.wait(
                backoff(self._timing.connect_s, self._timing.connect_max_s, self._tries)
            )
            self._tries += 1

    def _failed(self, error: Exception) -> None:
        if not self._stop.is_set():
            self._outage.down(SOURCE, error)

    def _changed(self, job_name: str | None, is_hot: bool) -> None:
        if job_name is None:
            self._tries = 0
            self._outage.up(SOURCE)
        self._report(job_name, is_hot)
