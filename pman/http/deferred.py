"""`Deferred`: a reply that comes later, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pman.http.message import Response

#: What a reply is resolved with that nobody waits for any more; it is never sent.
GIVEN_UP = Response(499, b"")


class Deferred:
    """A one-shot promise of a `Response`; thread-safe.

    Whoever holds it waits for nothing: the callback runs in the thread that resolves.
    """

    __slots__ = ("_callback", "_let_go", "_lock", "_response")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._response: Response | None = None
        self._callback: Callable[[Response], None] | None = None
        self._let_go: Callable[[], None] | None = None

    def resolve(self, response: Response) -> bool:
        """Give the reply; from any thread.

        Returns:
            True when this was the first time; later calls change nothing, and streams are closed.
        """
        is_first, _ = self._settle(response)
        if not is_first and response.stream is not None:
            response.stream.close()
        return is_first

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

    def give_up(self) -> None:
        """Resolve it with `GIVEN_UP`, unless it is resolved: nobody wants the reply any more."""
        is_first, let_go = self._settle(GIVEN_UP)
        if is_first and let_go is not None:
            let_go()

    def on_given_up(self, let_go: Callable[[], None]) -> None:
        """Have `let_go` called when the reply is given up, at once when it has been.

        Args:
            let_go: Makes whoever was to reply forget it. Thread-safe, does not block, does not
                raise; there is one per deferred reply, never called if the reply came first.
        """
        with self._lock:
            if self._response is None:
                self._let_go = let_go
            is_given_up = self._response is GIVEN_UP
        if is_given_up:
            let_go()

    def _settle(self, response: Response) -> tuple[bool, Callable[[], None] | None]:
        """Take the reply; return whether it is the first, and what lets go of who replies."""
        with self._lock:
            if self._response is not None:
                return False, None
            self._response = response
            # Neither is needed again, and what they hold may be large.
            let_go, self._let_go = self._let_go, None
            callback, self._callback = self._callback, None
        if callback is not None:
            callback(response)
        return True, let_go
