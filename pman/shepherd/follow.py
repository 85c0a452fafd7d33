"""Waits for processes that are not our children, by pidfd.

Source: pidfd_open(2): a pidfd is readable once its process has ended.
"""

from __future__ import annotations

import os
import select
from collections import deque

from pman.shepherd.process import is_running

#: Followed at once. The usual limit of descriptors is 1024; jobs inherit it, so it is not raised.
MAX_FOLLOWED = 256


class Follower:
    """Processes of a former shepherd, by the name of their job."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._names: dict[int, str] = {}
        self._waiting: deque[tuple[str, int, int]] = deque()

    def fileno(self) -> int:
        """Return the descriptor that is readable when `ended` has something to say."""
        return self._epoll.fileno()

    def follow(self, name: str, pid: int, ticks: int) -> bool:
        """Follow the process `pid` that started at `ticks`; return False when it has ended."""
        if len(self._names) >= MAX_FOLLOWED:
            self._waiting.append((name, pid, ticks))
            return True
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        # Looked at after the pidfd was opened: from here on the pid can't become another process.
        if not is_running(pid, ticks):
            os.close(fd)
            return False
        self._names[fd] = name
        self._epoll.register(fd, select.EPOLLIN)
        return True

    def ended(self) -> list[str]:
        """Return the names of jobs whose process has ended, each once."""
        names = []
        for fd, _ in self._epoll.poll(0):
            self._epoll.unregister(fd)
            os.close(fd)
            names.append(self._names.pop(fd))
        while self._waiting and len(self._names) < MAX_FOLLOWED:
            waiting = self._waiting.popleft()
            if not self.follow(*waiting):
                names.append(waiting[0])
        return names
