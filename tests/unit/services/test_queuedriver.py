"""`QueueDriver`: what hangs holds up nothing of another kind."""

from __future__ import annotations

import threading
from typing import Any

from pman.services.queuedriver import THREADS, QueueDriver

DEADLINE_S = 20.0


class FakeQueue:
    """Takes threads."""

    def attach(self, wake: Any, run: Any) -> None:
        self.run = run


def test_ends_do_not_wait_for_starts_that_hang() -> None:
    queue: Any = FakeQueue()
    driver = QueueDriver(queue)
    go_on, ended = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        go_on.wait(DEADLINE_S)

    for number in range(2 * THREADS):
        queue.run("host", hang, f"job {number}")
    queue.run("host", ended.set)
    assert ended.wait(DEADLINE_S / 2)
    go_on.set()
    driver.request_stop()
    driver.teardown()
