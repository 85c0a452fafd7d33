"""Replies that are made while they are sent: framing, back-pressure, and every kind of end."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from daemon_process import wait_until
from front_harness import PATIENCE_S, Daemon, ToyHandler, Wire, post

from pman.errors import PmanError
from pman.http.deferred import Deferred
from pman.http.message import Request, Response


class ToyBody:
    """A body that a test writes: `say` adds a piece, `end` ends it, an exception breaks it."""

    may_end_anywhere = True

    def __init__(self, *pieces: bytes, poll_s: float | None = None, endless: bytes = b"") -> None:
        self.poll_s = poll_s
        self.reads = 0
        self.closes = 0
        self.closed = threading.Event()
        self._pieces: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
        self._endless = endless
        self._tell: Callable[[], None] = lambda: None
        for piece in pieces:
            self._pieces.put(piece)

    def say(self, *pieces: bytes | Exception | None, is_news: bool = True) -> None:
        for piece in pieces:
            self._pieces.put(piece)
        if is_news:
            self._tell()

    def read(self) -> bytes | None:
        self.reads += 1
        if self._endless:
            return self._endless
        try:
            piece = self._pieces.get_nowait()
        except queue.Empty:
            return b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def on_news(self, callback: Callable[[], None]) -> None:
        self._tell = callback

    def close(self) -> None:
        self.closes += 1
        self.closed.set()


class StreamHandler(ToyHandler):
    """As the toy, and `/stream` is answered with the next of `bodies`, by a listener."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: queue.SimpleQueue[ToyBody] = queue.SimpleQueue()
        self.begin = b""

    def handle(self, request: Request) -> Response | Deferred:
        if not request.target.startswith(("/stream", "/quickstream")):
            return super().handle(request)
        body = self.bodies.get_nowait()
        headers = (("Pman-Offset", "7"),)
        return Response(200, self.begin, "text/plain", headers, body)

    def handle_quick(self, request: Request) -> Response | None:
        return None if request.target.startswith("/stream") else super().handle_quick(request)

    def give(self, *pieces: bytes, **more: Any) -> ToyBody:
        body = ToyBody(*pieces, **more)
        self.bodies.put(body)
        return body


GET = b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def handler() -> StreamHandler:
    return StreamHandler()


@pytest.fixture
def daemon(handler: StreamHandler) -> Iterator[Daemon]:
    with Daemon(handler) as made:
        yield made


def is_closed_once(body: ToyBody) -> bool:
    return body.closed.wait(PATIENCE_S) and body.closes == 1


def test_chunks_and_what_comes_behind(daemon: Daemon, handler: StreamHandler) -> None:
    body = handler.give(b"one", b"two" * 100_000)
    handler.begin = b"zero"
    with daemon.connect() as wire:
        wire.send(GET + post(b"behind"))
        reply = wire.reply()
        assert reply.names[0] == "Transfer-Encoding"
        assert reply.headers["transfer-encoding"] == "chunked"
        assert reply.headers["content-type"] == "text/plain"
        assert reply.headers["pman-offset"] == "7"
        assert "content-length" not in reply.headers
        assert "connection" not in reply.headers
        chunks = wire.chunks()
        assert [next(chunks) for _ in range(3)] == [b"zero", b"one", b"two" * 100_000]
        assert not handler.handled, "it waits for the stream"
        body.say(b"three", None)
        assert list(chunks) == [b"three"]
        assert wire.reply().body == b"6:behind"
        wire.send(post(b"more"))
        assert wire.reply().body == b"4:more"
        assert is_closed_once(body)


@pytest.mark.parametrize("target", [b"/stream", b"/quickstream"])
def test_streams_one_behind_the_other(
    daemon: Daemon, handler: StreamHandler, target: bytes
) -> None:
    first, second = handler.give(b"a"), handler.give(b"b")
    with daemon.connect() as wire:
        wire.send(2 * GET.replace(b"/stream", target) + post(b"last"))
        first.say(None)
        second.say(None)
        for text in (b"a", b"b"):
            assert wire.reply().status == 200
            assert b"".join(wire.chunks()) == text
        assert wire.reply().body == b"4:last"
        assert is_closed_once(first)
        assert is_closed_once(second)


def test_a_stream_behind_other_replies(daemon: Daemon, handler: StreamHandler) -> None:
    handler.give(b"s").say(None)
    with daemon.connect() as wire:
        wire.send(post(b"before") + post(b"x", "/listener") + GET)
        assert wire.reply().body == b"6:before"
        assert wire.reply().body == b"1:x"
        assert wire.reply().status == 200
        assert list(wire.chunks()) == [b"s"]


def test_the_clock_asks_again(daemon: Daemon, handler: StreamHandler) -> None:
    body = handler.give(poll_s=0.02)
    with daemon.connect() as wire:
        wire.send(GET)
        wire.reply()
        wait_until(lambda: body.reads > 2, "reads by the clock")
        body.say(b"x", None, is_news=False)
        assert list(wire.chunks()) == [b"x"]


