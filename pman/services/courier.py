"""One try to deliver a callback over HTTP; knows nothing of letters, retries and jobs."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping

from pman import __version__
from pman.job.callback import Target

#: How long the receiver may do nothing, and how long a try may take in all, seconds.
SILENCE_S, TRY_S = 10.0, 20.0


class Undelivered(Exception):
    """The letter was not sent, or not answered."""


class Errand:
    """One try, which another thread may cut short."""

    def __init__(self, target: Target) -> None:
        self._target = target
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
            raise Undelivered(_why(exc)) from exc
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
        target = self._target
        plain = socket.create_connection((target.host, target.port), SILENCE_S)
        try:
            with self._lock:
                if self._is_cut:
                    raise TimeoutError("it took too long")
                self._socket = plain
            if not target.is_secure:
                return plain
            secure = _tls().wrap_socket(
                plain, server_hostname=target.host, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        with self._lock:
            self._socket = secure
        try:
            secure.do_handshake()
        except BaseException:
            secure.close()
            raise
        return secure


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _why(exc: Exception) -> str:
    """Say in a few words what went wrong, without what the receiver has sent."""
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {exc.verify_message}"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return f"no valid answer ({type(exc).__name__})"
