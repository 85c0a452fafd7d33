"""`Body`: the body of a reply that is made while it is sent. No threads, no sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Body(Protocol):
    """Gives pieces when it is asked for them, so that a client that reads slowly holds nothing up.

    One thread asks, and never again before it has got rid of the last piece.

    Attributes:
        poll_s: How soon to ask again when there was nothing and no news, seconds; None: only news
            tell that there is more.
        may_end_anywhere: Whether a client sees by itself that a body that was ended early is not
            all; one that may not is cut at a stop, as by an error.
    """

    poll_s: float | None
    may_end_anywhere: bool

    def read(self) -> bytes | None:
        """Return the next piece, b"" when there is none yet, None at the end.

        Returns soon: it may look into memory or into a file, and waits for nobody.

        Raises:
            PmanError: The body can't be gone on with; the connection is cut, so that nobody takes
                what was sent for all of it.
        """

    def on_news(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when `read` may have more; from any thread, it does not block."""

    def close(self) -> None:
        """Let go of all that it holds: the client has all of it, or has gone. Called once."""
