"""The loop of the shepherd: one ROUTER towards the daemon, SIGCHLD, and the herd."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time
from collections.abc import Callable

import msgspec
import zmq

from pman.shepherd.herd import Herd
from pman.shepherd.joblog import JobLogs
from pman.shepherd.note import note
from pman.shepherd.place import Place
from pman.shepherd.process import boot_id
from pman.shepherd.protocol import (
    Cancel,
    Event,
    Hello,
    Settled,
    Start,
    Welcome,
    decode_command,
    encode,
)

#: Seconds without daemon and jobs before the shepherd ends; a restart of the daemon takes less.
LINGER_S = 2.0
#: Commands taken before children are looked at again.
BATCH = 64
#: prctl(2): orphans of our jobs become our children, so that they leave no zombies.
PR_SET_CHILD_SUBREAPER = 36


class Server:
    """Serves one daemon at a time; the one that said hello last."""

    def __init__(self, place: Place, *, linger_s: float = LINGER_S) -> None:
        self._linger_s = linger_s
        self._daemon: bytes | None = None
        self._connections: set[int] = set()
        self._herd = Herd(JobLogs(place.jobs_path), boot_id(), self._tell)
        self._context = zmq.Context(io_threads=1)
        self._router = self._context.socket(zmq.ROUTER)
        # A ROUTER drops silently at its high-water mark; what waits here is bounded by the jobs.
        self._router.setsockopt(zmq.SNDHWM, 0)
        self._router.setsockopt(zmq.RCVHWM, 0)
        self._router.setsockopt(zmq.LINGER, 500)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._socket_path = place.choose_socket()

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until there is neither daemon nor job.

        Args:
            ready: Called once the daemon may connect.
        """
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._herd.adopt()
        self._router.bind(f"ipc://{self._socket_path}")
        ready()
        note(f"serves; {len(self._herd.jobs)} jobs taken over")
        self._loop()
        self._router.disable_monitor()
        self._monitor.close()
        self._router.close()
        self._context.term()
        note("ends: no daemon and no jobs")

    def _loop(self) -> None:
        poller = zmq.Poller()
        for source in (self._router, self._monitor, self._wakeup, self._herd.follower.fileno()):
            poller.register(source, zmq.POLLIN)
        idle_deadline = time.monotonic() + self._linger_s
        while True:
            if self._connections or not self._herd.is_idle:
                idle_deadline = float("inf")
            elif idle_deadline == float("inf"):
                idle_deadline = time.monotonic() + self._linger_s
            due = dict(poller.poll(self._timeout_ms(idle_deadline)))
            if not due and time.monotonic() >= idle_deadline:
                return
            if self._monitor in due:
                self._count_connections()
            if self._router in due:
                self._take_commands()
            if self._wakeup in due:
                self._drain_wakeup()
                self._herd.reap()
            if self._herd.follower.fileno() in due:
                self._herd.follow()
            self._herd.tick()

    def _timeout_ms(self, idle_deadline: float) -> int | None:
        deadline = min(idle_deadline, self._herd.next_deadline() or idle_deadline)
        if deadline == float("inf"):
            return None
        return max(0, int((deadline - time.monotonic()) * 1000) + 1)

    def _count_connections(self) -> None:
        while self._monitor.poll(0):
            # zmq_socket_monitor(3); pyzmq's own decoder imports asyncio, 5 MB of memory.
            kind, descriptor = struct.unpack("=Hi", self._monitor.recv_multipart()[0])
            if kind == zmq.EVENT_ACCEPTED:
                self._connections.add(descriptor)
            else:
                self._connections.discard(descriptor)

    def _drain_wakeup(self) -> None:
        try:
            while os.read(self._wakeup, 4096):
                continue
        except BlockingIOError:
            return

    def _take_commands(self) -> None:
        for _ in range(BATCH):
            try:
                identity, raw = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                note("a message without its frames was ignored")
                continue
            try:
                command = decode_command(raw)
            except msgspec.MsgspecError as exc:
                note(f"a message was ignored: {exc}")
                continue
            self._carry_out(identity, command)

    def _carry_out(self, identity: bytes, command: Hello | Start | Cancel | Settled) -> None:
        if isinstance(command, Hello):
            self._daemon = identity
            self._herd.meet(command)
            self._tell(Welcome(os.getpid(), list(self._herd.jobs.values())))
        elif isinstance(command, Start):
            self._herd.start(command)
        elif isinstance(command, Cancel):
            self._herd.cancel(command)
        else:
            self._herd.settled(command.name)

    def _tell(self, event: Event) -> None:
        if self._daemon is not None:
            self._router.send_multipart([self._daemon, encode(event)])
