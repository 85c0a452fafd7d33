"""The daemon's end of the line: one thread that finds or starts the shepherd and speaks with it.

It knows messages, and nothing of what they mean to the daemon.
"""

from __future__ import annotations

import logging
import os
import site
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import zmq

from pman.errors import BackendUnavailable
from pman.shepherd.place import Place
from pman.shepherd.protocol import VERSION, Command, Event, Hello, Welcome, decode_event, encode

_log = logging.getLogger(__name__)

#: How long a shepherd may take to start, seconds; usually a tenth of one.
START_TIMEOUT_S = 20.0
#: How long it may take to answer `Hello` before another one is started, seconds. One that is about
#: to end keeps its lock for a moment, and does not answer.
HELLO_TIMEOUT_S = 2.0
#: How many times in a row that is tried.
HELLO_TRIES = 5
#: How long to wait before a shepherd that could not be started is tried again, seconds.
RETRY_S = 5.0
#: How long the thread may take to end, seconds.
CLOSE_TIMEOUT_S = 4.0


class Listener(Protocol):
    """Who is told what the shepherd says; always from the link's thread."""

    def on_welcome(self, welcome: Welcome) -> None:
        """Take what a shepherd knows; it is there to be talked to from now on."""

    def on_event(self, event: Event) -> None:
        """Take what has happened."""

    def on_failure(self, failure: BackendUnavailable) -> None:
        """Learn that no shepherd can be had for now; it is tried again later."""


