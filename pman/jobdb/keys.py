"""Idempotency keys: which job a repeated request stands for. No lock; `JobStore` has it."""

from __future__ import annotations

from pman.errors import KeyReused


class KeyIndex:
    """Key -> job; of several with the same key the first counts.

    What it is given is `Job.idempotency`: digests of the key and of the request, a colon between.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}

    def add(self, idempotency: str, name: str) -> None:
        """Add a job; "" is no key."""
        if idempotency:
            key, _, request = idempotency.partition(":")
            self._known.setdefault(key, (request, name))

    def discard(self, idempotency: str, name: str) -> None:
        """Remove a job; not there is fine."""
        key = idempotency.partition(":")[0]
        if key in self._known and self._known[key][1] == name:
            del self._known[key]

    def find(self, idempotency: str) -> str | None:
        """Return the job that a request stands for, or None.

        Raises:
            KeyReused: The key came with another request.
        """
        key, _, request = idempotency.partition(":")
        if key not in self._known:
            return None
        first, name = self._known[key]
        if first != request:
            raise KeyReused(
                f"the idempotency key came with another request before, which made job {name!r};"
                " expected the same request, or another key",
                field="Idempotency-Key",
            )
        return name
