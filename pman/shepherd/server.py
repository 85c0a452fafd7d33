"""The loop of the shepherd: one ROUTER towards the daemon, SIGCHLD, and the herd."""

from __future__ import annotations

import os
import signal
import struct
import time

import msgspec
import zmq

from pman.shepherd.guard import UNWRITTEN, Guard, become_subreaper
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


class Server:
    """Serves one daemon at a time; the one that said hello last."""

    def __init__(self, place: Place, guard: Guard) -> None:
        self._guard = guard
        self._daemon: bytes | None = None
        self._connections: set[int] = set()
        self._herd = Herd(JobLogs(place.jobs_path), guard, boot_id(), self._tell)
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

    def open(self) -> None:
        """Take over what a former shepherd left, and have the daemon connect.

        Raises:
            OSError: No daemon could connect.
        """
        become_subreaper()  # orphans of our jobs must not stay zombies
        self._recall_hello()
        self._herd.adopt()
        umask = os.umask(0o077)
        try:
            self._router.bind(f"ipc://{self._socket_path}")
        except zmq.ZMQError as exc:
            raise OSError(f"socket {str(self._socket_path)!r} can't be bound: {exc}") from exc
        finally:
            os.umask(umask)

    def run(self) -> None:
        """Serve until there is neither daemon nor job."""
        note(f"serves; {len(self._herd.jobs)} jobs taken over")
        self._loop()
        self._router.disable_monitor()
        self._monitor.close()
        self._router.close()
        self._context.term()
        note("ends: no daemon and no jobs")

    def _loop(self) -> None:
        poller = zmq.Poller()
        for source in (
            self._router,
            self._monitor,
            self._wakeup,
            self._herd.follower.fileno(),
            self._guard.bell,
            self._guard.pidfd,
        ):
            poller.register(source, zmq.POLLIN)
        idle_deadline = time.monotonic() + LINGER_S
        while True:
            if self._connections or not self._herd.is_idle:
                idle_deadline = float("inf")
            elif idle_deadline == float("inf"):
                idle_deadline = time.monotonic() + LINGER_S
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
            if self._guard.bell in due:
                rung = os.eventfd_read(self._guard.bell)
                self._herd.collect(is_complete=rung < UNWRITTEN)
            if self._guard.pidfd in due:
                poller.unregister(self._guard.pidfd)
                note("the guard has ended")
                self._herd.guard_ended()
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
            self._keep_hello(command)
            self._herd.meet(command)
            self._tell(Welcome(os.getpid(), list(self._herd.jobs.values())))
        elif identity != self._daemon:
            # Left over from a line to the shepherd before us. Its daemon says hello and sends anew
            # what we don't know; a `Start` that is late would start a settled job again.
            return
        elif isinstance(command, Start):
            self._herd.start(command)
        elif isinstance(command, Cancel):
            self._herd.cancel(command)
        else:
            self._herd.settled(command.name)

    def _keep_hello(self, hello: Hello) -> None:
        raw = encode(hello)
        os.ftruncate(self._guard.hello, 0)
        os.pwrite(self._guard.hello, raw, 0)

    def _recall_hello(self) -> None:
        """Know what the daemon told the shepherd before us: jobs may need it before it connects."""
        raw = os.pread(self._guard.hello, os.fstat(self._guard.hello).st_size, 0)
        try:
            hello = decode_command(raw)
        except msgspec.MsgspecError:
            return  # no daemon has said any, or the shepherd was killed as it kept one
        if isinstance(hello, Hello):
            self._herd.meet(hello)

    def _tell(self, event: Event) -> None:
        if self._daemon is not None:
            self._router.send_multipart([self._daemon, encode(event)])
