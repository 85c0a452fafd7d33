"""The daemon's end of the line: one thread that finds or starts the shepherd and speaks with it.

It knows messages, and nothing of what they mean to the daemon.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import zmq

from pman.errors import BackendUnavailable
from pman.meters import FAILED, UNAVAILABLE, ErrorMeter
from pman.shepherd.line import Line
from pman.shepherd.place import Place
from pman.shepherd.protocol import VERSION, Command, Event, Hello, Settled, Welcome

_log = logging.getLogger(__name__)

#: How long to wait before a shepherd that could not be started is tried again, seconds.
RETRY_S = 5.0
#: How long the thread may take to end, seconds.
CLOSE_TIMEOUT_S = 4.0

#: What a link counts the failures of: to find or start a shepherd, to hear from one.
CONNECT, WATCH = "connect", "watch"


class Listener(Protocol):
    """Who is told what the shepherd says; always from the link's thread."""

    def on_welcome(self, welcome: Welcome) -> None:
        """Take what a shepherd knows; it is there to be talked to from now on."""

    def on_event(self, event: Event) -> None:
        """Take what has happened."""

    def on_failure(self, failure: BackendUnavailable) -> None:
        """Learn that no shepherd can be had for now; it is tried again later."""


class Link:
    """A line to the shepherd of one place, for as long as the daemon lives.

    Attributes:
        failure: Why there is no shepherd, None while there is one or it is being looked for.
        outages: How often there has been none.
    """

    def __init__(self, place: Place, hello: Hello, listener: Listener, errors: ErrorMeter) -> None:
        """Make a link that is not open.

        Args:
            place: Where the shepherd works.
            hello: What to greet it with.
            listener: Is told what it says.
            errors: Counts what fails.
        """
        self.failure: BackendUnavailable | None = None
        self.outages = 0
        self._place = place
        self._hello = hello
        self._listener = listener
        self._errors = errors
        self._posts: deque[Command | Callable[[], None]] = deque()
        self._posts_lock = threading.Lock()  # keeps posts off a descriptor that was closed
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = threading.Event()
        self._lines: list[Line] = []  # the first to the shepherd that takes new jobs
        self._owners: dict[str, Line] = {}  # by job, of jobs that an older one has
        self._thread = threading.Thread(target=self._run, name="shepherd-link", daemon=True)

    def open(self) -> None:
        """Begin to look for the shepherd; returns at once."""
        self._thread.start()

    def post(self, what: Command | Callable[[], None]) -> None:
        """Send a command, or call something in the link's thread, once there is a shepherd.

        What is posted is done in order. After `close` it does nothing.
        """
        with self._posts_lock:
            if not self._closing.is_set():
                self._posts.append(what)
                os.eventfd_write(self._wakeup, 1)

    def send(self, command: Command) -> None:
        """Send a command at once; only from the link's thread, when there is a shepherd."""
        if isinstance(command, Hello):
            raise TypeError("a link says hello by itself")
        owner = self._owners.get(command.name)
        (owner or self._lines[0]).send(command)
        if owner is not None and isinstance(command, Settled):
            del self._owners[command.name]

    def close(self) -> None:
        """Send what was posted, if there is a shepherd, and hang up; the shepherd lives on."""
        with self._posts_lock:
            if self._closing.is_set():
                return
            self._closing.set()
            os.eventfd_write(self._wakeup, 1)
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            os.close(self._wakeup)

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            while not self._closing.is_set():
                try:
                    if self._connect(context):
                        self._talk()
                except BackendUnavailable as exc:
                    self._errors.add(CONNECT, UNAVAILABLE)
                    self._fail(exc)
                except Exception as exc:  # noqa: BLE001  # without this thread no job would end
                    _log.exception("the talk with the shepherd broke off; it is begun anew")
                    self._errors.add(WATCH, FAILED)
                    self._fail(BackendUnavailable(f"the talk with the shepherd broke off: {exc!r}"))
                finally:
                    self._hang_up()
        finally:
            context.term()

    def _fail(self, exc: BackendUnavailable) -> None:
        """Tell that there is no shepherd, and wait until it is worth another try."""
        self._hang_up()
        if self.failure is None or self.failure.message != exc.message:
            _log.error("%s", exc)
        self.outages += self.failure is None
        self.failure = exc
        self._listener.on_failure(exc)
        self._closing.wait(RETRY_S)

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> bool:
        """Find or start a shepherd, and find older ones that still have jobs.

        One that speaks another version lets its jobs end, and is served until they are settled; new
        jobs go to one in the next folder.

        Returns:
            False when asked to close meanwhile.
        Raises:
            BackendUnavailable: One of them can't be had.
        """
        has_main = False
        for place in self._place.and_successors():
            if has_main and not place.is_in_use():
                continue
            line = Line.open(context, place, self._hello, self._closing)
            if line is None:
                return False
            is_main = not has_main and line.welcome.v == VERSION
            self._lines.insert(0 if is_main else len(self._lines), line)
            has_main = has_main or is_main
        return has_main

    def _talk(self) -> None:
        """Pass messages to and fro, until a shepherd ends or `close`."""
        main, *elders = self._lines
        for elder in elders:
            count = len(elder.welcome.jobs)
            _log.warning("an older shepherd (%s) still has %d jobs", elder.name, count)
            self._owners.update((job.name, elder) for job in elder.welcome.jobs)
        self._drop_idle()
        self.failure = None
        jobs = [job for line in self._lines for job in line.welcome.jobs]
        self._listener.on_welcome(Welcome(main.welcome.pid, jobs))
        self._do_posts()
        while not self._closing.is_set():
            if not self._exchange():
                return
        self._do_posts()

    def _exchange(self) -> bool:
        """Wait for something to do, and do it; return False when a shepherd has ended."""
        poller = zmq.Poller()
        poller.register(self._wakeup, zmq.POLLIN)
        for line in self._lines:
            poller.register(line.socket, zmq.POLLIN)
            poller.register(line.pidfd, zmq.POLLIN)
        due = dict(poller.poll())
        if self._wakeup in due:
            self._clear_wakeup()
            self._do_posts()
        for line in self._lines:
            if line.socket in due:
                for event in line.events():
                    self._listener.on_event(event)
            elif line.pidfd in due:
                # What it had said before it ended has been taken: the socket is empty.
                _log.warning("the shepherd (%s) has ended", line.name)
                line.is_ended = True
                self._errors.add(WATCH, UNAVAILABLE)
                return False
        self._drop_idle()
        return True

    def _drop_idle(self) -> None:
        """Let older shepherds go of which all jobs are settled; they end by themselves."""
        for line in self._lines[1:]:
            if line not in self._owners.values():
                _log.info("the older shepherd (%s) has no more jobs", line.name)
                self._lines.remove(line)
                line.close()

    def _do_posts(self) -> None:
        while self._posts:
            post = self._posts.popleft()
            if callable(post):
                post()
            else:
                self.send(post)

    def _clear_wakeup(self) -> None:
        try:
            os.eventfd_read(self._wakeup)
        except BlockingIOError:
            return  # nobody rang

    def _hang_up(self) -> None:
        self._owners.clear()
        while self._lines:
            self._lines.pop().close()
