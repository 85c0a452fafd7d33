"""`Service` and `SocketService`: a thread with a beginning, an end and a reason for it.

They own threads and how these stop; what is done in between is up to the subclass.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import zmq

from pman.errors import PmanError, StartError
from pman.services.wakeup import Wakeup

log = logging.getLogger(__name__)


class Service:
    """One named thread that runs `setup()`, `serve()` and, whatever happened, `teardown()`.

    A subclass overrides `serve()`, which returns soon after `stopping` is set, typically
    `while not self.stopping.wait(period_s): ...`.

    Attributes:
        name: Name of the service and of its thread.
        ready: Set once `setup()` is done, or has failed: look at `failure`, or use `wait_ready`.
        stopping: Set once somebody asked for the end.
        failure: What ended the service, or None.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = threading.Event()
        self.stopping = threading.Event()
        self.failure: Exception | None = None
        self._on_failure: Callable[[Service], None] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def setup(self) -> None:
        """Open what the service needs, in its own thread; what it raises becomes `failure`."""

    def serve(self) -> None:
        """Do the work until `stopping` is set, in the service's own thread."""
        self.stopping.wait()

    def teardown(self) -> None:
        """Close what `setup` opened, also when it got only half-way."""

    def start(self, on_failure: Callable[[Service], None] | None = None) -> None:
        """Start the thread; a service is started once.

        Args:
            on_failure: Called in the service's thread when `failure` is set; does not block.
        """
        self._on_failure = on_failure
        self._thread.start()

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Wait until the service works.

        Raises:
            PmanError: `setup` raised it.
            StartError: `setup` raised something else, or takes longer than `timeout_s`.
        """
        if not self.ready.wait(timeout_s):
            raise StartError(f"{self.name} is not ready after {timeout_s} s")
        if isinstance(self.failure, PmanError):
            raise self.failure
        if self.failure is not None:
            raise StartError(f"{self.name} cannot start: {self.failure}") from self.failure

    def request_stop(self) -> None:
        """Ask for the end and return at once; from any thread, any number of times."""
        self.stopping.set()

    def join(self, deadline: float) -> bool:
        """Wait for the thread to end.

        Args:
            deadline: Monotonic seconds; one that has passed means "look, do not wait".
        Returns:
            True when the service has ended or was never started.
        """
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.setup()
            self.ready.set()
            self.serve()
        except Exception as exc:  # noqa: BLE001  the daemon must learn of it, whatever it is
            self._fail(exc)
        finally:
            try:
                self.teardown()
            except Exception as exc:  # noqa: BLE001  as above
                self._fail(exc)
            self.ready.set()
            if self.failure is not None and self._on_failure is not None:
                self._on_failure(self)

    def _fail(self, exc: Exception) -> None:
        if not isinstance(exc, PmanError):
            log.exception("%s failed", self.name)
        if self.failure is None:
            self.failure = exc


class SocketService(Service):
    """A service that polls ZeroMQ sockets.

    A socket is created (`setup`), used (`serve`) and closed (`teardown`) by the service's thread.
    `serve` polls `self.wakeup` too: `request_stop()` rings it.
    """

    def __init__(self, name: str, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        super().__init__(name)
        self.context = context
        self.wakeup = Wakeup()

    def request_stop(self) -> None:
        """Ask for the end and wake the poll; from any thread, any number of times."""
        super().request_stop()
        self.wakeup.ring()

    def teardown(self) -> None:
        """Close the wakeup; a subclass closes its sockets and calls this."""
        self.wakeup.close()
