"""`Daemon`: a front and its listeners with a toy handler, in this process; `Wire`: a raw client."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import zmq

from pman.config import Settings
from pman.errors import PmanError
from pman.http.deferred import Deferred
from pman.http.message import Request, Response
from pman.services.front import Front
from pman.services.listener import Listener
from pman.services.pump import Pump

#: Far more than anything here takes, so that only a hang reaches it, seconds.
PATIENCE_S = 20.0


class ToyHandler:
    """Answers by target.

    `/slow` waits for `release`, `/later` for `resolve_later()`, `/big<n>` has n bytes, `/raise`
    breaks the promise not to raise; everything else is echoed.
    """

    def __init__(self) -> None:
        self.release = threading.Event()
        self.slow_running = threading.Semaphore(0)
        self.deferred: list[Deferred] = []
        self.deferred_made = threading.Semaphore(0)
        self.handled: list[Request] = []
        self.handled_count = threading.Semaphore(0)

    def handle(self, request: Request) -> Response | Deferred:
        self.handled.append(request)
        self.handled_count.release()
        if request.target == "/slow":
            self.slow_running.release()
            assert self.release.wait(PATIENCE_S)
        if request.target == "/raise":
            raise ValueError("toy")
        if request.target == "/later":
            self.deferred.append(Deferred())
            self.deferred_made.release()
            return self.deferred[-1]
        if request.target.startswith("/big"):
            return Response(status=200, body=b"z" * int(request.target[4:]))
        return Response(status=200, body=b"%d:%b" % (len(request.body), request.body[:100]))

    def handle_quick(self, request: Request) -> Response | None:
        if request.target.startswith(("/slow", "/raise", "/later", "/listener")):
            return None
        response = self.handle(request)
        assert isinstance(response, Response)
        return response

    def reject(self, error: PmanError, raw: bytes) -> Response:
        return Response(status=error.hint, body=error.message.encode())


class Daemon:
    """Front and listeners; a context manager that stops them."""

    def __init__(self, handler: Any = None, **settings: Any) -> None:
        settings.setdefault("db_path", Path("/nonexistent"))
        settings.setdefault("port", 0)
        self.settings = Settings(**settings)
        self.handler = handler or ToyHandler()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.pump = Pump()
        self.front = Front(self.context, self.settings, self.handler, self.pump)
        self.listeners: list[Listener] = []

    def __enter__(self) -> Self:
        self.pump.start()
        try:
            self.front.start()
            self.front.wait_ready()
        except BaseException:
            self.front.join(time.monotonic() + PATIENCE_S)
            self.pump.request_stop()
            self.context.term()
            raise
        for index in range(self.settings.listeners):
            listener = Listener(
                self.context,
                index,
                self.handler,
                self.front.exchange,
                self.front.listener_endpoint,
            )
            listener.start()
            listener.wait_ready()
            self.listeners.append(listener)
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self.handler, ToyHandler):
            self.handler.release.set()
        for service in (self.front, *self.listeners, self.pump):
            service.request_stop()
            assert service.join(time.monotonic() + PATIENCE_S), service.name
            assert service.failure is None, service.failure
        self.context.term()

    def connect(self) -> Wire:
        if self.front.endpoint.startswith("ipc://"):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.front.endpoint[6:])
        else:
            sock = socket.create_connection(("127.0.0.1", self.front.port))
        return Wire(sock)

    def ask(self, raw: bytes) -> Reply:
        with self.connect() as wire:
            wire.send(raw)
            return wire.reply()

    def hello(self) -> None:
        """Check that somebody answers."""
        assert self.ask(post(b"hello")).body == b"5:hello"


class Reply:
    """Status, headers (lower-case names) and body."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.version, status, self.phrase = first.split(" ", 2)
        self.status = int(status)
        self.names = [line.split(": ", 1)[0] for line in lines]
        self.headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }
        self.body = b""


class Wire:
    """One connection, byte by byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE_S)
        if sock.family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, raw: bytes) -> None:
        self.sock.sendall(raw)

    def reply(self, *, has_body: bool = True) -> Reply:
        while b"\r\n\r\n" not in self.unread:
            self._read()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        reply = Reply(head)
        length = int(reply.headers.get("content-length", "0")) if has_body else 0
        pieces = [self.unread]
        missing = length - len(self.unread)
        while missing > 0:
            piece = self.sock.recv(1 << 20)
            assert piece, "the connection was closed inside a reply"
            pieces.append(piece)
            missing -= len(piece)
        everything = b"".join(pieces)
        reply.body, self.unread = everything[:length], everything[length:]
        return reply

    def chunks(self) -> Iterator[bytes]:
        """Give the chunks of a body until the last one."""
        while True:
            while b"\r\n" not in self.unread:
                self._read()
            size, _, self.unread = self.unread.partition(b"\r\n")
            length = int(size, 16)
            while len(self.unread) < length + 2:
                self._read()
            piece, end = self.unread[:length], self.unread[length : length + 2]
            self.unread = self.unread[length + 2 :]
            assert end == b"\r\n"
            if not length:
                return
            yield piece

    def rest(self) -> bytes:
        """Return all that comes until the end of the connection."""
        with contextlib.suppress(ConnectionError):
            while True:
                self._read()
        rest, self.unread = self.unread, b""
        return rest

    def is_closed(self) -> bool:
        """Wait for the end of the connection; False if anything else comes."""
        if self.unread:
            return False
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _read(self) -> None:
        piece = self.sock.recv(65536)
        if not piece:
            raise ConnectionError(f"closed after {self.unread!r}")
        self.unread += piece


def post(body: bytes, target: str = "/api/v1/cmd", *headers: str) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, size: int) -> bytes:
    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
        yield b"0\r\n\r\n"

    return b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks())
