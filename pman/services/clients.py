"""`Client` and `ClientSide`: what HTTP connections and ZeroMQ peers have in common.

Order of replies, output that a client does not take, and the end of both. Belongs to the front's
thread alone.
"""

from __future__ import annotations

import abc
import collections
import functools
import logging
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import zmq

from pman.config import Settings
from pman.errors import PmanError
from pman.http.message import Request
from pman.meters import ClientMeter
from pman.services.exchange import Handler, Slot
from pman.services.pump import Piece, Pump, Stream

log = logging.getLogger(__name__)

NEVER = math.inf

#: Flags as plain numbers: joining members of an enumeration costs as much as parsing a header.
NOBLOCK = int(zmq.NOBLOCK)
MORE = int(zmq.SNDMORE) | NOBLOCK

#: Requests of one client on their way, before its further bytes are left unparsed.
MAX_IN_FLIGHT = 64

#: Requests that came in one piece and that the front may carry out itself.
MAX_QUICK_AHEAD = 8

#: Messages for one client that libzmq queues before it says "again".
SEND_HWM = 64

#: Shortest and longest time between two tries to send what a client did not take, seconds.
MIN_RETRY_S, MAX_RETRY_S = 0.001, 0.05

#: Body of a request that the front may carry out itself, bytes.
MAX_QUICK_BODY_BYTES = 4 * 1024

#: Longest message to libzmq, bytes; a longer reply is sent in pieces.
PIECE_BYTES = 32 * 1024

#: A client that takes less than one part in so many of what it leaves unread counts as one that
#: reads nothing: else a few bytes now and then would keep all the rest in memory.
PROGRESS_PARTS = 16

#: How long ago a client may have taken something and still count as reading, seconds. libzmq takes
#: half of `SEND_HWM` messages at a time, so that is half a megabyte per second.
BRISK_S = 2.0

#: What a request gets that comes after the stop was asked for.
STOPPING = PmanError("pman stops", hint=503)


class Client:
    """One connection or peer.

    Attributes:
        identity: Name that libzmq gave it.
        slots: Requests whose replies have not been written, oldest first.
        waiting: Those of them that no listener has got.
        is_running: Whether a listener has one of them, or one is deferred, or being sent as a
            stream.
        is_queued: Whether the dealer knows of `waiting`.
        out: Pieces that libzmq did not take; a memoryview may be cut anywhere.
        out_bytes: Their size.
        due_bytes: How much of it is to be taken before the deadline.
        taken_at: When some of it was taken last, or it began to wait, monotonic seconds.
        is_reading: Whether some was taken since.
        is_gone: Whether nobody is there to take replies.
        deadline: When something must have happened, monotonic seconds.
    """

    __slots__ = (
        "deadline",
        "due_bytes",
        "identity",
        "is_gone",
        "is_queued",
        "is_reading",
        "is_running",
        "out",
        "out_bytes",
        "slots",
        "taken_at",
        "waiting",
    )

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.slots: collections.deque[Slot] = collections.deque()
        self.waiting: collections.deque[Slot] = collections.deque()
        self.is_running = False
        self.is_queued = False
        self.out: collections.deque[tuple[bytes | memoryview, ...]] = collections.deque()
        self.out_bytes = 0
        self.due_bytes = 0
        self.taken_at = 0.0
        self.is_reading = False
        self.is_gone = False
        self.deadline = NEVER


C = TypeVar("C", bound=Client)


