"""`Dealer`: who gets what, in which order; with a socket that is two lists."""

from __future__ import annotations

from typing import Any, cast

import zmq

from pman.http.message import Request
from pman.services.clients import Client
from pman.services.dealing import Dealer
from pman.services.exchange import Exchange, Slot


class FakeSocket:
    def __init__(self) -> None:
        self.incoming: list[bytes] = []
        self.sent: list[bytes] = []

    def recv(self, flags: int = 0) -> bytes:
        if not self.incoming:
            raise zmq.Again
        return self.incoming.pop(0)

    def send(self, frame: bytes, flags: int = 0) -> None:
        self.sent.append(frame)


class Table:
    """A dealer, and what it has dealt."""

    def __init__(self, listeners: int) -> None:
        self.socket = FakeSocket()
        self.exchange = Exchange()
        self.dealer = Dealer(cast(Any, self.socket), self.exchange)
        for index in range(listeners):
            self.hand_back(b"l%d" % index, b"")

    def hand_back(self, listener: bytes, number: bytes) -> list[Slot]:
        self.socket.incoming += [listener, number]
        return self.dealer.collect()

    def deal(self) -> list[tuple[bytes, bytes, str]]:
        """Return (listener, number, target) of each request."""
        self.dealer.deal()
        sent, self.socket.sent = self.socket.sent, []
        return [
            (who, number, self._target(number))
            for who, number in zip(sent[::2], sent[1::2], strict=True)
        ]

    def _target(self, number: bytes) -> str:
        request = self.exchange.look(number).request
        assert request is not None
        return request.target

    def ask(self, *targets: str) -> Client:
        """Have one client ask."""
        client = Client(b"id")
        for target in targets:
            client.waiting.append(Slot(client, Request(method="GET", target=target)))
        self.dealer.enqueue(client)
        return client


def test_each_idle_listener_gets_one_request() -> None:
    table = Table(listeners=3)
    for target in ("a", "b", "c", "d"):
        table.ask(target)
    dealt = table.deal()
    assert [(who, target) for who, _, target in dealt] == [(b"l0", "a"), (b"l1", "b"), (b"l2", "c")]
    assert table.deal() == []


def test_without_an_idle_listener_requests_wait_in_order() -> None:
    table = Table(listeners=1)
    for target in ("a", "b", "c"):
        table.ask(target)
    for expected in ("a", "b", "c"):
        ((listener, number, target),) = table.deal()
        assert target == expected
        assert table.deal() == []
        (slot,) = table.hand_back(listener, number)
        assert slot.request is not None
        assert slot.request.target == expected
    assert len(table.exchange) == 0


def test_the_requests_of_one_client_are_carried_out_one_after_the_other() -> None:
    table = Table(listeners=4)
    client = table.ask("a", "b", "c")
    for expected in ("a", "b", "c"):
        ((listener, number, target),) = table.deal()
        assert target == expected
        table.dealer.enqueue(client)  # still running: changes nothing
        assert table.deal() == []
        table.hand_back(listener, number)
        client.is_running = False
        table.dealer.enqueue(client)
    assert table.deal() == []
