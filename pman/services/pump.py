"""`Pump`: reads the bodies of replies that are made while they are sent, all in one thread.

The front asks for a piece when a client has taken the last one; nothing is read ahead. Knows no
sockets.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pman.errors import PmanError
from pman.http.streaming import Body
from pman.http.writer import chunk
from pman.services.base import Service

if TYPE_CHECKING:
    from pman.services.clients import Client

_log = logging.getLogger(__name__)

#: Streams that wait for the clock are looked at together, so often at most, seconds: each look
#: takes the interpreter from the front.
TICK_S = 0.02


class Piece(enum.Enum):
    """What the pump has for the front, where it is not bytes."""

    END = enum.auto()  #: the body is complete
    CUT = enum.auto()  #: it can't be gone on with


class Stream:
    """One body on its way to one client.

    Attributes:
        client: Who gets it.
        is_chunked: Whether pieces are framed as chunks.
        is_asked: Whether the front waits for a piece; the front's own.
        may_end_anywhere: That of the body.
        body: What is read; the pump's own, as all that follows.
        is_wanted: Whether a piece was asked for and not given.
        is_begun: Whether the body knows whom to call.
        is_open: Whether the body has not been closed.
        has_news: Whether the pump was told of news and has not looked yet.
        due_at: When to read again without news, monotonic seconds; infinite for never.
    """

    __slots__ = (
        "body",
        "client",
        "due_at",
        "has_news",
        "is_asked",
        "is_begun",
        "is_chunked",
        "is_open",
        "is_wanted",
        "may_end_anywhere",
    )

    def __init__(self, client: Client, body: Body, *, is_chunked: bool) -> None:
        self.client = client
        self.is_chunked = is_chunked
        self.is_asked = False
        self.may_end_anywhere = body.may_end_anywhere
        self.body = body
        self.is_wanted = False
        self.is_begun = False
        self.is_open = True
        self.has_news = False
        self.due_at = math.inf


#: Takes a piece in the pump's thread; does not block.
Deliver = Callable[[Stream, bytes | Piece], None]

#: What the pump is to do; None: look whether it shall stop.
_Command = Callable[[], None] | None


class Pump(Service):
    """The one thread that reads and closes bodies; `close` of each is called exactly once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("pump")
        self._clock = clock
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._deliver: Deliver | None = None
        self._open: set[Stream] = set()
        self._due: list[tuple[float, int, Stream]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # around `_is_over` and `Stream.is_open`
        self._is_over = False

    # --- from any thread ------------------------------------------------------------------

    def count(self) -> int:
        """Return how many streams are open; from any thread."""
        return len(self._open)

    def connect(self, deliver: Deliver) -> None:
        """Say who takes the pieces; before the first `ask`."""
        self._deliver = deliver

    def ask(self, stream: Stream) -> None:
        """Have the next piece of a stream delivered, once there is one."""
        self._commands.put(lambda: self._want(stream))

    def close(self, stream: Stream) -> None:
        """Let go of a stream that nobody wants any more; one that has ended already is ignored."""
        if not self._post(lambda: self._close(stream)):
            self._close(stream)

    def drop(self, body: Body) -> None:
        """Close a body that never became a stream."""
        if not self._post(lambda: _close_body(body)):
            _close_body(body)

    def request_stop(self) -> None:
        """Ask for the end; what is open then is closed."""
        super().request_stop()
        self._commands.put(None)

    # --- the service ----------------------------------------------------------------------

    def serve(self) -> None:
        """Read what is asked for, until the stop."""
        while not self.stopping.is_set():
            try:
                command = self._commands.get(timeout=self._timeout_s())
            except queue.Empty:
                command = None
            if command is not None:
                command()
            self._read_due()

    def teardown(self) -> None:
        """Close all bodies."""
        with self._lock:
            self._is_over = True
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                break
            if command is not None:
                command()
        for stream in list(self._open):
            self._close(stream)

    def _post(self, command: Callable[[], None]) -> bool:
        """Have a command carried out; False when the service has ended."""
        with self._lock:
            if not self._is_over:
                self._commands.put(command)
            return not self._is_over

    def _timeout_s(self) -> float | None:
        return max(0.0, self._due[0][0] - self._clock()) if self._due else None

    def _want(self, stream: Stream) -> None:
        if not stream.is_open:
            return
        self._open.add(stream)
        if not self._is_over:
            stream.is_wanted = True
            self._read(stream)

    def _hear(self, stream: Stream) -> None:
        """Take news of a body, from any thread."""
        if not stream.has_news:
            stream.has_news = True
            self._commands.put(lambda: self._look(stream))

    def _look(self, stream: Stream) -> None:
        stream.has_news = False
        if stream.is_wanted:
            self._read(stream)

    def _read_due(self) -> None:
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            due_at, _, stream = heapq.heappop(self._due)
            if stream.is_wanted and stream.due_at == due_at:
                self._read(stream)

    def _read(self, stream: Stream) -> None:
        """Read once; deliver what came of it, or note when to look again."""
        stream.due_at = math.inf
        body = stream.body
        try:
            if not stream.is_begun:
                stream.is_begun = True
                body.on_news(lambda: self._hear(stream))
            raw = body.read()
        except PmanError as exc:
            _log.error("a reply was cut off: %s", exc)
            self._finish(stream, Piece.CUT)
        except Exception:  # noqa: BLE001  as for a request: the other streams go on
            _log.exception("a reply was cut off")
            self._finish(stream, Piece.CUT)
        else:
            if raw is None:
                self._finish(stream, Piece.END)
            elif raw:
                stream.is_wanted = False
                self._hand_over(stream, chunk(raw) if stream.is_chunked else raw)
            elif body.poll_s is not None:
                ticks = math.ceil((self._clock() + body.poll_s) / TICK_S)
                stream.due_at = ticks * TICK_S
                heapq.heappush(self._due, (stream.due_at, next(self._numbers), stream))

    def _finish(self, stream: Stream, how: Piece) -> None:
        self._close(stream)
        self._hand_over(stream, how)

    def _hand_over(self, stream: Stream, piece: bytes | Piece) -> None:
        assert self._deliver is not None, "nobody takes the pieces"
        self._deliver(stream, piece)

    def _close(self, stream: Stream) -> None:
        stream.is_wanted = False
        with self._lock:
            was_open, stream.is_open = stream.is_open, False
        if was_open:
            self._open.discard(stream)
            _close_body(stream.body)


def _close_body(body: Body) -> None:
    try:
        body.close()
    except Exception:  # noqa: BLE001  nobody waits for it, and the other streams go on
        _log.exception("the body of a reply could not be closed")
