"""`Service`: readiness, stopping, and failures that reach whoever must know."""

from __future__ import annotations

import logging
import threading
import time

import pytest
import zmq

from pman.errors import StartError
from pman.services.base import Service, SocketService


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


class Failing(Service):
    def __init__(self, where: str, error: Exception) -> None:
        super().__init__("failing")
        self.where, self.error, self.torn_down = where, error, False

    def setup(self) -> None:
        if self.where == "setup":
            raise self.error

    def serve(self) -> None:
        if self.where == "serve":
            raise self.error

    def teardown(self) -> None:
        self.torn_down = True
        if self.where == "teardown":
            raise self.error


def test_a_service_runs_until_it_is_asked_to_stop() -> None:
    service = Service("idle")
    service.start()
    service.wait_ready()
    assert not service.join(time.monotonic())
    service.request_stop()
    service.request_stop()
    assert service.join(soon())
    assert service.failure is None


def test_a_service_that_was_never_started_can_be_joined() -> None:
    assert Service("unborn").join(soon())


@pytest.mark.parametrize("where", ["setup", "serve", "teardown"])
def test_a_failure_is_kept_and_reported(where: str, caplog: pytest.LogCaptureFixture) -> None:
    service = Failing(where, ValueError("no good"))
    seen: list[Service] = []
    told = threading.Event()

    def on_failure(failed: Service) -> None:
        seen.append(failed)
        told.set()

    with caplog.at_level(logging.ERROR):
        service.start(on_failure)
        assert told.wait(5)
        assert service.join(soon())
    assert seen == [service]
    assert service.failure is service.error
    assert service.torn_down
    assert [r.message for r in caplog.records] == ["failing failed"]


def test_wait_ready_raises_what_setup_raised_on_purpose() -> None:
    service = Failing("setup", StartError("cannot listen"))
    service.start()
    with pytest.raises(StartError, match=r"^cannot listen$"):
        service.wait_ready()


def test_wait_ready_wraps_what_setup_did_not_mean_to_raise() -> None:
    service = Failing("setup", ValueError("no good"))
    service.start()
    with pytest.raises(StartError, match=r"^failing cannot start: no good$"):
        service.wait_ready()


class Polling(SocketService):
    def serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self.wakeup.fileno(), zmq.POLLIN)
        while not self.stopping.is_set():
            poller.poll()
            self.wakeup.clear()


def test_request_stop_interrupts_the_poll_of_a_socket_service() -> None:
    service = Polling("polling", zmq.Context.instance())
    service.start()
    service.wait_ready()
    service.request_stop()
    assert service.join(soon())
    service.request_stop()  # too late, and harmless
    assert service.wakeup.fileno() == -1
