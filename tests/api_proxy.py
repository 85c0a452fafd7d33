"""A proxy in front of the API server that tests can look into, cut, hold and heal.

Clients speak plain HTTP to it, without a token, so that their requests can be read and answered
otherwise; the API server is spoken to as the kubeconfig says. Answers are passed on as they come.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import json
import re
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

#: How long the API server may take to be connected to, and to take what is sent, seconds.
TIMEOUT_S = 30.0
CHUNK_BYTES = 65536

#: In a request's head.
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
_VERSION = re.compile(rb"resourceVersion=\d+")
_WATCH = re.compile(r"[?&]watch=(?:true|1)", re.IGNORECASE)


class ApiRequest(msgspec.Struct):
    """One request of the client.

    Attributes:
        target: Path and query.
        body: Its JSON, or None.
        raw: What the API server gets.
        is_aged: Whether its version was replaced, see `ApiProxy.age_watches`.
    """

    method: str
    target: str
    body: Any
    raw: bytes
    is_aged: bool = False

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def is_watch(self) -> bool:
        return _WATCH.search(self.target) is not None


class Fate(enum.Enum):
    """What becomes of a request that is carried out."""

    CHANGED = "changed"  #: as ever, but `raw` is another
    LOST = "lost"  #: the connection ends before the answer
    SILENT = "silent"  #: the answer never comes


#: Says what becomes of a request. Bytes: it is not carried out, that is the answer. None: nothing.
Fault = Callable[[ApiRequest], Fate | bytes | None]


class ApiProxy:
    """The proxy, listening from the beginning on.

    Attributes:
        kubeconfig: File that leads to it.
        requests: All that came, oldest first.
    """

    def __init__(self, folder: Path) -> None:
        config = _kubeconfig()
        cluster = config["clusters"][0]["cluster"]
        self._server = urlsplit(cluster["server"])
        user = config["users"][0]["user"]
        self._tls = _tls_of(cluster, user)
        token = user.pop("token", "")
        self._authorization = (
            f"\r\nAuthorization: Bearer {token}\r\n".encode() if token else b"\r\n"
        )
        self.requests: list[ApiRequest] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._passing = threading.Event()
        self._passing.set()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._port = 0
        self._listen()
        cluster["server"] = f"http://127.0.0.1:{self._port}"
        for key in ("certificate-authority-data", "insecure-skip-tls-verify"):
            cluster.pop(key, None)
        self.kubeconfig = folder / "proxied.kubeconfig"
        self.kubeconfig.write_text(json.dumps(config))

    # --- what a test does to it -----------------------------------------------------------

    def cut(self) -> None:
        """Be away: connections end, and nobody listens any more."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut_connections()

    def cut_connections(self) -> None:
        """End all connections; new ones are taken."""
        with self._lock:
            ended = list(self._open)
        for end in ended:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Hang: connections stay open and new ones are made, and nothing passes."""
        self._passing.clear()

    def heal(self) -> None:
        """Be as in the beginning: back at the same port, nothing held."""
        self._passing.set()
        if self._listener is None:
            self._listen()

    def age_watches(self, count: int) -> None:
        """Make the next watches ask for what happened after a version that is long gone."""

        def fault(request: ApiRequest) -> Fate | bytes | None:
            if not request.is_watch():
                return None
            request.raw, changes = _VERSION.subn(b"resourceVersion=1", request.raw, count=1)
            request.is_aged = changes > 0
            return Fate.CHANGED if changes else None

        self._add(fault, count)

    def lose_answers(self, method: str, path: str, count: int = 1) -> None:
        """Carry out the next requests that match, and end their connection before an answer."""
        self._add(lambda r: Fate.LOST if _matches(r, method, path) else None, count)

    def hold_answers(self, method: str, path: str) -> None:
        """Carry out the next request that matches, and never answer; the connection stays."""
        self._add(lambda r: Fate.SILENT if _matches(r, method, path) else None, 1)

    def refuse(
        self, method: str, path: str, code: int, count: int = 1, *, with_watches: bool = True
    ) -> None:
        """Answer the next requests that match with an error of the API server."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        body = json.dumps({**status, "message": "refused by the proxy"})
        lines = [f"HTTP/1.1 {code} X", "Content-Type: application/json"]
        answer = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()

        def fault(request: ApiRequest) -> bytes | None:
            is_meant = with_watches or not request.is_watch()
            return answer if is_meant and _matches(request, method, path) else None

        self._add(fault, count)

    def sent(self, method: str, path: str) -> list[ApiRequest]:
        """Return the requests so far that match."""
        return [request for request in list(self.requests) if _matches(request, method, path)]

    def forget(self) -> None:
        """Let all that was asked for pass again, and forget what came."""
        with self._lock:
            self._faults.clear()
        self.forget_requests()

    def forget_requests(self) -> None:
        with self._lock:
            self.requests.clear()

    def close(self) -> None:
        self.cut()
        self._passing.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    # --- threads --------------------------------------------------------------------------

    def _add(self, fault: Fault, count: int) -> None:
        left = count

        def counted(request: ApiRequest) -> Fate | bytes | None:
            nonlocal left
            done = fault(request) if left else None
            left -= done is not None
            return done

        self._faults.append(counted)

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was shut down
            while True:
                client, _ = listener.accept()
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), self._connect() as server:
            with self._lock:
                self._open |= {client, server}
                is_away = self._listener is None
            try:
                if not is_away:
                    self._pump(client, server)
            finally:
                with self._lock:
                    self._open -= {client, server}

    def _connect(self) -> socket.socket:
        host, port = self._server.hostname or "", self._server.port or 443
        plain = socket.create_connection((host, port), TIMEOUT_S)
        return self._tls.wrap_socket(plain, server_hostname=host) if self._tls else plain

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        requests = _RequestReader()
        fate: Fate | bytes | None = None
        while True:
            pending = isinstance(server, ssl.SSLSocket) and server.pending()
            ready = [server] if pending else select.select([client, server], [], [])[0]
            self._passing.wait()
            if client in ready:
                raw = client.recv(CHUNK_BYTES)
                if not raw:
                    return
                for request in requests.feed(raw):
                    fate = self._look(request)
                    if isinstance(fate, bytes):
                        client.sendall(fate)
                        continue
                    server.settimeout(TIMEOUT_S)
                    server.sendall(request.raw)
            if server in ready:
                raw = _read_now(server)
                if raw == b"" or (raw and fate is Fate.LOST):
                    return
                if fate is not Fate.SILENT:
                    client.sendall(raw or b"")

    def _look(self, request: ApiRequest) -> Fate | bytes | None:
        request.raw = request.raw.replace(b"\r\n", self._authorization, 1)
        with self._lock:
            self.requests.append(request)
            found = (fault(request) for fault in self._faults)
            return next((done for done in found if done is not None), None)


