"""`Horizon`: up to which numbers events have been forgotten. No I/O."""

from __future__ import annotations

from collections.abc import Mapping


class Horizon:
    """Up to which number events are gone, for all and for each user. Thread-safe.

    It is raised before they go: who has read events, and then finds what it asked for above the
    horizon, has missed none.

    Attributes:
        began: Number behind which the log begins.
    """

    def __init__(self, began: int, upto: int, of_users: Mapping[str, int]) -> None:
        """Begin with what is on disk.

        Args:
            upto: Number of the newest event that is forgotten, `began` if none is.
            of_users: User -> number of the newest of its events that are.
        """
        self.began = began
        self._upto = upto
        self._of_users = dict(of_users)

    def of(self, owner: str | None) -> int:
        """Return the number above which all events are there.

        Args:
            owner: Only events of this user count, None for all.
        """
        return self._upto if owner is None else self._of_users.get(owner, self.began)

    def forget(self, upto: int, of_users: Mapping[str, int]) -> None:
        """Raise it; by one thread."""
        self._of_users.update(of_users)
        self._upto = max(self._upto, upto)
