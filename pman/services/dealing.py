"""`Dealer`: the front's side towards the listeners. Who is idle, what waits, who gets it."""

from __future__ import annotations

import collections
import time

import zmq

from pman.services.clients import Client
from pman.services.exchange import Batch, Exchange
from pman.services.listener import READY

#: Requests in one batch, about; so many that the hand-over costs little, so few that none waits.
MAX_BATCH = 64


class Dealer:
    """Deals requests to idle listeners.

    Quick requests share a batch: handing one over costs more than carrying it out, because the
    interpreter lock changes hands. All others go alone. The requests of one client are carried out
    one after the other (RFC 9112, section 9.3.2: only safe methods may run in parallel).
    """

    def __init__(self, socket: zmq.Socket[bytes], exchange: Exchange) -> None:
        """Prepare.

        Args:
            socket: ROUTER, bound; stays the caller's to close.
        """
        self.socket = socket
        self._exchange = exchange
        self._idle: collections.deque[bytes] = collections.deque()
        self._quick: collections.deque[Client] = collections.deque()
        self._slow: collections.deque[Client] = collections.deque()
        self._is_slow_turn = False
        self._quick_batch_numbers: set[bytes] = set()
        #: When the last quick batch was dealt, monotonic seconds.
        self.dealt_at = 0.0

    @property
    def has_quick_batch_out(self) -> bool:
        """True while a listener works on a quick batch."""
        return bool(self._quick_batch_numbers)

    def enqueue(self, client: Client) -> None:
        """Have the next request of `client` dealt, unless one is being carried out already."""
        if client.running or client.is_queued or not client.waiting:
            return
        client.is_queued = True
        (self._quick if client.waiting[0].is_quick else self._slow).append(client)

    def deal(self) -> None:
        """Deal as much as there are idle listeners for."""
        while self._idle and (self._quick or self._slow):
            # With one idle listener, quick and slow requests take turns.
            if self._quick and not (self._slow and self._is_slow_turn):
                self._is_slow_turn = True
                number = self._send(self._quick_batch())
                self._quick_batch_numbers.add(number)
                self.dealt_at = time.monotonic()
            else:
                self._is_slow_turn = False
                client = self._slow.popleft()
                client.is_queued = False
                client.running = 1
                self._send([client.waiting.popleft()])

    def collect(self) -> Batch:
        """Return the requests that listeners have handed back, and note who is idle."""
        done: Batch = []
        while True:
            try:
                listener = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return done
            number = self.socket.recv()
            self._idle.append(listener)
            if number != READY:
                self._quick_batch_numbers.discard(number)
                done += self._exchange.take(number)

    def _quick_batch(self) -> Batch:
        batch: Batch = []
        while self._quick and len(batch) < MAX_BATCH:
            client = self._quick.popleft()
            client.is_queued = False
            waiting = client.waiting
            while waiting and waiting[0].is_quick and len(batch) < MAX_BATCH:
                batch.append(waiting.popleft())
                client.running += 1
        return batch

    def _send(self, batch: Batch) -> bytes:
        number = self._exchange.put(batch)
        self.socket.send(self._idle.popleft(), zmq.SNDMORE)
        self.socket.send(number)
        return number