class _RequestReader:
    """Cuts what a client sends into whole requests."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, raw: bytes) -> Iterator[ApiRequest]:
        self._buffer += raw
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            if len(rest) < size:
                return
            self._buffer = rest[size:]
            method, target = head.decode("latin-1").split(" ")[:2]
            body = rest[:size]
            yield ApiRequest(method, target, _json(body), head + b"\r\n\r\n" + body)


def _json(body: bytes) -> Any:
    return json.loads(body) if body.startswith((b"{", b"[")) else None


def _matches(request: ApiRequest, method: str, path: str) -> bool:
    return request.method == method and re.search(path, request.path) is not None


def _read_now(server: socket.socket) -> bytes | None:
    """Return what is there, b"" at the end, None when it was nothing but TLS's own."""
    server.settimeout(0)
    try:
        return server.recv(CHUNK_BYTES)
    except (ssl.SSLWantReadError, BlockingIOError):
        return None


def _kubeconfig() -> dict[str, Any]:
    words = ("kubectl", "config", "view", "--raw", "--minify", "--flatten", "-o", "json")
    found: dict[str, Any] = json.loads(
        subprocess.run(words, capture_output=True, check=True).stdout
    )
    return found


def _tls_of(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext | None:
    """Return how the API server is spoken to; None: in plain."""
    if not cluster["server"].startswith("https:"):
        return None
    assert "client-certificate-data" not in user, "the proxy passes on tokens, not certificates"
    context = ssl.create_default_context()
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif "certificate-authority-data" in cluster:
        context.load_verify_locations(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
    return context
