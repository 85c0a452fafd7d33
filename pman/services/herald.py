"""`Herald`: the thread that tells those who wait for events that there are some."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pman.job.event import Event
from pman.jobdb.events import EventLog
from pman.services.base import Service


class Herald(Service):
    """Calls the subscribers of an `EventLog`, so that the thread that writes need not.

    It ends before what takes requests: whoever waits for events is let go, and can be answered.
    """

    def __init__(self, log: EventLog) -> None:
        super().__init__("herald")
        self._log = log
        self._wake = threading.Event()

    def ring(self, _events: Sequence[Event] = ()) -> None:
        """Say that there are new events; from any thread, once they are in the log."""
        if self._log.is_awaited and not self._wake.is_set():
            self._wake.set()

    def request_stop(self) -> None:
        """Ask for the end."""
        super().request_stop()
        self._wake.set()

    def serve(self) -> None:
        """Pass on news until `stopping` is set."""
        while not self.stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            self._log.tell()

    def teardown(self) -> None:
        """Let go of all who wait."""
        self._log.close()
