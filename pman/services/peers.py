"""`ZmtpClients`: ZeroMQ peers, REQ or DEALER, over a ROUTER (`--rawmode 0`).

A message is `[empty]? [authorization]? document`; the answer is `[empty]? document`.
"""

from __future__ import annotations

import logging

import zmq

from pman.errors import MalformedRequest, NotSupported, PmanError, RequestTooLarge
from pman.http.message import Request
from pman.services.clients import MAX_IN_FLIGHT, NEVER, STOPPING, Client, ClientSide
from pman.services.exchange import Slot
from pman.services.pump import Piece, Stream

log = logging.getLogger(__name__)

#: Messages taken in one go before replies have their turn.
MAX_MESSAGES = 256

#: What a peer gets for a reply that has no end yet: one message is one whole document.
NO_STREAMS = NotSupported("replies that are streams need HTTP, so --rawmode 1")


class ZmtpClients(ClientSide[Client]):
    """All ZeroMQ peers that are owed a reply; libzmq does not say which others there are."""

    def receive(self, now: float) -> None:
        """Take messages that have come, up to `MAX_MESSAGES`."""
        for _ in range(MAX_MESSAGES):
            try:
                identity, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            client = self.clients.get(identity)
            if client is None:
                client = self.clients[identity] = Client(identity)
            self._take(client, frames, now)

    def flush(self, client: Client, now: float) -> None:
        """Send the replies whose turn it is; forget a peer that has got all of them."""
        slots = client.slots
        while slots and (response := slots[0].response) is not None and not client.is_gone:
            slot = slots.popleft()
            if response.stream is not None:
                self._pump.drop(response.stream)
                response = self.handler.reject(NO_STREAMS, b"")
            self.send(client, (b"", response.body) if slot.delimiter else (response.body,), now)
        if not slots and not client.out and not client.is_gone:
            self.forget(client)

    def sweep(self, now: float) -> None:
        """Forget peers that do not take their replies, and set `next_sweep`."""
        for client in list(self.clients.values()):
            if client.deadline <= now:
                self.drop(client, f"left {client.out_bytes} bytes unread")
        self.next_sweep = min((client.deadline for client in self.clients.values()), default=NEVER)

    def take_piece(self, stream: Stream, piece: bytes | Piece, now: float) -> None:
        """Do nothing: no peer gets a stream."""

    def end_streams(self, now: float) -> None:
        """Do nothing: there are none."""

    def close_all(self) -> None:
        """Do nothing: closing the socket says all there is to say to a ZeroMQ peer."""

    def drop(self, client: Client, why: str) -> None:
        """Forget a peer and its replies; what libzmq has taken of them goes with the peer."""
        log.warning("a client was dropped: it %s", why)
        self.meter.dropped += 1
        self.forget(client)

    def _take(self, client: Client, frames: list[bytes], now: float) -> None:
        slot = Slot(client, None)
        if len(frames) > 1 and not frames[0]:
            slot.delimiter = True
            frames = frames[1:]
        error = self._check(client, frames)
        if error is not None:
            slot.response = self.handler.reject(error, b"")
            client.slots.append(slot)
            self.flush(client, now)
            return
        slot.request = request = Request(
            method="POST",
            target="",
            body=frames[-1],
            is_http=False,
            received_at=now,
            authorization=frames[0].decode("latin-1") if len(frames) > 1 else None,
        )
        self.accept(client, slot, request)
        self.flush(client, now)
        self._offer(client)

    def _check(self, client: Client, frames: list[bytes]) -> PmanError | None:
        if self.is_draining:
            return STOPPING
        if len(client.slots) >= MAX_IN_FLIGHT:
            return PmanError(f"{MAX_IN_FLIGHT} requests of this peer are on their way", hint=503)
        if not 1 <= len(frames) <= 2:
            return MalformedRequest(
                f"the message has {len(frames)} frames, expected the document, or the value of"
                " the authorization header and the document"
            )
        limit = self.settings.max_body_bytes
        if len(frames[-1]) > limit:
            return RequestTooLarge(
                f"the document has {len(frames[-1])} bytes, expected at most {limit}"
            )
        return None
