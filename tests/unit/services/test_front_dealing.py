"""`Dealer`: who gets what, in which order; with a socket that is two lists."""

from __future__ import annotations

from typing import Any, cast

import zmq

from pman.http.message import Request
from pman.services import dealing
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

    def deal(self) -> list[tuple[bytes, bytes, list[str]]]:
        """Return (listener, number, targets) of each batch."""
        self.dealer.deal()
        sent, self.socket.sent = self.socket.sent, []
        return [
            (who, number, [slot.request.target for slot in self.exchange.look(number)])
            for who, number in zip(sent[::2], sent[1::2], strict=True)
        ]

    def ask(self, *targets: str, client: Client | None = None) -> Client:
        """Have one client ask; a target that begins with `s` is slow."""
        client = client or Client(b"id")
        for target in targets:
            request = Request(method="GET", target=target)
            client.waiting.append(Slot(client, request, not target.startswith("s")))
        self.dealer.enqueue(client)
        return client


def test_quick_requests_share_a_batch_and_slow_ones_go_alone() -> None:
    table = Table(listeners=4)
    for target in ("q1", "s1", "q2", "s2", "q3"):
        table.ask(target)
    assert [targets for _, _, targets in table.deal()] == [["q1", "q2", "q3"], ["s1"], ["s2"]]
    assert table.dealer.has_quick_batch_out


def test_without_an_idle_listener_requests_wait_in_order() -> None:
    table = Table(listeners=1)
    for target in ("s1", "s2", "s3"):
        table.ask(target)
    for expected in ("s1", "s2", "s3"):
        ((listener, number, targets),) = table.deal()
        assert targets == [expected]
        assert table.deal() == []
        table.hand_back(listener, number)
    assert len(table.exchange) == 0


def test_with_one_listener_quick_and_slow_take_turns() -> None:
    table = Table(listeners=1)
    dealt = []
    for number in range(3):
        table.ask(f"q{number}")
        table.ask(f"s{number}")
        ((listener, batch, targets),) = table.deal()
        table.hand_back(listener, batch)
        dealt.append(targets)
    assert dealt == [["q0"], ["s0"], ["q1", "q2"]]


def test_a_batch_is_bounded() -> None:
    table = Table(listeners=1)
    for _ in range(dealing.MAX_BATCH + 5):
        table.ask("q")
    ((listener, number, targets),) = table.deal()
    assert len(targets) == dealing.MAX_BATCH
    assert len(table.hand_back(listener, number)) == dealing.MAX_BATCH
    assert len(table.deal()[0][2]) == 5


def test_the_requests_of_one_client_are_carried_out_one_after_the_other() -> None:
    table = Table(listeners=4)
    client = table.ask("q1", "q2", "s1", "q3")
    ((listener, number, targets),) = table.deal()
    assert targets == ["q1", "q2"]
    table.dealer.enqueue(client)  # still running: changes nothing
    assert table.deal() == []
    for expected in (["s1"], ["q3"]):
        for slot in table.hand_back(listener, number):
            slot.client.running -= 1
        table.dealer.enqueue(client)
        ((listener, number, targets),) = table.deal()
        assert targets == expected
