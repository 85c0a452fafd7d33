"""The verbs of the API. One file per action; each registers itself in `ACTIONS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec

from pman.actions.base import IsQuick, Perform
from pman.auth import Role
from pman.errors import RequestTooLarge
from pman.registry import Registry

#: Longest body of requests that name little, and of all of a caller who may only read, bytes: to
#: read one takes thirty times its room, and some of it may be kept while an answer is waited for.
SMALL_BODY_BYTES = 1024 * 1024

#: Longest body of a `run`, bytes. Source: what `job.sizes` takes of `cmd`, `env` and `stdin`, twice
#: as long where JSON has to escape all of it, and 2 MiB for all else.
RUN_BODY_BYTES = 8 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """One verb.

    Attributes:
        perform: Carries it out.
        is_quick: Tells whether a request will touch nothing but memory, and little of it: the front
            carries it out itself. None: never.
        role: Who may ask for it.
        takes: What its `meta` is read as, for documents that describe it; None: anything.
        max_body_bytes: Longest body of a request for it; None: whatever the daemon takes.
    """

    perform: Perform
    is_quick: IsQuick | None
    role: Role
    takes: type[msgspec.Struct] | None
    max_body_bytes: int | None = SMALL_BODY_BYTES

    def check_size(self, name: str, size: int) -> None:
        """Check the length of a request's body.

        Raises:
            RequestTooLarge: It is longer than the action takes.
        """
        if self.max_body_bytes is not None and size > self.max_body_bytes:
            raise RequestTooLarge(
                f"the body has {size} bytes, expected at most {self.max_body_bytes} with {name!r}",
                field="body",
            )


ACTIONS: Registry[Action] = Registry("action")


def action(
    name: str,
    *,
    role: Role = Role.READ,
    is_quick: IsQuick | None = None,
    takes: type[msgspec.Struct] | None = None,
    max_body_bytes: int | None = SMALL_BODY_BYTES,
) -> Callable[[Perform], Perform]:
    """Return a decorator that registers a function as the action `name`."""

    def keep(perform: Perform) -> Perform:
        made = Action(perform, is_quick, role, takes, max_body_bytes)
        ACTIONS.add(name, made, perform.__module__)
        return perform

    return keep
