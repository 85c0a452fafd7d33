"""How many files this process may have open: more than its parent allowed, if the system does.

Jobs get the former limit back: many a program closes, or looks at, every descriptor there could be.
"""

from __future__ import annotations

import os
import resource

#: Soft limit that we were started with; taken before this module raises it.
_INHERITED, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

#: Variable that tells the shepherd. Not an argument: a shepherd is known by its command line.
_VARIABLE = "PMAN_OPEN_FILES"


def raise_limit(wanted: int) -> None:
    """Raise the soft limit to `wanted` files, as far as the hard one allows; never lower it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def inherited_limit() -> dict[str, str]:
    """Return what to add to the environment of a process that is to call `restore_limit`."""
    return {_VARIABLE: str(_INHERITED)}


def restore_limit() -> None:
    """Go back to the soft limit that our parent was started with, if it has told us."""
    text = os.environ.pop(_VARIABLE, "")
    if text:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(text), hard))
