"""`Folder`: a tree whose branches are made when somebody looks at them. Pure.

A look-up of one leaf makes that leaf only, so that `jid` of a job reads no output file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

#: Stands for "nothing there"; None and False are values of JSON.
MISSING: Any = object()


class Folder:
    """Names and what makes the things behind them; made once, shared wherever it is put."""

    __slots__ = ("_values", "makers")

    def __init__(self, makers: dict[str, Callable[[], Any]]) -> None:
        self.makers = makers
        self._values: dict[str, Any] | None = None

    def values(self) -> dict[str, Any]:
        """Return the whole folder as JSON value."""
        if self._values is None:
            self._values = {name: whole(make()) for name, make in self.makers.items()}
        return self._values


def whole(node: Any) -> Any:
    """Return a node as JSON value."""
    return node.values() if isinstance(node, Folder) else node


def descend(node: Any, path: Sequence[str]) -> Any:
    """Return what lies at `path` below a node, or MISSING; arrays and text hold nothing."""
    for name in path:
        if isinstance(node, Folder):
            make = node.makers.get(name)
            node = MISSING if make is None else make()
        elif isinstance(node, dict):
            node = node.get(name, MISSING)
        else:
            return MISSING
    return node if node is MISSING else whole(node)


def constant(value: Any) -> Callable[[], Any]:
    """Return a maker of `value`."""
    return lambda: value
