"""`Feed`: events as they come, as a body of server-sent events.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from pman.job.event import Event, Wanted
from pman.jobdb.events import CHUNK, EventLog

#: How soon a client may come back after the connection was lost, milliseconds.
RETRY_MS = 1000

#: After how long without an event a comment shows that the connection lives, seconds.
HEARTBEAT_S = 15.0

#: Events in one piece.
PIECE_EVENTS = 200

_encode = msgspec.json.Encoder().encode


class Feed:
    """A `Body` that goes on until the client closes or the daemon ends.

    Attributes:
        poll_s: How soon to look whether a heartbeat is due, seconds.
        may_end_anywhere: True: it has no end of its own.
    """

    poll_s: float | None = HEARTBEAT_S / 3
    may_end_anywhere = True

    def __init__(
        self,
        log: EventLog,
        since: int | None,
        wanted: Wanted,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a feed.

        Args:
            since: As in `EventLog.since`.
            clock: Monotonic seconds.
        """
        self._log = log
        self._seq = log.now(wanted.owner) if since is None else since
        self._wanted = wanted
        self._clock = clock
        self._sent_at = clock()
        self._begin: bytes = b"retry: %d\n\n" % RETRY_MS
        if since is None:
            # Who loses the connection before the first event comes back with this. It counts though
            # nothing is dispatched: see "dispatch the event" in the source, steps 1 and 2.
            self._begin = b"id: %d\n%b" % (self._seq, self._begin)
        self._callback: Callable[[], None] | None = None
        self._forget: Callable[[], None] | None = None

    def read(self) -> bytes | None:
        """Return the next events; see `Body`."""
        begin, self._begin = self._begin, b""
        page = self._log.since(self._seq, PIECE_EVENTS, self._wanted, scan=CHUNK)
        self._seq = page.at
        piece = begin
        if page.is_gap:
            piece += b'event: gap\ndata: {"firstSeq":%d}\n\n' % page.first_seq
        if page.events:
            piece += b"".join(map(_spell, page.events))
        elif not page.is_end and self._wanted.owner is None:
            piece += b"id: %d\n\n" % page.at  # no event, but where to go on: ask again at once
        elif not page.is_end:
            if self._callback is not None:
                self._callback()  # look on: a piece would show how many there are of others
        elif self._log.is_closed and not piece:
            return None
        if not piece and self._clock() - self._sent_at >= HEARTBEAT_S:
            piece = b":\n\n"
        if piece:
            self._sent_at = self._clock()
        return piece

    def on_news(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when there is more; see `Body`."""
        self._callback = callback
        self._forget = self._log.subscribe(callback, self._wanted)
        callback()  # for what came before

    def close(self) -> None:
        """Let go of the log."""
        if self._forget is not None:
            self._forget()


def _spell(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.kind.encode(), _encode(event))
