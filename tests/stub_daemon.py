"""`python stub_daemon.py ARGUMENTS`: a real daemon whose jobs on the host only pretend to run.

For tests that send commands which nobody has looked at.
"""

from __future__ import annotations

import sys

import pman.backends
from pman.backends import BACKENDS
from pman.backends.base import Backend
from pman.backends.stub import StubBackend
from pman.cli import main
from pman.wire import HOST


class HarmlessHost(StubBackend):
    """The stub under the name of the host backend."""

    name = HOST


def _harmless(name: str) -> type[Backend]:
    """Stand in for `BACKENDS.get`, which knows the true host."""
    return HarmlessHost if name == HOST else StubBackend


if __name__ == "__main__":
    BACKENDS.load(pman.backends)
    BACKENDS.get = _harmless  # type: ignore[method-assign]
    sys.exit(main())
