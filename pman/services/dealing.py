"""`Dealer`: the front's side towards the listeners. Who is idle, what waits, who gets it."""

from __future__ import annotations

import collections

import zmq

from pman.services.clients import Client
from pman.services.exchange import Exchange, Slot
from pman.services.listener import READY


class Dealer:
    """Deals requests to idle listeners, one each, first come first served.

    The requests of one client are carried out one after the other (RFC 9112, section 9.3.2: only
    safe methods may run in parallel).
    """

    def __init__(self, socket: zmq.Socket[bytes], exchange: Exchange) -> None:
        """Prepare.

        Args:
            socket: ROUTER, bound; stays the caller's to close.
        """
        self.socket = socket
        self._exchange = exchange
        self._idle: collections.deque[bytes] = collections.deque()
        self._waiting: collections.deque[Client] = collections.deque()

    def enqueue(self, client: Client) -> None:
        """Have the next request of `client` dealt, unless one is being carried out already."""
        if client.is_running or client.is_queued or not client.waiting:
            return
        client.is_queued = True
        self._waiting.append(client)

    def deal(self) -> None:
        """Deal as much as there are idle listeners for."""
        while self._idle and self._waiting:
            client = self._waiting.popleft()
            client.is_queued = False
            client.is_running = True
            number = self._exchange.put(client.waiting.popleft())
            self.socket.send(self._idle.popleft(), zmq.SNDMORE)
            self.socket.send(number)

    def collect(self) -> list[Slot]:
        """Return the requests that listeners have handed back, and note who is idle."""
        done: list[Slot] = []
        while True:
            try:
                listener = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return done
            number = self.socket.recv()
            self._idle.append(listener)
            if number != READY:
                done.append(self._exchange.take(number))
