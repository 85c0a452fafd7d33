"""`Listener`: how it begins and ends around a front."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from pman.http.message import Request, Response
from pman.services.exchange import Exchange
from pman.services.listener import Listener

DEADLINE_S = 30.0


class Handler:
    def handle_quick(self, request: Request) -> None:
        raise NotImplementedError

    def handle(self, request: Request) -> Response:
        raise NotImplementedError

    def reject(self, error: Exception, raw: bytes) -> Response:
        raise NotImplementedError


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


class FrontThatGoes:
    """Takes the place of a context: the front closes between `connect` and `send`."""

    def __init__(self, context: zmq.Context[Any], front: zmq.Socket[bytes]) -> None:
        self._context = context
        self._front = front

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        front = self._front

        class Dealer(zmq.Socket):  # type: ignore[type-arg]
            def connect(self, endpoint: str) -> Any:
                done = super().connect(endpoint)
                front.close(0)
                self.poll(100, zmq.POLLIN)  # lets libzmq notice; nothing comes
                return done

        return Dealer(self._context, kind)


def test_a_front_that_has_gone_does_not_hold_a_listener_up(context: zmq.Context[Any]) -> None:
    front = context.socket(zmq.ROUTER)
    front.bind("inproc://front")
    going: Any = FrontThatGoes(context, front)
    listener = Listener(going, 0, Handler(), Exchange(), "inproc://front")  # type: ignore[arg-type]
    listener.start()
    listener.wait_ready(DEADLINE_S)
    listener.request_stop()
    assert listener.join(time.monotonic() + DEADLINE_S)
    assert listener.failure is None
