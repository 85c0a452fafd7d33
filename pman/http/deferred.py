"""`Deferred`: a reply that comes later, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pman.http.message import Response


class Deferred:
    """A one-shot promise of a `Response`; thread-safe.

    Whoever holds it waits for nothing: the callback runs in the thread that resolves.
    """

    __slots__ = ("_callback", "_lock", "_response")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._response: Response | None = None
        self._callback: Callable[[Response], None] | None = None

    def resolve(self, response: Response) -> bool:
        """Give the reply; from any thread.

        Returns:
            True when this was the first time; later calls change nothing.
        """
        with self._lock:
            if self._response is not None:
                return False
            self._response = response
            callback = self._callback
        if callback is not None:
            callback(response)
        return True

    def on_done(self, callback: Callable[[Response], None]) -> None:
        """Have `callback` called once with the reply, at once when it is there already.

        Args:
            callback: Thread-safe, does not block, does not raise; there is one per deferred reply.
        """
        with self._lock:
            self._callback = callback
            response = self._response
        if response is not None:
            callback(response)
