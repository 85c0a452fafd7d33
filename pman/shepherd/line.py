"""One connection of the daemon to one shepherd."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zmq

from pman.errors import BackendUnavailable
from pman.shepherd.launch import launch
from pman.shepherd.place import Place
from pman.shepherd.protocol import Command, Event, Hello, Welcome, decode_event, encode

_log = logging.getLogger(__name__)

#: How long a shepherd may take to answer `Hello` before another one is started, seconds. One that
#: is about to end keeps its lock for a moment, and does not answer.
HELLO_TIMEOUT_S = 2.0
#: How long that is tried, seconds.
OPEN_TIMEOUT_S = 10.0
#: Between two looks whether a shepherd that has begun to start has a socket, seconds.
LOOK_S = 0.05
#: How long what was sent may take to leave after the end, milliseconds.
LINGER_MS = 1000


class Line:
    """A shepherd that has answered.

    Attributes:
        welcome: What it said first.
        socket: Readable when it says more.
        pidfd: Readable once it has ended.
        is_ended: It has; what it did not take must not reach the next one, which binds the same
            path and is told anew.
    """

    def __init__(self, place: Place, socket: zmq.Socket[bytes], welcome: Welcome) -> None:
        """Take over a socket.

        Raises:
            ProcessLookupError: The shepherd has ended.
        """
        self.pidfd = os.pidfd_open(welcome.pid)
        self.name = f"process {welcome.pid} in {place.state_path}"
        self.socket = socket
        self.welcome = welcome
        self.is_ended = False

    @classmethod
    def open(
        cls,
        context: zmq.Context[zmq.Socket[bytes]],
        place: Place,
        hello: Hello,
        closing: threading.Event,
    ) -> Line | None:
        """Find or start the shepherd of a place, and greet it.

        Returns:
            None when `closing` was set meanwhile.
        Raises:
            BackendUnavailable: There is none to be had, or it is not safe to talk to.
        """
        place.prepare()
        deadline = time.monotonic() + OPEN_TIMEOUT_S
        while time.monotonic() < deadline and not closing.is_set():
            launch(place)
            path = place.read_socket()
            if path is None:
                closing.wait(LOOK_S)  # it has the lock, and has not come that far
                continue
            socket = _connected(context, path)
            socket.send(encode(hello))
            if socket.poll(int(HELLO_TIMEOUT_S * 1000)):
                try:
                    return cls(place, socket, _welcome(socket.recv()))
                except ProcessLookupError:
                    _log.warning("the shepherd in %s ended as it was greeted", place.state_path)
                except BackendUnavailable:
                    socket.close(0)
                    raise
            socket.close(0)
        if closing.is_set():
            return None
        raise BackendUnavailable(
            f"the shepherd in {str(place.state_path)!r} does not answer; see its shepherd.log"
        )

    def send(self, command: Command) -> None:
        """Send a command; never blocks."""
        self.socket.send(encode(command))

    def events(self) -> Iterator[Event]:
        """Give what it has said; what is no message is logged."""
        while True:
            try:
                raw = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                yield decode_event(raw)
            except msgspec.MsgspecError as exc:
                _log.error("a message of the shepherd was ignored: %s", exc)

    def close(self) -> None:
        """Hang up; the shepherd lives on."""
        os.close(self.pidfd)
        self.socket.close(0 if self.is_ended else LINGER_MS)


def _connected(context: zmq.Context[zmq.Socket[bytes]], path: Path) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.connect(f"ipc://{path}")
    return socket


def _welcome(raw: bytes) -> Welcome:
    """Decode the answer to `Hello`, of whatever version.

    Raises:
        BackendUnavailable: It is none.
    """
    try:
        event = decode_event(raw)
    except msgspec.MsgspecError as exc:
        raise BackendUnavailable(f"the shepherd says what is no message: {exc}") from exc
    if not isinstance(event, Welcome):
        raise BackendUnavailable(f"the shepherd answers hello with {type(event).__name__!r}")
    return event
