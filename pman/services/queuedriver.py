"""`QueueDriver`: the threads of `JobQueue`; one for what is due, some for what may block."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from pman.queue import JobQueue
from pman.services.base import Service

_log = logging.getLogger(__name__)

#: Longest sleep, seconds: the clock may be set meanwhile.
MAX_SLEEP_S = 30.0

#: Most errands of one kind that are done for one backend at the same time.
THREADS = 4

_Errand = tuple[Callable[..., None], tuple[Any, ...]]


class QueueDriver(Service):
    """Has the queue do what is due.

    Each kind of errand has threads of its own for each backend, so that no end of a job has to wait
    for starts that hang.
    """

    def __init__(self, jobs: JobQueue) -> None:
        super().__init__("queue")
        self._jobs = jobs
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, Callable[..., None]], _Pool] = {}
        jobs.attach(self._wake.set, self._hand_over)

    def request_stop(self) -> None:
        """Ask for the end; what is left is in the job DB, for the next daemon."""
        super().request_stop()
        self._wake.set()

    def serve(self) -> None:
        """Do what is due until `stopping` is set."""
        while not self.stopping.is_set():
            self._wake.clear()
            wait_s = self._jobs.step()
            self._wake.wait(MAX_SLEEP_S if wait_s is None else min(wait_s, MAX_SLEEP_S))

    def teardown(self) -> None:
        """Begin nothing more; who waits for a backend now is not waited for."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _hand_over(self, backend: str, errand: Callable[..., None], *args: Any) -> None:
        with self._lock:
            if self.stopping.is_set():
                return
            pool = self._pools.get((backend, errand))
            if pool is None:
                pool = self._pools[backend, errand] = _Pool(f"queue-{backend}")
        pool.submit(errand, args)


class _Pool:
    """Some threads, made at need, that the end of the program does not wait for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._errands: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of the two counts
        self._threads = 0
        self._open = 0

    def submit(self, errand: Callable[..., None], args: tuple[Any, ...]) -> None:
        with self._lock:
            self._open += 1
            is_short = self._open > self._threads and self._threads < THREADS
            number = self._threads = self._threads + is_short
        self._errands.put((errand, args))
        if is_short:
            threading.Thread(target=self._serve, name=f"{self._name}-{number}", daemon=True).start()

    def close(self) -> None:
        for _ in range(THREADS):
            self._errands.put(None)

    def _serve(self) -> None:
        while (found := self._errands.get()) is not None:
            errand, args = found
            try:
                errand(*args)
            except Exception:  # noqa: BLE001  as for a service: nobody else would learn of it
                _log.exception("%s failed", errand)
            finally:
                with self._lock:
                    self._open -= 1
