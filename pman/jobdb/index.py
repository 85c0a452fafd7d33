"""`NameIndex`: which jobs have a value, in order. No lock; `JobStore` has it."""

from __future__ import annotations


class NameIndex:
    """value -> job names in the order of addition.

    Most values belong to one job: then the name stands alone, which saves a container per job.
    """

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, str | dict[str, None]] = {}

    def add(self, value: str, name: str) -> None:
        """Add a job; "" is no value."""
        if not value:
            return
        held = self._names.get(value)
        if held is None:
            self._names[value] = name
        elif isinstance(held, str):
            self._names[value] = {held: None, name: None}
        else:
            held[name] = None

    def discard(self, value: str, name: str) -> None:
        """Remove a job; not there is fine."""
        held = self._names.get(value)
        if isinstance(held, dict):
            held.pop(name, None)
            if not held:
                del self._names[value]
        elif held == name:
            del self._names[value]

    def names(self, value: str) -> list[str]:
        """Return the jobs with this value."""
        held = self._names.get(value)
        if held is None:
            return []
        return [held] if isinstance(held, str) else list(held)

    def count(self, value: str) -> int:
        """Return how many jobs have this value."""
        held = self._names.get(value)
        return len(held) if isinstance(held, dict) else int(held is not None)

    def first(self, value: str) -> str | None:
        """Return the oldest job with this value."""
        held = self._names.get(value)
        return next(iter(held)) if isinstance(held, dict) else held
