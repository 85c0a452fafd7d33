"""The watchdog hears of the front, and of nobody else when that hangs."""

from __future__ import annotations

import select
import socket
import threading
from pathlib import Path

import pytest
from front_harness import PATIENCE_S, Daemon, ToyHandler

from pman.http.message import Request, Response
from pman.services.front import Front
from pman.services.notify import Heartbeat, Notifier

#: Far shorter than real ones, seconds.
WATCHDOG_S = 0.1


class Hanging(ToyHandler):
    """Holds up the front for a request to `/hang`, which no real action does."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def handle_quick(self, request: Request) -> Response | None:
        if request.target == "/hang":
            self.has_begun.set()
            assert self.may_end.wait(PATIENCE_S)
        return super().handle_quick(request)


@pytest.mark.slow
def test_a_front_that_hangs_is_silent(tmp_path: Path) -> None:
    handler = Hanging()
    daemon = Daemon(handler)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        heartbeat = Heartbeat(Notifier(str(tmp_path / "notify"), WATCHDOG_S))
        daemon.front = Front(
            daemon.context, daemon.settings, handler, daemon.pump, heartbeat=heartbeat
        )
        with daemon:
            for _ in range(3):
                assert manager.recv(100) == b"WATCHDOG=1"
            with socket.create_connection(("127.0.0.1", daemon.front.port)) as client:
                client.sendall(b"GET /hang HTTP/1.1\r\n\r\n")
                assert handler.has_begun.wait(PATIENCE_S)
                while select.select([manager], [], [], 0)[0]:
                    manager.recv(100)  # was sent before
                assert select.select([manager], [], [], 3 * WATCHDOG_S)[0] == []
                handler.may_end.set()
                assert manager.recv(100) == b"WATCHDOG=1"
