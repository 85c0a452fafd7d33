"""The parent of the shepherd: starts it again when it was killed, and learns how its jobs end then.

Only a parent learns an exit status, and the jobs of a killed shepherd become children of the guard.
It holds no socket and imports next to nothing: there is little in it that could fail.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from pman.shepherd.ends import Ends
from pman.shepherd.note import note
from pman.shepherd.process import exit_code, start_ticks

#: prctl(2): orphans below us become our children.
PR_SET_CHILD_SUBREAPER = 36
#: A shepherd that lives shorter has not come to work, seconds; after so many of them we give up.
QUICK_S = 1.0
MAX_QUICK = 5
#: What the bell counts for an end that could not be written down; more than all that could be.
UNWRITTEN = 1 << 32


class Guard:
    """What each shepherd in turn gets from its guard.

    Attributes:
        pid: Process id of the guard.
        pidfd: Readable once the guard has ended.
        bell: eventfd that is rung when `ends` has news.
        hello: memfd that keeps the daemon's last hello, for the next shepherd.
        is_first: False in a shepherd that replaces a killed one.
    """

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.pid = os.getpid()
        self.pidfd = os.pidfd_open(self.pid)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.hello = os.memfd_create("hello")
        self.is_first = True

    def run(self, serve: Callable[[], None]) -> int:
        """Have `serve` run in a child until it returns; return the exit status.

        It is run again when its process was killed, or failed.
        """
        become_subreaper()
        quick = 0
        while True:
            started = time.monotonic()
            pid = os.fork()
            if pid == 0:
                _exit_after(serve)
            code = self._wait(pid)
            if code == 0:
                return 0
            quick = quick + 1 if time.monotonic() - started < QUICK_S else 0
            if quick >= MAX_QUICK:
                note(f"the shepherd ended with {code} again and again; a daemon may start another")
                return 1
            note(f"the shepherd (process {pid}) ended with {code} and is started again")
            self.is_first = False

    def _wait(self, shepherd: int) -> int:
        """Collect children until the shepherd has ended; return its code."""
        while True:
            seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            assert seen is not None  # only WNOHANG returns nothing
            code = exit_code(seen)
            if seen.si_pid == shepherd:
                os.waitpid(shepherd, 0)
                return code
            is_written = self._write_end(seen.si_pid, code)
            # Reaped only now: who finds the process gone finds its end written down.
            os.waitpid(seen.si_pid, 0)
            os.eventfd_write(self.bell, 1 if is_written else UNWRITTEN)

    def _write_end(self, pid: int, code: int) -> bool:
        try:
            self.ends.add(pid, start_ticks(pid) or 0, code)
        except OSError as exc:
            note(f"the end of process {pid} with {code} can't be written down: {exc}")
            return False
        return True


def _exit_after(serve: Callable[[], None]) -> NoReturn:
    """Run `serve` and end the process, whatever happens."""
    code = 1
    try:
        serve()
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)


def become_subreaper() -> None:
    """Have orphans below this process become its children."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
