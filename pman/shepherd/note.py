"""One line in the shepherd's log, which is its standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import time


def note(text: str) -> None:
    """Write a line with time and process id."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # A full disk must not end the shepherd for want of a line in its log.
    with contextlib.suppress(OSError):
        print(f"{stamp} [{os.getpid()}] {text}", file=sys.stderr, flush=True)
