"""A shepherd of another version: has the jobs that it is given, and says what it is told to say."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import zmq
from daemon_process import wait_until

from pman.shepherd.place import Place

#: How long anything in a test may take before it counts as failed, seconds.
DEADLINE_S = 30.0


class FakeShepherd:
    """Holds the lock of a place and speaks plain JSON there, in a thread of this process.

    Attributes:
        taken: What the daemon said, in order; each an object of the protocol.
    """

    def __init__(self, state_path: Path, version: int, jobs: list[dict[str, Any]]) -> None:
        self.taken: list[dict[str, Any]] = []
        self._version = version
        self._jobs = jobs
        place = Place(state_path)
        place.prepare()
        self._lock = wait_until(place.lock, "the shepherd before us has ended")
        self._changed = threading.Condition()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        path = place.choose_socket()
        self._router.bind(f"ipc://{path}")
        path.chmod(0o700)
        self._said, self._say = self._pair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def say(self, event: dict[str, Any]) -> None:
        """Send an event to the daemon."""
        self._say.send(msgspec.json.encode({**event, "v": self._version}))

    def wait_for(self, op: str, name: str | None = None) -> dict[str, Any]:
        """Return the first command of a kind, for a job, once the daemon has sent it."""

        def found() -> dict[str, Any] | None:
            return next(
                (c for c in self.taken if c["op"] == op and name in (None, c.get("name"))), None
            )

        with self._changed:
            assert self._changed.wait_for(found, DEADLINE_S), (op, name, self.taken)
            command = found()
        assert command is not None
        return command

    def close(self) -> None:
        self._say.send(b"")
        self._thread.join(DEADLINE_S)
        for socket in (self._say, self._said, self._router):
            socket.close(0)
        self._context.term()
        os.close(self._lock)

    def _pair(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        ends = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        ends[0].bind("inproc://say")
        ends[1].connect("inproc://say")
        return ends

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._said, zmq.POLLIN)
        daemon = b""
        while True:
            due = dict(poller.poll())
            if self._said in due:
                raw = self._said.recv()
                if not raw:
                    return
                self._router.send_multipart([daemon, raw])
            if self._router in due:
                daemon, raw = self._router.recv_multipart()
                command = msgspec.json.decode(raw)
                if command["op"] == "hello":
                    welcome = {"op": "welcome", "pid": os.getpid(), "jobs": self._jobs}
                    welcome["v"] = self._version
                    self._router.send_multipart([daemon, msgspec.json.encode(welcome)])
                with self._changed:
                    self.taken.append(command)
                    self._changed.notify_all()
