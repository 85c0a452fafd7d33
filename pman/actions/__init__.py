"""The verbs of the API. One file per action; each registers itself in `ACTIONS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from pman.actions.base import Perform
from pman.registry import Registry


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """One verb.

    Attributes:
        perform: Carries it out.
        quick_keys: Values of `meta.key` with which it touches nothing but memory and looks up by an
            index; "" stands for a request without `key`. Such requests may share a listener's turn.
    """

    perform: Perform
    quick_keys: Collection[str]


ACTIONS: Registry[Action] = Registry("action")


def action(name: str, *, quick_keys: Collection[str] = ()) -> Callable[[Perform], Perform]:
    """Return a decorator that registers a function as the action `name`."""

    def keep(perform: Perform) -> Perform:
        ACTIONS.add(name, Action(perform, frozenset(quick_keys)), perform.__module__)
        return perform

    return keep
