"""One line in the shepherd's log, which is its standard error."""

from __future__ import annotations

import os
import sys
import time


def note(text: str) -> None:
    """Write a line with time and process id."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f"{stamp} [{os.getpid()}] {text}", file=sys.stderr, flush=True)
