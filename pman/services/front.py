"""`Front`: owns the clients' socket. Assembles requests, deals them, sends replies in order."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import math
import time
from typing import Any

import zmq

from pman.config import Settings
from pman.http.deferred import Deferred
from pman.http.message import Response
from pman.meters import ClientMeter
from pman.services import endpoint
from pman.services.base import SocketService
from pman.services.clients import SEND_HWM, ClientSide
from pman.services.connections import HttpClients
from pman.services.dealing import Dealer
from pman.services.exchange import Exchange, Handler, Slot
from pman.services.notify import Heartbeat, Notifier
from pman.services.peers import ZmtpClients
from pman.services.pump import Piece, Pump, Stream

#: Pieces of one connection that libzmq reads ahead.
RECEIVE_HWM = 64

#: Connections that the system accepts ahead of us.
BACKLOG = 1024

#: How long replies may take to be ready, and to be delivered, once the stop is asked for, seconds.
STOP_S, DELIVER_S = 3.0, 1.0

_numbers = itertools.count()


class Front(SocketService):
    """The one thread that talks to clients; never blocks.

    Attributes:
        exchange: For the listeners.
        listener_endpoint: Where listeners connect; bound once `ready` is set.
        endpoint: Where clients connect; valid once `ready` is set.
        port: Its TCP port, 0 for IPC.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        handler: Handler,
        pump: Pump,
        meter: ClientMeter | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        """Prepare.

        Args:
            pump: Ours alone; it runs from before the front does until after that.
        """
        super().__init__("front", context)
        self.exchange = Exchange()
        self.listener_endpoint = f"inproc://listeners-{next(_numbers)}"
        self.endpoint = ""
        self.port = 0
        self._settings = settings
        self._handler = handler
        self._meter = meter or ClientMeter()
        self._heartbeat = heartbeat or Heartbeat(Notifier())
        self._binding: endpoint.Binding | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._late: collections.deque[tuple[Slot, Response]] = collections.deque()
        self._pieces: collections.deque[tuple[Stream, bytes | Piece]] = collections.deque()
        self._pump = pump
        self._is_over = False
        self._dealer: Dealer
        self._clients: ClientSide[Any]

    def setup(self) -> None:
        """Bind both sides.

        Raises:
            StartError: Clients cannot be listened to; one line that says why.
        """
        listeners = self._open(SNDHWM=0, RCVHWM=0, ROUTER_MANDATORY=1, LINGER=0)
        listeners.bind(self.listener_endpoint)
        self._dealer = Dealer(listeners, self.exchange)
        clients = self._open(
            ROUTER_RAW=int(self._settings.rawmode),
            ROUTER_MANDATORY=1,
            SNDHWM=SEND_HWM,
            RCVHWM=RECEIVE_HWM,
            BACKLOG=BACKLOG,
            TCP_KEEPALIVE=1,
            LINGER=int(DELIVER_S * 1000),
        )
        if not self._settings.rawmode:
            # More than is allowed, so that what is a little too large gets an answer.
            clients.setsockopt(zmq.MAXMSGSIZE, 2 * self._settings.max_body_bytes + 1024)
        self._binding = endpoint.bind(clients, endpoint.endpoint_of(self._settings))
        self.endpoint = self._binding.endpoint
        if self.endpoint.startswith("tcp:"):
            self.port = int(self.endpoint.rpartition(":")[2])
        kind = HttpClients if self._settings.rawmode else ZmtpClients
        self._clients = kind(
            clients,
            self._settings,
            self._handler,
            self._dealer.enqueue,
            self._pump,
            self._meter,
        )
        self._pump.connect(self._take_piece)

    def serve(self) -> None:
        """Serve until the stop, then answer what is in flight, and refuse the rest.

        The socket stays bound meanwhile: libzmq would cut the connections that it has accepted.
        """
        poller = self._poller()
        while not self.stopping.is_set():
            self._turn(poller, math.inf)
        self._clients.is_draining = True
        self._hand_out_pieces(time.monotonic())
        self._clients.end_streams(time.monotonic())
        deadline = time.monotonic() + STOP_S
        while self._clients.is_busy and time.monotonic() < deadline:
            self._turn(poller, deadline)
        self._clients.give_up(time.monotonic())
        deadline += DELIVER_S
        while self._clients.is_busy and time.monotonic() < deadline:
            self._turn(poller, deadline)
        self._clients.close_all()

    def teardown(self) -> None:
        """Close both sides; what was sent is delivered within `DELIVER_S`."""
        for socket in self._sockets:
            socket.close()
        self._is_over = True
        self._drop_late()
        self.exchange.close(self._pump.drop)
        if self._binding is not None:
            self._binding.release()
        super().teardown()

    def _open(self, **options: int) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.ROUTER)
        self._sockets.append(socket)
        for name, value in options.items():
            socket.setsockopt(getattr(zmq, name), value)
        return socket

    def _poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        for socket in (self._clients.socket, self._dealer.socket):
            poller.register(socket, zmq.POLLIN)
        poller.register(self.wakeup.fileno(), zmq.POLLIN)
        return poller

    def _turn(self, poller: zmq.Poller, deadline: float) -> None:
        """Wait for something to happen, and do all that it asks for."""
        clients, dealer, heartbeat = self._clients, self._dealer, self._heartbeat
        deadline = min(deadline, clients.next_sweep, clients.next_retry, heartbeat.next_at)
        ready = poller.poll(_timeout_ms(deadline))
        now = time.monotonic()
        for source, _ in ready:
            if source is dealer.socket:
                self._hand_back(dealer.collect(), now)
            elif source is clients.socket:
                clients.receive(now)
            else:
                self.wakeup.clear()
                self._hand_back_late(now)
                self._hand_out_pieces(now)
        dealer.deal()
        if now >= clients.next_retry:
            clients.retry(now)
        if now >= clients.next_sweep:
            clients.sweep(now)
        if now >= heartbeat.next_at:
            heartbeat.beat(now)

    def _hand_back(self, slots: list[Slot], now: float) -> None:
        done: list[Slot] = []
        for slot in slots:
            answer = slot.answer
            if isinstance(answer, Deferred):
                if slot.is_dropped:
                    answer.give_up()
                answer.on_done(functools.partial(self._resolve, slot))
            else:
                slot.response = answer
                done.append(slot)
        self._clients.finish(done, now)

    def _resolve(self, slot: Slot, response: Response) -> None:
        """Take a late reply, from any thread."""
        self._late.append((slot, response))
        self.wakeup.ring()
        if self._is_over:
            self._drop_late()

    def _hand_back_late(self, now: float) -> None:
        done: list[Slot] = []
        while self._late:
            slot, response = self._late.popleft()
            slot.response = response
            done.append(slot)
        self._clients.finish(done, now)

    def _drop_late(self) -> None:
        """Let go of replies that came after the end; from any thread."""
        with contextlib.suppress(IndexError):
            while True:
                _, response = self._late.popleft()
                if response.stream is not None:
                    self._pump.drop(response.stream)

    def _take_piece(self, stream: Stream, piece: bytes | Piece) -> None:
        """Take what the pump has read, in its thread."""
        self._pieces.append((stream, piece))
        self.wakeup.ring()

    def _hand_out_pieces(self, now: float) -> None:
        for _ in range(len(self._pieces)):  # those that come meanwhile have their turn later
            self._clients.take_piece(*self._pieces.popleft(), now)


def _timeout_ms(deadline: float) -> int | None:
    """Return what to give `poll()`; None is for ever."""
    if deadline == math.inf:
        return None
    return max(0, math.ceil((deadline - time.monotonic()) * 1000))