class ClientSide(abc.ABC, Generic[C]):
    """The front's side towards its clients."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        settings: Settings,
        handler: Handler,
        enqueue: Callable[[Client], None],
        pump: Pump,
        meter: ClientMeter,
    ) -> None:
        """Prepare.

        Args:
            socket: ROUTER, bound; stays the caller's to close.
            enqueue: Told of a client that may have something waiting.
            pump: Reads and closes the bodies of replies that are streams.
            meter: Kept up to date.
        """
        self.socket = socket
        # What `socket.send` comes to; its checks of arguments cost as much as the rest.
        self._send_frame = functools.partial(zmq.backend.Socket.send, socket)
        self.settings = settings
        self.handler = handler
        self.clients: dict[bytes, C] = {}
        #: No later than the first `deadline` of a client, monotonic seconds.
        self.next_sweep = NEVER
        #: When to try again to send, monotonic seconds.
        self.next_retry = NEVER
        self.is_draining = False
        self._enqueue = enqueue
        self._pump = pump
        self.meter = meter
        meter.connections = self.clients.__len__
        meter.streams = pump.count
        meter.unread_bytes = self._unread_bytes
        self._stalled: dict[bytes, C] = {}
        self._retry_s = MIN_RETRY_S

    @abc.abstractmethod
    def receive(self, now: float) -> None:
        """Take what has come, up to a bound."""

    @abc.abstractmethod
    def flush(self, client: C, now: float) -> None:
        """Send the replies whose turn it is."""

    @abc.abstractmethod
    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed, and set `next_sweep`."""

    @abc.abstractmethod
    def take_piece(self, stream: Stream, piece: bytes | Piece, now: float) -> None:
        """Send what the pump has read."""

    @abc.abstractmethod
    def end_streams(self, now: float) -> None:
        """End all streams behind what was read of them; those to come end at once, too."""

    @abc.abstractmethod
    def close_all(self) -> None:
        """Close every connection; what was sent is delivered first."""

    @abc.abstractmethod
    def drop(self, client: C, why: str) -> None:
        """Cut off a client that would cost memory for ever; `why` goes behind "it"."""

    @property
    def is_busy(self) -> bool:
        """True while a reply is owed to somebody."""
        return bool(self._stalled) or any(client.slots for client in self.clients.values())

    def finish(self, slots: list[Slot], now: float) -> None:
        """Take requests of listeners whose `response` is there."""
        for slot in slots:
            client = slot.client
            client.is_running = False
            if not client.is_gone and not slot.is_dropped:
                self.flush(client, now)  # type: ignore[arg-type]  # only ours are ever enqueued
            elif slot.response is not None and slot.response.stream is not None:
                self._pump.drop(slot.response.stream)
            self._offer(client)

    def accept(self, client: C, slot: Slot, request: Request) -> None:
        """Answer a request at once if it is quick, or let it wait for a listener.

        The caller flushes, and offers, once it has accepted all that has come. A client that sends
        far ahead of its replies is left to the listeners, lest it keep the front from the others.
        """
        if (
            len(request.body) <= MAX_QUICK_BODY_BYTES
            and len(client.slots) < MAX_QUICK_AHEAD
            and not client.waiting
            and not client.is_running
        ):
            slot.response = self.handler.handle_quick(request)
        client.slots.append(slot)
        if slot.response is None:
            client.waiting.append(slot)

    def give_up(self, now: float) -> None:
        """Answer 503 to whoever still waits for a reply."""
        error = PmanError("pman stops; the request may have been carried out", hint=503)
        for client in list(self.clients.values()):
            for slot in client.slots:
                if slot.response is None:
                    slot.response = self.handler.reject(error, b"")
            self.flush(client, now)

    def retry(self, now: float) -> None:
        """Send what was not taken before; set `next_retry`."""
        progress = False
        for client in list(self._stalled.values()):
            progress |= self._push(client, now)
        if self._unread_bytes() > self.settings.max_outgoing_bytes:
            self._shed(now)
        self._retry_s = MIN_RETRY_S if progress else min(2 * self._retry_s, MAX_RETRY_S)
        self.next_retry = now + self._retry_s if self._stalled else NEVER

    def send(self, client: C, piece: tuple[bytes | memoryview, ...], now: float) -> None:
        """Send the frames of one message, or keep them for later; never blocks."""
        if (client.out or not self._transmit(client, piece)) and not client.is_gone:
            self._queue(client, piece, now)

    def forget(self, client: C) -> None:
        """Drop a client that is gone; its requests are still carried out, but wait for nothing."""
        client.is_gone = True
        self._drop_slots(client)
        client.out.clear()
        client.out_bytes = 0
        client.deadline = NEVER
        self._stalled.pop(client.identity, None)
        self.clients.pop(client.identity, None)

    def _drop_slots(self, client: C) -> None:
        """Let go of replies that nobody gets any more."""
        for slot in client.slots:
            if slot.response is not None and slot.response.stream is not None:
                self._pump.drop(slot.response.stream)
            slot.drop()
        client.slots.clear()

    def _unread_bytes(self) -> int:
        """Return the size of what clients have not taken; from any thread."""
        return sum(client.out_bytes for client in list(self._stalled.values()))

    def _shed(self, now: float) -> None:
        """Drop clients until what all leave unread fits.

        First those that have not read for a while, then those that could not begin yet, then those
        that read, each time the largest first. The largest that is not of the first kind is spared
        and does not count: one reply may be of any length.
        """

        def patience(client: C) -> int:
            return 0 if now - client.taken_at >= BRISK_S else 1 + client.is_reading

        victims = sorted(
            self._stalled.values(), key=lambda client: (patience(client), -client.out_bytes)
        )
        excess = self._unread_bytes() - self.settings.max_outgoing_bytes
        spared = max(filter(patience, victims), key=lambda client: client.out_bytes, default=None)
        if spared is not None:
            victims.remove(spared)
            excess -= spared.out_bytes
        for client in victims:
            if excess <= 0:
                return
            excess -= client.out_bytes
            self.drop(
                client,
                f"left {client.out_bytes} bytes unread, and all clients together more than"
                f" {self.settings.max_outgoing_bytes}",
            )

    def _queue(self, client: C, piece: tuple[bytes | memoryview, ...], now: float) -> None:
        before = client.out_bytes
        client.out_bytes += sum(map(len, piece))
        if not client.out:
            client.taken_at = now
            client.is_reading = False
        if not client.out or before <= self.settings.max_unread_bytes < client.out_bytes:
            self._stall(client, now)
        else:
            client.due_bytes = max(client.due_bytes, client.out_bytes // PROGRESS_PARTS)
        client.out.append(piece)
        self._stalled[client.identity] = client
        self.next_retry = min(self.next_retry, now + MIN_RETRY_S)

    def _offer(self, client: Client) -> None:
        """Let the dealer have what waits, unless the client does not read what it asked for."""
        if client.out_bytes <= self.settings.max_unread_bytes:
            self._enqueue(client)

    def _stall(self, client: C, now: float) -> None:
        """Give a client its time to take some of what is there for it."""
        settings = self.settings
        client.due_bytes = client.out_bytes // PROGRESS_PARTS
        is_over = client.out_bytes > settings.max_unread_bytes
        wait_s = settings.header_timeout_s if is_over else settings.idle_timeout_s
        self._expect(client, now + wait_s)

    def _expect(self, client: C, deadline: float) -> None:
        client.deadline = deadline
        self.next_sweep = min(self.next_sweep, deadline)

    def _transmit(self, client: C, piece: tuple[bytes | memoryview, ...]) -> bool:
        """Give one message to libzmq; False when it does not take it, or the client is gone."""
        send = self._send_frame
        try:
            send(client.identity, MORE)
        except zmq.Again:
            return False
        except zmq.ZMQError as exc:
            if exc.errno != zmq.EHOSTUNREACH:
                raise
            self.forget(client)
            return False
        # With the first frame libzmq has taken the message: what follows cannot fail.
        for frame in piece[:-1]:
            send(frame, MORE)
        send(piece[-1], NOBLOCK)
        return True

    def _push(self, client: C, now: float) -> bool:
        """Send of `out` what is taken now; True when it was something."""
        before = client.out_bytes
        while client.out and self._push_piece(client):
            pass
        if client.is_gone:
            return True
        if not client.out:
            self._stalled.pop(client.identity, None)
            self.flush(client, now)
            if client.slots and not client.out:
                client.deadline = NEVER  # it waits for us now, not we for it
            self._offer(client)
            return True
        taken = before - client.out_bytes
        if not taken:
            return False
        client.taken_at = now
        client.is_reading = True
        client.due_bytes -= taken
        limit = self.settings.max_unread_bytes
        if client.due_bytes <= 0 or client.out_bytes <= limit < before:
            self._stall(client, now)
        body = client.out[0][-1]
        if isinstance(body, memoryview):
            client.out[0] = (without_the_rest(body),)
        return True

    def _push_piece(self, client: C) -> bool:
        """Send the next message of `out`; False when it is not taken."""
        rest = client.out[0]
        piece = rest
        body = rest[-1]
        is_cut = isinstance(body, memoryview) and len(body) > PIECE_BYTES
        if is_cut:
            piece = (body[:PIECE_BYTES],)
        if not self._transmit(client, piece):
            return False
        client.out_bytes -= sum(map(len, piece))
        if is_cut:
            client.out[0] = (body[PIECE_BYTES:],)
        else:
            client.out.popleft()
        return True


def without_the_rest(view: memoryview) -> memoryview:
    """Return a view of the same bytes that does not keep twice as many in memory."""
    whole = view.obj
    assert isinstance(whole, bytes)
    return memoryview(bytes(view)) if 2 * len(view) <= len(whole) else view