def test_http_1_0_ends_with_the_connection(daemon: Daemon, handler: StreamHandler) -> None:
    body = handler.give(b"one", b"two")
    with daemon.connect() as wire:
        wire.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + post(b"lost"))
        reply = wire.reply()
        assert reply.headers["connection"] == "close"
        assert "transfer-encoding" not in reply.headers
        body.say(None)
        assert wire.rest() == b"onetwo"
        assert is_closed_once(body)


def test_connection_close(daemon: Daemon, handler: StreamHandler) -> None:
    handler.give(b"one").say(None)
    with daemon.connect() as wire:
        wire.send(b"GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert wire.reply().headers["connection"] == "close"
        assert list(wire.chunks()) == [b"one"]
        assert wire.is_closed()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_head_reads_nothing(daemon: Daemon, handler: StreamHandler, version: str) -> None:
    body = handler.give(b"one")
    with daemon.connect() as wire:
        wire.send(f"HEAD /stream HTTP/{version}\r\nHost: h\r\n\r\n".encode())
        assert wire.reply(has_body=False).status == 200
        assert is_closed_once(body)
        assert body.reads == 0
        if version == "1.1":
            wire.send(post(b"next"))
            assert wire.reply().body == b"4:next"
        else:
            assert wire.is_closed()


def test_a_client_that_does_not_read(handler: StreamHandler) -> None:
    piece = b"z" * 100_000
    with Daemon(handler, idle_timeout_s=0.5) as daemon:
        body = handler.give(endless=piece)
        with daemon.connect() as wire:
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.send(GET)
            assert is_closed_once(body), "it is dropped after the idle timeout"
            # What libzmq queues, and what the system takes on both sides.
            assert body.reads * len(piece) < 16 * 1024 * 1024
            daemon.hello()


def test_a_client_that_reads_late(daemon: Daemon, handler: StreamHandler) -> None:
    pieces = [b"%03d" % n * 40_000 for n in range(200)]
    body = handler.give(*pieces)
    body.say(None)
    with daemon.connect() as wire:
        wire.send(GET + post(b"behind"))
        wait_until(lambda: daemon.front._clients._stalled, "a client that takes no more")
        daemon.hello()
        assert body.reads < len(pieces)
        wire.reply()
        assert list(wire.chunks()) == pieces
        assert wire.reply().body == b"6:behind"


def test_a_parked_stream_outlives_the_idle_timeout(handler: StreamHandler) -> None:
    with Daemon(handler, idle_timeout_s=0.1, header_timeout_s=0.1) as daemon:
        body = handler.give(b"one")
        with daemon.connect() as wire, daemon.connect() as idle:
            wire.send(GET)
            wire.reply()
            chunks = wire.chunks()
            assert next(chunks) == b"one"
            assert idle.is_closed(), "it was opened later and has waited too long"
            body.say(b"two", None)
            assert next(chunks) == b"two"
            assert list(chunks) == []
            assert wire.is_closed(), "now it is idle"


def test_a_client_that_goes(daemon: Daemon, handler: StreamHandler) -> None:
    body = handler.give(b"one")
    with daemon.connect() as wire:
        wire.send(GET + post(b"behind", "/listener"))
        wire.reply()
        assert next(wire.chunks()) == b"one"
    assert is_closed_once(body)
    assert handler.handled_count.acquire(timeout=PATIENCE_S), "what it asked for is carried out"


def test_a_client_that_goes_before_the_stream_begins(
    daemon: Daemon, handler: StreamHandler
) -> None:
    body = ToyBody(b"one")
    with daemon.connect() as wire:
        wire.send(post(b"", "/later"))
        assert handler.deferred_made.acquire(timeout=PATIENCE_S)
    with daemon.connect() as wire:
        # The one that has gone is announced before what comes later.
        wire.send(post(b"x", "/listener"))
        wire.reply()
    handler.deferred[0].resolve(Response(200, b"", stream=body))
    assert is_closed_once(body)
    assert body.reads == 0


@pytest.mark.parametrize("error", [PmanError("gone"), ValueError("toy")])
def test_an_error_cuts(
    daemon: Daemon,
    handler: StreamHandler,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = handler.give(b"one")
    with daemon.connect() as wire:
        wire.send(GET + post(b"behind"))
        wire.reply()
        assert next(wire.chunks()) == b"one"
        body.say(error)
        assert wire.rest() == b"", "no last chunk, and nothing behind it"
    assert is_closed_once(body)
    assert "a reply was cut off" in caplog.text
    daemon.hello()


def test_an_error_resets_http_1_0(daemon: Daemon, handler: StreamHandler) -> None:
    body = handler.give(b"one")
    with daemon.connect() as wire:
        wire.send(b"GET /stream HTTP/1.0\r\n\r\n")
        wire.reply()
        wait_until(lambda: wire.unread or wire._read() or wire.unread, "the first piece")
        assert wire.unread == b"one"
        body.say(ValueError("toy"))
        with pytest.raises(ConnectionResetError):
            wire.sock.recv(1)


def test_shutdown_ends_streams(handler: StreamHandler) -> None:
    bodies = [handler.give(b"one") for _ in range(2)]
    with Daemon(handler) as daemon:
        wires = [daemon.connect() for _ in range(2)]
        for version, wire in zip((b"1.1", b"1.0"), wires, strict=True):
            wire.send(GET.replace(b"1.1", version))
            wire.reply()
        chunks = wires[0].chunks()
        assert next(chunks) == b"one"
        wait_until(lambda: wires[1].unread or wires[1]._read() or wires[1].unread, "a piece")
        daemon.front.request_stop()
        assert list(chunks) == []
        assert wires[0].is_closed()
        assert wires[1].rest() == b"one"
        for wire in wires:
            wire.sock.close()
        assert all(map(is_closed_once, bodies))


def test_shutdown_cuts_streams_that_would_seem_complete(handler: StreamHandler) -> None:
    bodies = [handler.give(b"one") for _ in range(2)]
    for body in bodies:
        body.may_end_anywhere = False
    with Daemon(handler) as daemon:
        wires = [daemon.connect() for _ in range(2)]
        for version, wire in zip((b"1.1", b"1.0"), wires, strict=True):
            wire.send(GET.replace(b"1.1", version))
            wire.reply()
        assert next(wires[0].chunks()) == b"one"
        wait_until(lambda: wires[1].unread or wires[1]._read() or wires[1].unread, "a piece")
        daemon.front.request_stop()
        assert wires[0].rest() == b"", "no last chunk"
        with pytest.raises(ConnectionResetError):
            wires[1].sock.recv(1)
        for wire in wires:
            wire.sock.close()
        assert all(map(is_closed_once, bodies))


def test_a_stream_that_begins_at_shutdown_is_cut(handler: StreamHandler) -> None:
    body = ToyBody(b"one")
    body.may_end_anywhere = False
    with Daemon(handler) as daemon, daemon.connect() as wire:
        wire.send(post(b"", "/later"))
        assert handler.deferred_made.acquire(timeout=PATIENCE_S)
        daemon.front.request_stop()
        wait_until(lambda: daemon.front._clients.is_draining, "the stop")
        handler.deferred[0].resolve(Response(200, b"begin", stream=body))
        wire.reply()
        assert wire.rest() == b"5\r\nbegin\r\n"
    assert is_closed_once(body)


def test_a_stream_that_begins_at_shutdown(handler: StreamHandler) -> None:
    body = ToyBody(b"one")
    with Daemon(handler) as daemon, daemon.connect() as wire:
        wire.send(post(b"", "/later"))
        assert handler.deferred_made.acquire(timeout=PATIENCE_S)
        daemon.front.request_stop()
        wait_until(lambda: daemon.front._clients.is_draining, "the stop")
        handler.deferred[0].resolve(Response(200, b"begin", stream=body))
        assert wire.reply().headers["connection"] == "close"
        assert list(wire.chunks()) == [b"begin"]
        assert wire.is_closed()
    assert is_closed_once(body)


def test_a_stream_that_comes_too_late(handler: StreamHandler) -> None:
    body = ToyBody(b"one")
    with Daemon(handler) as daemon, daemon.connect() as wire:
        wire.send(post(b"", "/later"))
        assert handler.deferred_made.acquire(timeout=PATIENCE_S)
    handler.deferred[0].resolve(Response(200, b"", stream=body))
    assert is_closed_once(body)


def test_many_streams(daemon: Daemon, handler: StreamHandler) -> None:
    count = 200
    threads = threading.active_count()
    bodies = [handler.give() for _ in range(count)]
    wires: list[Wire] = []
    for _ in range(count):
        wire = daemon.connect()
        wires.append(wire)
        wire.send(GET)
        wire.reply()
    assert threading.active_count() == threads
    for n, body in enumerate(bodies):
        body.say(b"%d" % n, None)
    assert [b"".join(wire.chunks()) for wire in wires] == [b"%d" % n for n in range(count)]
    for wire in wires:
        wire.sock.close()


def test_peers_get_no_streams(handler: StreamHandler) -> None:
    body = handler.give(b"one")

    class PeerHandler(StreamHandler):
        def handle(self, request: Request) -> Response:
            return Response(200, b"", stream=body)

        def reject(self, error: PmanError, raw: bytes) -> Response:
            return Response(error.hint, json.dumps([error.hint, error.kind]).encode())

    with Daemon(PeerHandler(), rawmode=False) as daemon:
        peer = daemon.context.socket(zmq.REQ)
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(daemon.front.endpoint)
        peer.send(b"{}")
        assert peer.poll(PATIENCE_S * 1000)
        assert json.loads(peer.recv()) == [501, "NotSupported"]
        peer.close()
        assert is_closed_once(body)
        assert body.reads == 0
