"""Name -> object, filled by importing a package; knows nothing of what it holds."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by name; a name that is taken twice stops the start."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._objects: dict[str, T] = {}
        self._origin: dict[str, str] = {}

    def add(self, name: str, thing: T, origin: str) -> None:
        """Keep `thing` under `name`.

        Args:
            name: Spelling that clients use.
            thing: What to keep.
            origin: Module that registers it, for the message about duplicates.
        Raises:
            ValueError: The name is taken; the message names both modules.
        """
        if name in self._objects:
            raise ValueError(
                f"{self._kind} {name!r} is registered by {self._origin[name]} and by {origin}"
            )
        self._objects[name] = thing
        self._origin[name] = origin

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that keeps what it decorates under `name`."""

        def keep(thing: T) -> T:
            self.add(name, thing, getattr(thing, "__module__", "?"))
            return thing

        return keep

    def load(self, package: ModuleType) -> None:
        """Import every module of `package` that does not start with `_`.

        What such an import raises is not swallowed.
        """
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{package.__name__}.{module.name}")

    def get(self, name: str) -> T | None:
        """Return what is kept under `name`, or None."""
        return self._objects.get(name)

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._objects)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())
