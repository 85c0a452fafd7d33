"""A receiver of callbacks on 127.0.0.1 that does what a test tells it to; and how to check one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec


class Delivery(msgspec.Struct):
    """One request that came in, and the code that it was answered with (0: none)."""

    path: str
    headers: dict[str, str]
    body: bytes
    code: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data


class Receiver:
    """Answers POSTs with what `answer` says; keeps its port while it is down.

    Attributes:
        answer: Takes the path, gives the code; 0 holds the request until the receiver is closed.
        got: What came in, in order.
        certificate: File with certificate and key; None: HTTP without TLS. Counts from `open` on.
    """

    def __init__(self, port: int = 0, certificate: Path | None = None) -> None:
        self.answer: Callable[[str], int] = lambda path: 200
        self.got: list[Delivery] = []
        self.port = port
        self.certificate = certificate
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None
        self.open()

    def open(self) -> None:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *args: object) -> None:
                pass

        self._closing.clear()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if self.certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self.certificate)
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def take(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        code = self.answer(request.path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            self.got.append(Delivery(request.path, headers, body, code))
        if code == 0:
            self._closing.wait()
            return
        request.send_response(code)
        if 300 <= code < 400:
            request.send_header("Location", f"http://127.0.0.1:{self.port}/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._closing.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://{host}:{self.port}{path}"

    def taken(self) -> list[Delivery]:
        """Return what was answered with success."""
        with self._lock:
            return [each for each in self.got if 200 <= each.code < 300]


def is_ours(delivery: Delivery, secret: str) -> bool:
    """Check the signature as the specification of Standard Webhooks tells receivers to."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join(
        (delivery.id.encode(), delivery.headers["webhook-timestamp"].encode(), delivery.body)
    )
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    words = delivery.headers["webhook-signature"].split(" ")
    return any(hmac.compare_digest(word, f"v1,{expected}") for word in words)
