"""What front and listeners hand each other: requests, replies, and the claim checks for them.

A ZeroMQ message carries the number of a request; the request itself stays here, uncopied.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from pman.errors import PmanError
from pman.http.deferred import Deferred
from pman.http.message import Request, Response
from pman.http.streaming import Body

if TYPE_CHECKING:
    from pman.services.clients import Client


class Handler(Protocol):
    """Turns requests into replies; the dispatcher, seen from here. All methods are thread-safe."""

    def handle(self, request: Request) -> Response | Deferred:
        """Carry out a request, in a listener's thread; does not raise."""

    def handle_quick(self, request: Request) -> Response | None:
        """Carry out a request that touches nothing but memory, and little of it; else None.

        In the front's thread, which serves nobody else meanwhile; does not raise.
        """

    def reject(self, error: PmanError, raw: bytes) -> Response:
        """Return the reply to bytes that never became a request; cheap, in the front's thread.

        Args:
            error: Why; its `hint` is the status code.
            raw: The beginning of what came, at most 1 KiB.
        """


class Slot:
    """One request of one client, and the place of its reply among the others of that client.

    Attributes:
        client: Whom the reply is for.
        request: The request, or None for bytes that never became one.
        answer: What the listener returned; written by it, read by the front when it hands back.
        response: The reply once there is one.
        delimiter: ZMTP only: whether the message began with an empty frame.
        size: Of the request's body when it came, bytes: a listener lets go of it if it can.
        is_dropped: Whether nobody wants the reply any more.
    """

    __slots__ = ("answer", "client", "delimiter", "is_dropped", "request", "response", "size")

    def __init__(self, client: Client, request: Request | None) -> None:
        self.client = client
        self.request = request
        self.answer: Response | Deferred | None = None
        self.response: Response | None = None
        self.delimiter = False
        self.size = 0 if request is None else len(request.body)
        self.is_dropped = False

    def drop(self) -> None:
        """Say that nobody wants the reply any more, to whoever is to give it later, too."""
        self.is_dropped = True
        if isinstance(self.answer, Deferred):
            self.answer.give_up()


class Exchange:
    """Requests by number, while a listener has them.

    Attributes:
        is_closed: Whether nobody takes answers any more: who has one lets go of it by `abandon`.
    """

    def __init__(self) -> None:
        # The front alone writes; a listener looks up a number that it was sent: no lock needed.
        self._slots: dict[bytes, Slot] = {}
        self._drop: Callable[[Body], None] | None = None
        self.is_closed = False
        self._numbers = itertools.count(1)

    def put(self, slot: Slot) -> bytes:
        """Keep a request; return the number to send."""
        number = b"%d" % next(self._numbers)
        self._slots[number] = slot
        return number

    def look(self, number: bytes) -> Slot:
        """Return the request of a number, which stays here."""
        return self._slots[number]

    def take(self, number: bytes) -> Slot:
        """Return the request of a number and forget it."""
        return self._slots.pop(number)

    def close(self, drop: Callable[[Body], None]) -> None:
        """Let go of all answers, of those as well that are still to come.

        Args:
            drop: Takes bodies that nobody wants.
        """
        self._drop = drop
        self.is_closed = True
        for number in list(self._slots):
            self.abandon(number)

    def abandon(self, number: bytes) -> None:
        """Let go of an answer that nobody has taken; from any thread, any number of times."""
        slot = self._slots.get(number)
        if slot is None or slot.answer is None or self._slots.pop(number, None) is None:
            return  # not there yet, or somebody else has done it
        if isinstance(slot.answer, Deferred):
            slot.answer.on_done(self._let_go)
        else:
            self._let_go(slot.answer)

    def _let_go(self, response: Response) -> None:
        if response.stream is not None and self._drop is not None:
            self._drop(response.stream)

    def __len__(self) -> int:
        return len(self._slots)
