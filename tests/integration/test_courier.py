"""One try of a callback: what it connects to, and how it is cut short."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from callback_receiver import Receiver
from daemon_process import DEADLINE_S, wait_until

from pman.job.callback import Target
from pman.services import courier
from pman.services.courier import Errand, Undelivered


def target(port: int, host: str = "127.0.0.1") -> Target:
    return Target(is_secure=False, host=host, port=port, path="/")


@pytest.fixture
def deaf() -> Iterator[int]:
    """Give a port of 127.0.0.1 where a connect neither succeeds nor fails."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(4):  # who fills the queue of those that wait to be accepted
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield address[1]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that says to which addresses all names lead."""

    def lead_to(*addresses: tuple[str, int]) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in addresses]
        monkeypatch.setattr(courier.socket, "getaddrinfo", lambda *_, **__: found)

    return lead_to


def started(errand: Errand) -> tuple[threading.Thread, list[str]]:
    """Have a try made in a thread of its own; its end is noted in the list."""
    ends: list[str] = []

    def post() -> None:
        try:
            ends.append(str(errand.post({}, b"{}")))
        except Undelivered as exc:
            ends.append(str(exc))

    thread = threading.Thread(target=post)
    thread.start()
    return thread, ends


def test_a_cut_ends_a_connect(deaf: int) -> None:
    errand = Errand(target(deaf))
    thread, ends = started(errand)
    wait_until(lambda: errand._socket is not None, "it connects")
    began = time.monotonic()
    errand.cut()
    thread.join(DEADLINE_S)
    assert ends == ["no answer in time"]
    assert time.monotonic() - began < courier.SILENCE_S / 2


def test_after_a_cut_no_address_is_tried(deaf: int, resolve: Any) -> None:
    receiver = Receiver()
    resolve(("127.0.0.1", deaf), ("127.0.0.1", receiver.port))
    errand = Errand(target(80, "name.example"))
    thread, ends = started(errand)
    wait_until(lambda: errand._socket is not None, "it connects")
    errand.cut()
    thread.join(DEADLINE_S)
    assert ends == ["no answer in time"]
    assert receiver.got == []
    receiver.close()


def test_a_try_that_was_cut_before_it_began_connects_to_nothing() -> None:
    receiver = Receiver()
    errand = Errand(target(receiver.port))
    errand.cut()
    with pytest.raises(Undelivered, match="no answer in time"):
        errand.post({}, b"{}")
    assert receiver.got == []
    receiver.close()


def test_all_addresses_together_have_the_time_of_one_try(deaf: int, resolve: Any) -> None:
    resolve(*[("127.0.0.1", deaf)] * 20)
    began = time.monotonic()
    with pytest.raises(Undelivered, match="no answer in time"):
        Errand(target(80, "name.example"), try_s=0.2).post({}, b"{}")
    assert 0.2 <= time.monotonic() - began < 2.0


def test_the_next_address_is_tried_where_one_refuses(resolve: Any) -> None:
    receiver = Receiver()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        resolve(unused.getsockname(), ("127.0.0.1", receiver.port))
        assert Errand(target(80, "name.example")).post({}, b"{}") == 200
    assert receiver.got[0].headers["host"] == "name.example"
    receiver.close()


def test_the_last_refusal_is_told(resolve: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        resolve(*[unused.getsockname()] * 3)
        with pytest.raises(Undelivered, match="connection refused"):
            Errand(target(80, "name.example")).post({}, b"{}")
