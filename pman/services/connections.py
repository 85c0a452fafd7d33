"""`HttpClients`: HTTP/1.x over a raw ROUTER.

What libzmq does there (4.3.5): a connection announces itself and its end with an empty frame; a
piece has at most 8192 bytes; `[identity, b""]` closes, once what was sent before is delivered,
and is not announced back. A client that closes its sending side only is disconnected at once: its
request is carried out, and its reply has nowhere to go.
"""

from __future__ import annotations

import collections
import logging
import resource
import time

import zmq

from pman.config import Settings
from pman.errors import PmanError, RequestTimeout
from pman.http import writer
from pman.http.message import Request, Response
from pman.http.parser import Rejection, RequestParser
from pman.http.streaming import Body
from pman.log import ACCESS
from pman.services.clients import (
    MAX_IN_FLIGHT,
    NEVER,
    NOBLOCK,
    PIECE_BYTES,
    STOPPING,
    Client,
    ClientSide,
    without_the_rest,
)
from pman.services.exchange import Slot
from pman.services.pump import Piece, Stream
from pman.services.rawsockets import Descriptor, cut, descriptor_of, peer_of, reset_at_close

log = logging.getLogger(__name__)

#: Pieces taken in one go before replies have their turn.
MAX_PIECES = 512

#: Length of the pieces that libzmq reads, bytes: one that long is seldom the last.
READ_BYTES = 8192

#: What the system takes for a client that reads nothing, at least, bytes.
SURELY_SENT_BYTES = 16 * 1024

#: How long a refused client may go on sending, seconds. A socket that is closed with unread input
#: is reset, and the client would lose the reply. Source: RFC 9112, section 9.6.
LINGER_S = 0.5

#: Shortest time between two looks at all deadlines, seconds.
SWEEP_S = 0.02

#: Descriptors that are not for clients.
SPARE_DESCRIPTORS = 64

#: Message that closes a connection.
CLOSE = (b"",)


class Connection(Client):
    """One TCP or IPC connection.

    Attributes:
        parser: What was received of the next request.
        is_ended: Whether nothing more is read; it closes once everything is sent.
        lingers: Whether it may go on sending for a while after its last reply.
        wants_continue: Whether it waits for `100 Continue`.
        held: Pieces not given to the parser, because too much is on its way.
        held_bytes: Their size.
        body_bytes: Size of the bodies in `slots`.
        charged_bytes: What it has of `HttpClients.buffered_bytes`.
        sent_bytes: Size of all replies.
        descriptor: Of libzmq's socket, and the inode by which to know that it still is that socket.
        stream: Body that is being sent, in reply to the first of `slots`, or None.
        peer: Its address, "" when nobody wants to know.
    """

    __slots__ = (
        "body_bytes",
        "charged_bytes",
        "descriptor",
        "held",
        "held_bytes",
        "is_ended",
        "lingers",
        "parser",
        "peer",
        "sent_bytes",
        "stream",
        "wants_continue",
    )

    def __init__(self, identity: bytes, parser: RequestParser) -> None:
        super().__init__(identity)
        self.parser = parser
        self.is_ended = False
        self.lingers = False
        self.wants_continue = False
        self.held: collections.deque[bytes] = collections.deque()
        self.held_bytes = 0
        self.body_bytes = 0
        self.charged_bytes = 0
        self.sent_bytes = 0
        self.descriptor: Descriptor | None = None
        self.stream: Stream | None = None
        self.peer = ""


