"""`Errands`: threads for what takes a while and nobody waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_log = logging.getLogger(__name__)


class Errands:
    """Runs functions one after the other in few threads; one that fails is logged."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="errand")

    def submit(self, errand: Callable[..., None], *args: object) -> None:
        """Have `errand(*args)` run, soon; dropped once the end was asked for."""
        try:
            self._pool.submit(self._run, errand, *args)
        except RuntimeError:
            _log.warning("%s is left undone: pman stops", errand)

    def close(self) -> None:
        """Wait for those that run, drop the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, errand: Callable[..., None], *args: object) -> None:
        try:
            errand(*args)
        except Exception:  # noqa: BLE001  # as for a service: nobody else would learn of it
            _log.exception("%s failed", errand)
