"""One try to deliver a callback over HTTP; knows nothing of letters, retries and jobs."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pman import __version__
from pman.job.callback import Target

#: How long the receiver may do nothing, and how long a try may take in all, seconds.
SILENCE_S, TRY_S = 10.0, 20.0

TOO_LONG = "no answer in time"


class Undelivered(Exception):
    """The letter was not sent, or not answered."""


class Errand:
    """One try, which another thread may cut short."""

    def __init__(self, target: Target, try_s: float = TRY_S) -> None:
        """Prepare.

        Args:
            try_s: How long it may take in all, from now on.
        """
        self._target = target
        self._deadline = time.monotonic() + try_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cut = False

    def post(self, headers: Mapping[str, str], body: bytes) -> int:
        """Send a POST; return the status code of the answer, whose body is not read.

        Redirects are not followed and no proxy is used: nothing is reached but the target.

        Raises:
            Undelivered: There was no answer; says why.
        """
        target = self._target
        connection = http.client.HTTPConnection(target.host, target.port)
        try:
            connection.sock = self._connect()
            connection.request(
                "POST",
                target.path,
                body,
                {
                    "Host": target.authority,
                    "Content-Type": "application/json",
                    "User-Agent": f"pman/{__version__}",
                    "Connection": "close",
                    **headers,
                },
            )
            return connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as exc:
            # What a cut does to a socket looks like the receiver's doing.
            raise Undelivered(TOO_LONG if self._is_cut else _why(exc)) from exc
        finally:
            with self._lock:
                self._socket = None
            connection.close()

    def cut(self) -> None:
        """End the try now; from any thread, any number of times."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it has ended by itself
                    # not the method of a TLS socket, which is for the thread that reads
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _connect(self) -> socket.socket:
        plain = self._connect_plainly()
        if not self._target.is_secure:
            return plain
        try:
            secure = _tls().wrap_socket(
                plain, server_hostname=self._target.host, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        try:
            self._begin(secure)
            secure.do_handshake()
        except BaseException:
            secure.close()
            raise
        return secure

    def _connect_plainly(self) -> socket.socket:
        """Connect to the first of the receiver's addresses that answers.

        As `socket.create_connection`, which gives its timeout to each of any number of addresses,
        and has no socket to cut meanwhile.
        """
        target = self._target
        problem: OSError | None = None
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            try:
                return self._connect_to(socket.socket(family, kind, protocol), address)
            except OSError as exc:
                problem = exc
                if self._is_cut:
                    break
        raise problem or OSError("its name has no address")

    def _connect_to(self, plain: socket.socket, address: Any) -> socket.socket:
        try:
            patience_s = self._patience_s()
            plain.setblocking(False)
            # A cut that comes before the connect has begun would find nothing to end.
            self._begin(plain, lambda: plain.connect_ex(address))
            _wait_connected(plain, patience_s)
            plain.settimeout(SILENCE_S)
        except BaseException:
            with self._lock:
                self._socket = None
            plain.close()
            raise
        return plain

    def _begin(self, using: socket.socket, begin: Callable[[], object] = bool) -> None:
        """Have a cut end what is done with a socket from `begin` on, which does not wait.

        Raises:
            TimeoutError: The cut has come already.
        """
        with self._lock:
            if self._is_cut:
                raise TimeoutError
            self._socket = using
            begin()

    def _patience_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return min(SILENCE_S, left_s)


def _wait_connected(sock: socket.socket, patience_s: float) -> None:
    """Wait for a connect that has begun.

    Raises:
        OSError: It has failed, or takes too long.
    Source: connect(2), EINPROGRESS.
    """
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(patience_s * 1000):
        raise TimeoutError
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _why(exc: Exception) -> str:
    """Say in a few words what went wrong, without what the receiver has sent."""
    if isinstance(exc, TimeoutError):
        return TOO_LONG
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {exc.verify_message}"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return f"no valid answer ({type(exc).__name__})"
