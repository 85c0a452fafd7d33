"""`Pump`: when it reads, and that it closes each body once; the front's side is a list."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from daemon_process import wait_until
from jobdb_builders import DEADLINE_S

from pman.services.clients import Client
from pman.services.pump import Piece, Pump, Stream


class Body:
    """Gives what it was told to, one after the other, then nothing."""

    may_end_anywhere = True

    def __init__(self, *answers: bytes | Exception | None, poll_s: float | None = None) -> None:
        self.poll_s = poll_s
        self.answers = list(answers)
        self.reads = 0
        self.closes = 0
        self.threads: set[str] = set()
        self.tell: Callable[[], None] = lambda: None

    def read(self) -> bytes | None:
        self.reads += 1
        self.threads.add(threading.current_thread().name)
        answer = self.answers.pop(0) if self.answers else b""
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_news(self, callback: Callable[[], None]) -> None:
        self.tell = callback

    def close(self) -> None:
        self.closes += 1


class Running:
    """A pump, and what it has delivered."""

    def __init__(self) -> None:
        self.got: list[tuple[Stream, bytes | Piece]] = []
        self.pump = Pump()
        self.pump.connect(lambda stream, piece: self.got.append((stream, piece)))
        self.pump.start()

    def stream(self, body: Body, *, is_chunked: bool = False) -> Stream:
        return Stream(Client(b"id"), body, is_chunked=is_chunked)

    def wait(self, stream: Stream, *pieces: bytes | Piece) -> None:
        wait_until(lambda: [p for s, p in self.got if s is stream] == [*pieces], "the pieces")

    def drain(self) -> None:
        """Wait until the pump has done all that it was asked for."""
        body = Body(b"x")
        stream = self.stream(body)
        self.pump.ask(stream)
        self.wait(stream, b"x")

    def stop(self) -> None:
        self.pump.request_stop()
        assert self.pump.join(time.monotonic() + DEADLINE_S)
        assert self.pump.failure is None, self.pump.failure


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.stop()


def test_it_reads_when_it_is_asked(running: Running) -> None:
    body = Body(b"one", b"two", None)
    stream = running.stream(body)
    running.pump.ask(stream)
    running.wait(stream, b"one")
    running.drain()
    assert body.reads == 1
    body.tell()
    running.drain()
    assert body.reads == 1, "news alone are no reason"
    running.pump.ask(stream)
    running.pump.ask(stream)
    running.wait(stream, b"one", b"two", Piece.END)
    assert body.closes == 1
    assert body.threads == {"pump"}
    running.pump.ask(stream)
    running.pump.close(stream)
    running.drain()
    assert (body.reads, body.closes) == (3, 1)


def test_chunks(running: Running) -> None:
    stream = running.stream(Body(b"x" * 17), is_chunked=True)
    running.pump.ask(stream)
    running.wait(stream, b"11\r\n" + b"x" * 17 + b"\r\n")


def test_news(running: Running) -> None:
    body = Body()
    stream = running.stream(body)
    running.pump.ask(stream)
    running.drain()
    assert body.reads == 1
    body.answers.append(b"x")
    for _ in range(5):
        body.tell()
    running.wait(stream, b"x")
    running.drain()
    assert body.reads == 2


def test_the_clock(running: Running) -> None:
    body = Body(b"", b"", b"x", poll_s=0.001)
    stream = running.stream(body)
    running.pump.ask(stream)
    running.wait(stream, b"x")
    running.drain()
    assert body.reads == 3
    running.pump.ask(stream)
    wait_until(lambda: body.reads > 4, "reads by the clock")
    running.pump.close(stream)
    running.drain()
    reads = body.reads
    running.drain()
    assert body.reads == reads


@pytest.mark.parametrize("where", ["read", "on_news"])
def test_what_fails_is_cut(running: Running, where: str, caplog: pytest.LogCaptureFixture) -> None:
    body = Body(ValueError("toy"))
    if where == "on_news":

        def refuse(_: Callable[[], None]) -> None:
            raise ValueError("toy")

        body.on_news = refuse  # type: ignore[method-assign]
    stream = running.stream(body)
    running.pump.ask(stream)
    running.wait(stream, Piece.CUT)
    assert body.closes == 1
    assert "a reply was cut off" in caplog.text


def test_a_close_that_fails(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    body = Body(None)

    def refuse() -> None:
        raise ValueError("toy")

    body.close = refuse  # type: ignore[method-assign]
    stream = running.stream(body)
    running.pump.ask(stream)
    running.wait(stream, Piece.END)
    running.drain()
    assert "could not be closed" in caplog.text


def test_all_is_closed_at_the_end() -> None:
    running = Running()
    parked, asked, dropped = Body(), Body(b"x", b"y"), Body()
    streams = [running.stream(body) for body in (parked, asked)]
    for stream in streams:
        running.pump.ask(stream)
    running.wait(streams[1], b"x")
    running.pump.drop(dropped)
    running.stop()
    assert [body.closes for body in (parked, asked, dropped)] == [1, 1, 1]
    late, never_asked = Body(), Body()
    running.pump.drop(late)
    running.pump.close(running.stream(never_asked))
    for stream in streams:
        running.pump.close(stream)
    assert [body.closes for body in (parked, asked, late, never_asked)] == [1, 1, 1, 1]
