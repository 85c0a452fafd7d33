"""Exit codes of containers; pure."""

from __future__ import annotations

#: An exit code above this is that plus the number of a signal. Source: POSIX.1-2017, XCU 2.8.2
SIGNAL_BASE = 128
MAX_SIGNAL = 64


def signal_of(code: int | None) -> int | None:
    """Return the signal that an exit code stands for, or None; the code itself stays as it is."""
    if code is None or not SIGNAL_BASE < code <= SIGNAL_BASE + MAX_SIGNAL:
        return None
    return code - SIGNAL_BASE