class HttpClients(ClientSide[Connection]):
    """All HTTP connections."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._max_connections = connection_limit(self.settings)
        #: Of requests, complete or not, that have not been answered.
        self.buffered_bytes = 0
        # Closed connections whose last reply may never be read: (when to cut, descriptor).
        self._closing: collections.deque[tuple[float, Descriptor]] = collections.deque()
        self._names_peers = logging.getLogger(ACCESS).isEnabledFor(logging.INFO)
        self.meter.buffered_bytes = lambda: self.buffered_bytes

    def receive(self, now: float) -> None:
        """Take pieces that have come, up to `MAX_PIECES`."""
        recv = self.socket.recv
        clients = self.clients
        for _ in range(MAX_PIECES):
            try:
                identity = recv(NOBLOCK)
            except zmq.Again:
                return
            client = clients.get(identity)
            if client is None:
                self._meet(identity, now)
                continue
            raw = recv()
            if not raw:
                self.forget(client)
            elif not client.is_ended:
                self._take(client, raw, now)

    def flush(self, client: Connection, now: float) -> None:
        """Send the replies whose turn it is; close if the last one was among them."""
        slots = client.slots
        small: list[bytes] = []
        while slots and (response := slots[0].response) is not None and not client.is_gone:
            if response.stream is not None:
                if small:
                    self.send(client, (b"".join(small),), now)
                    small = []
                self._begin_stream(client, response, response.stream, now)
                continue
            slot = slots.popleft()
            request = slot.request
            head = self._head(client, slot, response)
            body = b"" if request is not None and request.method == "HEAD" else response.body
            if len(body) <= PIECE_BYTES:
                small.append(head + body if body else head)
                client.sent_bytes += len(body)
                continue
            small.append(head)
            self.send(client, (b"".join(small),), now)
            small = []
            self._send_long(client, body, now)
        if small and not client.is_gone:
            self.send(client, (small[0] if len(small) == 1 else b"".join(small),), now)
        if client.charged_bytes:
            self._charge(client)
        if not client.is_gone and not slots:
            self._rest(client, now)
        elif client.stream is not None:
            self._ask(client, client.stream)
        if client.held and not self._is_full(client):
            self._take_held(client, now)

    def forget(self, client: Connection) -> None:
        """Drop a connection that is gone, and what it had of the account."""
        super().forget(client)
        if client.stream is not None:
            self._leave_stream(client, client.stream)
        # Parser and llhttp refer to each other: what they hold would wait for the collector.
        client.parser.drop()
        client.held.clear()
        self.buffered_bytes -= client.charged_bytes
        client.charged_bytes = 0

    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed, and set `next_sweep`."""
        nearest = NEVER
        for client in list(self.clients.values()):
            if client.deadline <= now:
                self._expire(client, now)
            if client.deadline < nearest:
                nearest = client.deadline
        while self._closing and self._closing[0][0] <= now:
            cut(self._closing.popleft()[1])
        if self._closing:
            nearest = min(nearest, self._closing[0][0])
        self.next_sweep = max(nearest, now + SWEEP_S)

    def take_piece(self, stream: Stream, piece: bytes | Piece, now: float) -> None:
        """Send what the pump has read; what comes for a client that has gone is dropped."""
        client = stream.client
        assert isinstance(client, Connection), "only ours get streams"
        if client.stream is not stream:
            return
        if piece is Piece.END:
            self._end_stream(client, stream, now)
        elif piece is Piece.CUT:
            self._cut_stream(client, stream, now)
        else:
            assert isinstance(piece, bytes)
            stream.is_asked = False
            self._send_long(client, piece, now)
            self._ask(client, stream)

    def end_streams(self, now: float) -> None:
        """End all streams behind what was read of them; those to come end at once, too."""
        for client in list(self.clients.values()):
            if client.stream is None:
                continue
            if client.stream.may_end_anywhere:
                self._end_stream(client, client.stream, now)
            else:
                self._cut_stream(client, client.stream, now)

    def close_all(self) -> None:
        """Close every connection; what was sent is delivered first."""
        for client in list(self.clients.values()):
            self.forget(client)
            self._transmit(client, CLOSE)

    # --- input ------------------------------------------------------------------------------

    def _meet(self, identity: bytes, now: float) -> None:
        """Welcome a connection, or ignore the rest of one that we have closed."""
        frame = self.socket.recv(copy=False)
        if len(frame):
            return
        settings = self.settings
        parser = RequestParser(settings.max_header_bytes, settings.max_body_bytes)
        client = Connection(identity, parser)
        client.descriptor = descriptor_of(frame)
        if self._names_peers:
            client.peer = peer_of(frame)
        self.clients[identity] = client
        self.meter.accepted += 1
        if self.is_draining:
            self.meter.refused += 1
            self._refuse(client, Rejection(STOPPING, b""), now, lingers=False)
        elif len(self.clients) > self._max_connections:
            self.meter.refused += 1
            error = PmanError(f"{self._max_connections} connections are open already", hint=503)
            self._refuse(client, Rejection(error, b""), now, lingers=True)
        else:
            self._expect(client, now + settings.idle_timeout_s)

    def _take(self, client: Connection, raw: bytes, now: float) -> None:
        if client.held or self._is_full(client):
            self._hold(client, raw)
        else:
            self._parse(client, raw, now)

    def _parse(self, client: Connection, raw: bytes, now: float) -> None:
        was_idle = client.parser.is_idle
        for event in client.parser.feed(raw):
            if self.is_draining:
                self._refuse(client, Rejection(STOPPING, b""), now, lingers=False)
                return
            if isinstance(event, Request):
                client.body_bytes += len(event.body)
                event.received_at = now
                event.peer = client.peer
                slot = Slot(client, event)
                if client.held:  # it sends far ahead
                    client.slots.append(slot)
                    client.waiting.append(slot)
                else:
                    self.accept(client, slot, event)
                if not client.out:  # else the deadline is that of the output
                    client.deadline = NEVER
            elif isinstance(event, Rejection):
                lingers = event.error.hint in (413, 431) or len(raw) >= READ_BYTES
                self._refuse(client, event, now, lingers=lingers)
            else:
                self._continue(client, now)
        if client.slots and client.slots[0].response is not None:
            self.flush(client, now)
        if client.waiting:
            self._offer(client)
        elif was_idle and not client.slots and not client.parser.is_idle:
            self._expect(client, now + self.settings.header_timeout_s)
        if self._charge(client) > 0 and self.buffered_bytes > self.settings.max_incoming_bytes:
            self._turn_away(client, now)

    def _charge(self, client: Connection) -> int:
        """Bring the account of a connection up to date; return by how much it grew."""
        size = client.parser.held_bytes + client.body_bytes + client.held_bytes
        growth = size - client.charged_bytes
        client.charged_bytes = size
        self.buffered_bytes += growth
        return growth

    def _turn_away(self, client: Connection, now: float) -> None:
        """Refuse a request for which there is no room; small ones, which come whole, are served."""
        if client.parser.is_idle or client.is_ended:
            return
        error = PmanError(
            f"pman holds {self.buffered_bytes} bytes of unanswered requests, which is the most that"
            " it may; try again later",
            hint=503,
        )
        client.parser.drop()
        self._charge(client)
        self._refuse(client, Rejection(error, b""), now, lingers=True)

    def _take_held(self, client: Connection, now: float) -> None:
        while client.held and not client.is_ended and not self._is_full(client):
            raw = client.held.popleft()
            client.held_bytes -= len(raw)
            self._parse(client, raw, now)

    def _is_full(self, client: Connection) -> bool:
        return (
            len(client.slots) >= MAX_IN_FLIGHT
            or client.body_bytes > self.settings.max_body_bytes
            or client.out_bytes > self.settings.max_unread_bytes
        )

    def _hold(self, client: Connection, raw: bytes) -> None:
        client.held.append(raw)
        client.held_bytes += len(raw)
        if client.held_bytes > self.settings.max_unread_bytes:
            self.drop(client, f"sent {client.held_bytes} bytes ahead of its replies")

    def _continue(self, client: Connection, now: float) -> None:
        """Ask for the body, once the replies before it are out."""
        client.wants_continue = True
        if not client.slots:
            self._rest(client, now)

    def _refuse(self, client: Connection, event: Rejection, now: float, *, lingers: bool) -> None:
        slot = Slot(client, None)
        slot.response = self.handler.reject(event.error, event.raw)
        client.slots.append(slot)
        client.is_ended = True
        client.lingers = lingers
        if len(client.slots) == 1:
            self.flush(client, now)

    # --- streams ----------------------------------------------------------------------------

    def _begin_stream(self, client: Connection, response: Response, body: Body, now: float) -> None:
        """Send the head of the first of `slots`; its body follows as the client takes it."""
        slot = client.slots[0]
        request = slot.request
        assert request is not None, "what never became a request is refused in one piece"
        # From here on it is as a request that is being carried out.
        slot.request = slot.response = None
        client.body_bytes -= slot.size
        is_chunked = request.version == "1.1"
        is_last = self.is_draining and len(client.slots) == 1
        client.is_ended |= not is_chunked or not request.keep_alive or is_last
        head = writer.stream_head(
            response,
            connection=writer.CLOSE if client.is_ended else b"",
            now_s=int(time.time()),
            is_chunked=is_chunked,
        )
        self.send(client, (head,), now)
        if client.is_gone:
            self._pump.drop(body)
            return
        if request.method == "HEAD":
            client.slots.popleft()
            self._pump.drop(body)
            return
        client.is_running = True
        client.stream = stream = Stream(client, body, is_chunked=is_chunked)
        if response.body:
            first = writer.chunk(response.body) if is_chunked else response.body
            self._send_long(client, first, now)
        if self.is_draining and client.stream is stream:
            if stream.may_end_anywhere:
                self._finish_stream(client, stream, now)
            else:
                self._cut_stream(client, stream, now)

    def _ask(self, client: Connection, stream: Stream) -> None:
        """Have the next piece read, if the client has taken all that it was sent."""
        if not client.out and not stream.is_asked and not client.is_gone:
            stream.is_asked = True
            self._pump.ask(stream)

    def _end_stream(self, client: Connection, stream: Stream, now: float) -> None:
        """Complete a reply; those behind it have their turn."""
        self._finish_stream(client, stream, now)
        if not client.is_gone:
            self.flush(client, now)

    def _finish_stream(self, client: Connection, stream: Stream, now: float) -> None:
        client.slots.popleft()
        if stream.is_chunked:
            self._leave_stream(client, stream)
            self.send(client, (writer.LAST_CHUNK,), now)
            return
        # The body ends with the connection: what was to come behind it can't be told from it.
        client.waiting.clear()
        self._drop_slots(client)
        self._leave_stream(client, stream)

    def _cut_stream(self, client: Connection, stream: Stream, now: float) -> None:
        """Close the connection within a reply, so that it is not taken for a whole one."""
        if not stream.is_chunked and client.descriptor is not None:
            reset_at_close(client.descriptor)  # its end would be taken for that of the body
        self._drop_slots(client)
        self._leave_stream(client, stream)
        client.is_ended = True
        self._close(client, now)

    def _leave_stream(self, client: Connection, stream: Stream) -> None:
        """Let go of the body; what the client has asked for behind it is carried out."""
        client.stream = None
        client.is_running = False
        self._pump.close(stream)
        self._offer(client)

    # --- output -----------------------------------------------------------------------------

    def _send_long(self, client: Connection, raw: bytes, now: float) -> None:
        client.sent_bytes += len(raw)
        view = memoryview(raw)
        while len(view) and not client.out and not client.is_gone:
            if not self._transmit(client, (view[:PIECE_BYTES],)):
                break
            view = view[PIECE_BYTES:]
        if len(view) and not client.is_gone:
            self._queue(client, (without_the_rest(view),), now)

    def _head(self, client: Connection, slot: Slot, response: Response) -> bytes:
        connection = writer.CLOSE
        request = slot.request
        if request is not None:
            client.body_bytes -= slot.size
            # After the stop was asked for, the last reply that we know of says so.
            if request.keep_alive and (client.slots or not self.is_draining):
                connection = b"" if request.version == "1.1" else writer.KEEP_ALIVE
        if connection is writer.CLOSE:
            client.is_ended = True  # it is the last one: nothing is read after it
        return writer.head(response, connection=connection, now_s=int(time.time()))

    def _rest(self, client: Connection, now: float) -> None:
        """Wait for the client, which has got all its replies; or close."""
        if client.wants_continue:
            client.wants_continue = False
            self.send(client, (writer.CONTINUE,), now)
        if client.is_gone:
            return
        if client.out:
            return  # the deadline is that of the output
        if client.is_ended and client.lingers:
            client.lingers = False
            self._expect(client, now + LINGER_S)
        elif client.is_ended:
            self._close(client, now)
        elif client.parser.is_idle:
            self._expect(client, now + self.settings.idle_timeout_s)
        else:
            self._expect(client, now + self.settings.header_timeout_s)

    def _close(self, client: Connection, now: float) -> None:
        """Close a connection; libzmq delivers what was sent before."""
        if client.sent_bytes > SURELY_SENT_BYTES and client.descriptor is not None:
            # libzmq would wait for a client that does not read, for ever.
            self._closing.append((now + self.settings.header_timeout_s, client.descriptor))
            self.next_sweep = min(self.next_sweep, self._closing[0][0])
        if self._transmit(client, CLOSE):
            self.forget(client)
        elif not client.is_gone:
            self._queue(client, CLOSE, now)

    def _expire(self, client: Connection, now: float) -> None:
        if client.out:
            self.drop(client, f"left {client.out_bytes} bytes unread")
        elif client.is_ended or client.parser.is_idle:
            self._close(client, now)
        else:
            seconds = self.settings.header_timeout_s
            error = RequestTimeout(f"the request was not complete after {seconds} s")
            self._refuse(client, Rejection(error, b""), now, lingers=True)

    def drop(self, client: Connection, why: str) -> None:
        """Cut off a client that would cost memory for ever."""
        log.warning("a client was dropped: it %s", why)
        self.meter.dropped += 1
        # Closing by an empty frame would wait until the client has read what is on its way.
        is_cut = client.descriptor is not None and cut(client.descriptor)
        if not is_cut:
            self._transmit(client, CLOSE)
            self.forget(client)
            return
        self._drop_slots(client)
        if client.stream is not None:
            self._leave_stream(client, client.stream)
        client.out.clear()
        client.held.clear()
        client.out_bytes = client.held_bytes = client.body_bytes = 0
        client.parser.drop()
        self._charge(client)
        client.deadline = NEVER
        client.is_ended = True
        self._stalled.pop(client.identity, None)  # libzmq announces the end


def connection_limit(settings: Settings) -> int:
    """Return how many connections may be open.

    Never more than there are descriptors for: libzmq spins when it cannot accept.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return settings.max_connections
    return max(1, min(settings.max_connections, descriptors - SPARE_DESCRIPTORS))