class Link:
    """A line to the shepherd of one place, for as long as the daemon lives."""

    def __init__(self, place: Place, hello: Hello, listener: Listener) -> None:
        """Make a link that is not open.

        Args:
            place: Where the shepherd works.
            hello: What to greet it with.
            listener: Is told what it says.
        """
        self.failure: BackendUnavailable | None = None
        self._place = place
        self._hello = hello
        self._listener = listener
        self._posts: deque[Command | Callable[[], None]] = deque()
        self._posts_lock = threading.Lock()  # keeps posts off a descriptor that was closed
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_closing = False
        self._socket: zmq.Socket[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="shepherd-link", daemon=True)

    def open(self) -> None:
        """Begin to look for the shepherd; returns at once."""
        self._thread.start()

    def post(self, what: Command | Callable[[], None]) -> None:
        """Send a command, or call something in the link's thread, once there is a shepherd.

        What is posted is done in order. After `close` it does nothing.
        """
        with self._posts_lock:
            if not self._is_closing:
                self._posts.append(what)
                os.eventfd_write(self._wakeup, 1)

    def send(self, command: Command) -> None:
        """Send a command at once; only from the link's thread, when there is a shepherd."""
        assert self._socket is not None
        self._socket.send(encode(command))

    def close(self) -> None:
        """Send what was posted, if there is a shepherd, and hang up; the shepherd lives on."""
        with self._posts_lock:
            if self._is_closing:
                return
            self._is_closing = True
            os.eventfd_write(self._wakeup, 1)
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            os.close(self._wakeup)

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            while not self._is_closing:
                try:
                    welcome = self._connect(context)
                except BackendUnavailable as exc:
                    self._fail(exc)
                    continue
                if welcome is not None:
                    self._talk(welcome)
                self._hang_up()
        finally:
            self._hang_up()
            context.term()

    def _fail(self, exc: BackendUnavailable) -> None:
        """Tell that there is no shepherd, and wait until it is worth another try."""
        self._hang_up()
        if self.failure is None or self.failure.message != exc.message:
            _log.error("%s", exc)
        self.failure = exc
        self._listener.on_failure(exc)
        deadline = time.monotonic() + RETRY_S
        poller = zmq.Poller()
        poller.register(self._wakeup, zmq.POLLIN)
        while not self._is_closing and (left_s := deadline - time.monotonic()) > 0:
            poller.poll(int(left_s * 1000) + 1)
            self._clear_wakeup()

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> Welcome | None:
        """Find or start a shepherd and greet it; None when asked to close meanwhile.

        Raises:
            BackendUnavailable: There is none to be had.
        """
        self._place.prepare()
        for _ in range(HELLO_TRIES):
            if self._is_closing:
                return None
            _launch(self._place)
            path = self._place.read_socket()
            if path is None:
                continue  # another one holds the lock and has not come that far
            socket = self._socket = context.socket(zmq.DEALER)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.LINGER, 1000)
            socket.connect(f"ipc://{path}")
            socket.send(encode(self._hello))
            if socket.poll(int(HELLO_TIMEOUT_S * 1000)):
                return _welcome(socket.recv())
            socket.setsockopt(zmq.LINGER, 0)
            self._hang_up()
        raise BackendUnavailable(
            f"the shepherd in {str(self._place.state_path)!r} does not answer; see its shepherd.log"
        )

    def _talk(self, welcome: Welcome) -> None:
        """Pass messages to and fro, until the shepherd ends or `close`."""
        assert self._socket is not None
        try:
            pidfd = os.pidfd_open(welcome.pid)
        except ProcessLookupError:
            return
        poller = zmq.Poller()
        for source in (self._socket, self._wakeup, pidfd):
            poller.register(source, zmq.POLLIN)
        self.failure = None
        self._listener.on_welcome(welcome)
        try:
            self._do_posts()
            while not self._is_closing:
                due = dict(poller.poll())
                if self._wakeup in due:
                    self._clear_wakeup()
                    self._do_posts()
                if self._socket in due:
                    self._take_events()
                elif pidfd in due:
                    # What it had said before it ended has been taken: the socket is empty.
                    _log.warning("the shepherd (process %d) has ended", welcome.pid)
                    # What it did not take must not reach the next one, which binds the same path
                    # and is told anew: a `Start` that comes late would start a settled job again.
                    self._socket.setsockopt(zmq.LINGER, 0)
                    return
            self._do_posts()
        finally:
            os.close(pidfd)

    def _do_posts(self) -> None:
        while self._posts:
            post = self._posts.popleft()
            if callable(post):
                post()
            else:
                self.send(post)

    def _take_events(self) -> None:
        assert self._socket is not None
        while True:
            try:
                raw = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                event = decode_event(raw)
            except msgspec.MsgspecError as exc:
                _log.error("a message of the shepherd was ignored: %s", exc)
                continue
            self._listener.on_event(event)

    def _clear_wakeup(self) -> None:
        try:
            os.eventfd_read(self._wakeup)
        except BlockingIOError:
            return  # nobody rang

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _welcome(raw: bytes) -> Welcome:
    """Decode the answer to `Hello`.

    Raises:
        BackendUnavailable: It is none, or is of a shepherd that we can't talk to.
    """
    try:
        event = decode_event(raw)
    except msgspec.MsgspecError as exc:
        raise BackendUnavailable(f"the shepherd says what is no message: {exc}") from exc
    if not isinstance(event, Welcome):
        raise BackendUnavailable(f"the shepherd answers hello with {type(event).__name__!r}")
    if event.v != VERSION:
        raise BackendUnavailable(
            f"the shepherd (process {event.pid}) speaks version {event.v!r}, expected {VERSION}: "
            "stop the daemon, let the host jobs end, and start it again"
        )
    return event


def _launch(place: Place) -> None:
    """Start a shepherd; when there is one, the new one ends at once.

    Raises:
        BackendUnavailable: It can't be started; says why.
    """
    # -P: a file in our working directory must not stand in for a module.
    command = [sys.executable, "-P", "-m", "pman.shepherd", os.fspath(place.state_path)]
    try:
        done = subprocess.run(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BackendUnavailable(f"the shepherd can't be started: {exc}") from exc
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise BackendUnavailable(f"the shepherd can't be started: {reason}")


def _environment() -> dict[str, str]:
    """Return the shepherd's own environment, in which it finds pman where we did."""
    environment = public_environment()
    root = str(Path(__file__).resolve().parents[2])
    if root not in site.getsitepackages():
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{known}{os.pathsep}{root}" if known else root
    return environment


def public_environment() -> dict[str, str]:
    """Return our environment without what configures pman, which may hold secrets."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PMAN_")}
