"""The verbs of the API. One file per action; each registers itself in `ACTIONS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec

from pman.actions.base import IsQuick, Perform
from pman.auth import Role
from pman.registry import Registry


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """One verb.

    Attributes:
        perform: Carries it out.
        is_quick: Tells whether a request will touch nothing but memory, and little of it: the front
            carries it out itself. None: never.
        role: Who may ask for it.
        takes: What its `meta` is read as, for documents that describe it; None: anything.
    """

    perform: Perform
    is_quick: IsQuick | None
    role: Role
    takes: type[msgspec.Struct] | None


ACTIONS: Registry[Action] = Registry("action")


def action(
    name: str,
    *,
    role: Role = Role.READ,
    is_quick: IsQuick | None = None,
    takes: type[msgspec.Struct] | None = None,
) -> Callable[[Perform], Perform]:
    """Return a decorator that registers a function as the action `name`."""

    def keep(perform: Perform) -> Perform:
        ACTIONS.add(name, Action(perform, is_quick, role, takes), perform.__module__)
        return perform

    return keep
