"""Output that clients do not take: who gets time for it, and who is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from pman.config import Settings
from pman.http.message import Response
from pman.meters import ClientMeter
from pman.services.clients import BRISK_S, PIECE_BYTES, PROGRESS_PARTS
from pman.services.connections import Connection, HttpClients
from pman.services.exchange import Slot

LIMIT = 10_000_000


class FakePump:
    def count(self) -> int:
        return 0


class Clients(HttpClients):
    """HTTP connections without a socket.

    Attributes:
        room: How many bytes each takes now.
        dropped: Who was dropped, in order.
    """

    def __init__(self, **settings: Any) -> None:
        settings = {"max_outgoing_bytes": LIMIT, "header_timeout_s": 30.0, **settings}
        self.room: dict[bytes, int] = {}
        self.dropped: list[str] = []
        super().__init__(
            None,
            Settings(db_path=Path("/nonexistent"), **settings),
            None,
            lambda client: None,
            FakePump(),
            ClientMeter(),
        )

    def _transmit(self, client: Connection, piece: tuple[bytes | memoryview, ...]) -> bool:
        size = sum(map(len, piece))
        if self.room.get(client.identity, 0) < size:
            return False
        self.room[client.identity] -= size
        return True

    def drop(self, client: Connection, why: str) -> None:
        self.dropped.append(client.identity.decode())
        super().drop(client, why)
        self.forget(client)  # as libzmq tells us

    def reply(self, name: str, size: int, now: float, room: int = 0) -> Connection:
        """Have a client, with room for the head and `room` bytes, get a reply."""
        client = self.clients.get(name.encode())
        if client is None:
            client = Connection(name.encode(), cast(Any, FakeParser()))
            self.clients[client.identity] = client
        self.room[client.identity] = room
        slot = Slot(client, None)
        slot.response = Response(200, bytes(size))
        client.slots.append(slot)
        self.flush(client, now)
        return client

    def read(self, client: Connection, size: int, now: float) -> None:
        self.room[client.identity] = size
        self.retry(now)


class FakeParser:
    is_idle = True
    held_bytes = 0

    def drop(self) -> None:
        pass


# --- the account of all clients -----------------------------------------------------------------


def test_what_fits_is_left_to_the_deadlines() -> None:
    clients = Clients()
    for name in "ab":
        clients.reply(name, LIMIT // 2 - 1000, 0.0)
    clients.retry(0.1)
    clients.retry(20.0)
    assert clients.dropped == []


def test_past_the_limit_those_that_read_nothing_go_largest_first() -> None:
    clients = Clients()
    for name, size in (("a", 2_900_000), ("b", 5_900_000), ("c", 900_000)):
        clients.reply(name, size, 0.0)
    clients.reply("d", 2_000_000, BRISK_S)
    clients.retry(BRISK_S + 0.01)
    assert clients.dropped == []  # without d, which has just got its reply, it fits
    clients.reply("e", 1_000_000, BRISK_S)
    clients.retry(BRISK_S + 0.01)
    assert clients.dropped == ["b"]
    assert clients.meter.dropped == 1
    assert clients.meter.unread_bytes() < LIMIT


def test_who_reads_is_not_dropped_for_one_that_does_not() -> None:
    clients = Clients()
    reader = clients.reply("reader", 9_000_000, 0.0)
    clients.reply("small", 1_500_000, 0.0)
    clients.reply("other", 9_000_000, 0.0)
    clients.reply("last", 9_000_000, 0.0)
    for tenths in range(1, 50):
        clients.read(reader, PIECE_BYTES, tenths / 10)
    assert clients.dropped == ["last", "small"]  # neither has begun
    clients.reply("late", 9_000_000, 5.0)
    clients.read(reader, PIECE_BYTES, 5.1)
    assert clients.dropped == ["last", "small", "other"]


def test_one_reply_that_is_read_may_be_of_any_length() -> None:
    clients = Clients()
    reader = clients.reply("reader", 5 * LIMIT, 0.0)
    clients.reply("small", 1_000_000, 0.0)
    for second in range(1, 10):
        clients.read(reader, PIECE_BYTES, float(second))
    assert clients.dropped == []


def test_one_reply_that_is_not_read_may_not() -> None:
    clients = Clients()
    clients.reply("one", 5 * LIMIT, 0.0)
    clients.retry(BRISK_S / 2)
    assert clients.dropped == []
    clients.retry(BRISK_S)
    assert clients.dropped == ["one"]


def test_replies_that_come_at_once_are_bounded_all_the_same() -> None:
    clients = Clients()
    for number in range(20):
        clients.reply(str(number), LIMIT // 2 - 1000, 0.0)
        clients.retry(0.01)
        assert clients.meter.unread_bytes() <= LIMIT + LIMIT // 2
    assert len(clients.dropped) == 17


def test_the_drop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    clients = Clients()
    clients.reply("one", 2 * LIMIT, 0.0)
    clients.retry(BRISK_S)
    assert f"and all clients together more than {LIMIT}" in caplog.text


# --- progress -----------------------------------------------------------------------------------


def test_a_little_progress_is_none() -> None:
    clients = Clients(max_unread_bytes=1_000_000)
    client = clients.reply("a", 8_000_000, 0.0)
    assert client.deadline == 30.0
    for second in range(1, 6):
        clients.read(client, PIECE_BYTES, float(second))
    assert client.deadline == 30.0
    clients.sweep(30.0)
    assert clients.dropped == ["a"]


def test_real_progress_gives_new_time() -> None:
    clients = Clients(max_unread_bytes=1_000_000)
    client = clients.reply("a", 8_000_000, 0.0)
    now = 0.0
    while client.out_bytes > 1_000_000:
        now += 29.0
        clients.read(client, client.out_bytes // PROGRESS_PARTS + PIECE_BYTES, now)
        clients.sweep(now + 0.5)
        assert clients.dropped == []
    assert client.deadline == now + clients.settings.idle_timeout_s


def test_below_the_limit_of_one_client_progress_counts_as_well() -> None:
    clients = Clients(idle_timeout_s=300.0)
    client = clients.reply("a", 8_000_000, 0.0)
    for second in range(1, 6):
        clients.read(client, PIECE_BYTES, float(second))
    assert client.deadline == 300.0
    clients.read(client, 500_000, 6.0)
    assert client.deadline == 306.0


# --- memory -------------------------------------------------------------------------------------


def test_a_reply_that_is_nearly_read_does_not_keep_all_of_it() -> None:
    clients = Clients()
    client = clients.reply("a", 8_000_000, 0.0)
    clients.read(client, 1_000_000, 1.0)
    while client.out:
        [(view,)] = client.out
        assert len(view.obj) <= 2 * client.out_bytes + PIECE_BYTES
        clients.read(client, 1_000_000, 1.0)
    assert clients.meter.unread_bytes() == 0
