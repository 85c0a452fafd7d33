"""`Listener`: carries out the requests that the front deals to it. Knows no action and no HTTP."""

from __future__ import annotations

import contextlib
import logging

import zmq

from pman.errors import PmanError
from pman.http.deferred import Deferred
from pman.http.message import Request, Response
from pman.services.base import SocketService
from pman.services.exchange import Exchange, Handler

log = logging.getLogger(__name__)

#: Frame by which a listener says that it is idle, before its first request.
READY = b""


class Listener(SocketService):
    """A DEALER that takes one request at a time and survives it."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        index: int,
        handler: Handler,
        exchange: Exchange,
        endpoint: str,
    ) -> None:
        """Prepare a listener.

        Args:
            index: Counted from 0; part of its name.
            exchange, endpoint: Those of the front.
        """
        super().__init__(f"listener-{index}", context)
        self._handler = handler
        self._exchange = exchange
        self._endpoint = endpoint
        self._socket: zmq.Socket[bytes] | None = None

    def setup(self) -> None:
        """Connect to the front and say that we are idle."""
        self._socket = self.context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTING_ID, self.name.encode())
        self._socket.connect(self._endpoint)
        # Does not wait: a front that cannot start may have gone by now.
        with contextlib.suppress(zmq.Again):
            self._socket.send(READY, zmq.NOBLOCK)

    def serve(self) -> None:
        """Carry out requests until the stop."""
        assert self._socket is not None
        socket = self._socket
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self.wakeup.fileno(), zmq.POLLIN)
        while not self.stopping.is_set():
            poller.poll()
            try:
                number = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                continue  # woken to stop
            self._carry_out(number)
            # Never blocks while the front is there; when it has gone, nobody waits for this.
            with contextlib.suppress(zmq.Again):
                socket.send(number, zmq.NOBLOCK)
            if self._exchange.is_closed:
                self._exchange.abandon(number)

    def teardown(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
        super().teardown()

    def _carry_out(self, number: bytes) -> None:
        """Carry out one request; here, so that an idle listener keeps nothing of its reply."""
        slot = self._exchange.look(number)
        assert slot.request is not None
        slot.answer = self._answer(slot.request)

    def _answer(self, request: Request) -> Response | Deferred:
        try:
            return self._handler.handle(request)
        except Exception as exc:  # the handler never raises; if it does, one request is lost
            log.exception("the handler failed")
            error = PmanError(f"internal error: {type(exc).__name__}")
            return self._handler.reject(error, b"")
