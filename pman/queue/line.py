"""`Line`: who runs and who waits for a place. No lock; `JobQueue` has it.

Between two calls nobody waits who could run: each change chooses at once who comes next.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Callable, Mapping

import msgspec

from pman.job.record import Job

#: Heads that are none any more, beyond those that are, before they go.
SPARE = 64

#: High priority first, then in the order of acceptance.
Order = tuple[int, float, int]


class Ticket(msgspec.Struct, gc=False):
    """A job that waits, or that has a place and has yet to be told.

    Attributes:
        is_ready: Whether it is durable, and so may be told.
        is_gone: It waits no more.
    """

    order: Order
    name: str
    backend: str
    auid: str
    is_ready: bool = True
    is_gone: bool = False


class _BackendLine:
    """Who waits for one backend: a heap for each auid, and a heap of the first of each.

    One who leaves stays in its heap until most in it are gone, so that leaving costs little, and
    nothing piles up behind somebody who waits long.
    """

    def __init__(self) -> None:
        self.is_paused = False
        self._by_auid: dict[str, list[tuple[Order, Ticket]]] = {}
        self._gone: collections.Counter[str] = collections.Counter()  # those in heaps, by auid
        self._heads: list[tuple[Order, str]] = []  # may hold some that are first no more
        self._parked: set[str] = set()  # auids that have as many places as they may

    def add(self, ticket: Ticket) -> None:
        waiting = self._by_auid.setdefault(ticket.auid, [])
        heapq.heappush(waiting, (ticket.order, ticket))
        if waiting[0][1] is ticket and ticket.auid not in self._parked:
            self._show_head(ticket.auid)

    def leave(self, ticket: Ticket) -> None:
        """Have somebody wait no more who does."""
        ticket.is_gone = True
        self._gone[ticket.auid] += 1
        if self._tidy(ticket.auid) and ticket.auid not in self._parked:
            self._show_head(ticket.auid)

    def unpark(self, auid: str) -> None:
        """Look at the jobs of an auid again."""
        if auid in self._parked:
            self._parked.discard(auid)
            self._show_head(auid)

    def choose(self, has_room: Callable[[str], bool]) -> Ticket | None:
        """Take out who comes next.

        Args:
            has_room: Tells whether an auid may have one more place.
        """
        while self._heads:
            order, auid = heapq.heappop(self._heads)
            waiting = self._by_auid.get(auid, [])
            if not waiting or waiting[0][0] != order:
                continue
            if waiting[0][1].is_gone:
                heapq.heappop(waiting)
                _count_down(self._gone, auid)
            elif not has_room(auid):
                self._parked.add(auid)
                continue
            else:
                ticket = heapq.heappop(waiting)[1]
                self._show_head(auid)
                return ticket
            self._show_head(auid)
        return None

    def _tidy(self, auid: str) -> bool:
        """Let go of those who are gone, if they are most of a heap; return whether they were.

        A heap that is empty goes, too.
        """
        waiting = self._by_auid.get(auid, [])
        is_most = 2 * self._gone[auid] > len(waiting)
        if is_most:
            del self._gone[auid]
            waiting[:] = [each for each in waiting if not each[1].is_gone]
            heapq.heapify(waiting)
        if not waiting:
            self._by_auid.pop(auid, None)
            self._parked.discard(auid)
        return is_most

    def _show_head(self, auid: str) -> None:
        self._tidy(auid)
        waiting = self._by_auid.get(auid)
        if waiting:
            heapq.heappush(self._heads, (waiting[0][0], auid))
        if len(self._heads) > 2 * len(self._by_auid) + SPARE:
            heads = self._by_auid.items()
            self._heads = [(heap[0][0], auid) for auid, heap in heads if auid not in self._parked]
            heapq.heapify(self._heads)


class Line:
    """Places on all backends."""

    def __init__(self, max_jobs: Mapping[str, int], max_jobs_per_auid: int) -> None:
        """Make an empty line.

        Args:
            max_jobs: Most places of each backend, "" for those that are not named; 0 for any.
            max_jobs_per_auid: Most places of each auid on all backends together; 0 for any.
        """
        self._max_jobs = max_jobs
        self._max_per_auid = max_jobs_per_auid
        self._is_limited = bool(max_jobs_per_auid) or any(max_jobs.values())
        self._numbers = itertools.count()
        self._running: dict[str, tuple[str, str]] = {}
        self._on_backend: collections.Counter[str] = collections.Counter()
        self._of_auid: collections.Counter[str] = collections.Counter()
        self._lines: dict[str, _BackendLine] = {}
        self._waiting: dict[str, Ticket] = {}
        self._waiting_for: collections.Counter[str] = collections.Counter()  # by backend
        self._chosen: list[Ticket] = []

    @property
    def waiting(self) -> int:
        """How many jobs wait for a place."""
        return len(self._waiting)

    def pass_by(self, job: Job) -> bool:
        """Give a new job a place at once, unless it has to wait."""
        if not self._is_limited and not self._waiting:
            return True
        line = self._lines.get(job.backend)
        if line is not None and line.is_paused and self._waiting_for[job.backend]:
            return False
        if not (self._has_room(job.backend) and self._has_room_for(job.auid)):
            return False
        self.occupy(job)
        return True

    def occupy(self, job: Job) -> None:
        """Know a job that has a place already, even one too many."""
        if self._is_limited and job.name not in self._running:
            self._running[job.name] = (job.backend, job.auid)
            self._on_backend[job.backend] += 1
            self._of_auid[job.auid] += 1

    def add(self, job: Job, *, is_ready: bool = True) -> bool:
        """Have a job wait for a place, if it does not already; return whether it has got one."""
        if job.name in self._waiting:
            return False
        order = (-job.priority, job.accepted_at, next(self._numbers))
        auid = job.auid if self._max_per_auid else ""
        ticket = Ticket(order, job.name, job.backend, auid, is_ready)
        self._waiting[job.name] = ticket
        self._waiting_for[job.backend] += 1
        self._line_of(job.backend).add(ticket)
        self._choose(job.backend)
        return job.name not in self._waiting

    def ready(self, name: str) -> None:
        """Let a job be told of its place, now or later."""
        ticket = self._waiting.get(name) or next((t for t in self._chosen if t.name == name), None)
        if ticket is not None:
            ticket.is_ready = True

    def leave(self, name: str) -> None:
        """Have a job neither run nor wait; unknown is fine."""
        ticket = self._waiting.pop(name, None)
        if ticket is not None:
            self._lines[ticket.backend].leave(ticket)
            _count_down(self._waiting_for, ticket.backend)
            return
        if self._chosen:
            self._chosen = [ticket for ticket in self._chosen if ticket.name != name]
        place = self._running.pop(name, None)
        if place is None:
            return
        backend, auid = place
        _count_down(self._on_backend, backend)
        _count_down(self._of_auid, auid)
        if not self._max_per_auid:
            self._choose(backend)
            return
        for line in self._lines.values():
            line.unpark(auid)
        for other in self._lines:
            self._choose(other)

    def pause(self, backend: str) -> None:
        """Give no more places of a backend until `resume`."""
        self._line_of(backend).is_paused = True

    def resume(self, backend: str) -> None:
        """Give places of a backend again."""
        line = self._lines.get(backend)
        if line is not None and line.is_paused:
            line.is_paused = False
            self._choose(backend)

    def take_chosen(self) -> list[str]:
        """Return the jobs that have got a place and are to be told, each once, in order."""
        chosen = [ticket.name for ticket in self._chosen if ticket.is_ready]
        self._chosen = [ticket for ticket in self._chosen if not ticket.is_ready]
        return chosen

    # --- parts ------------------------------------------------------------------------------

    def _line_of(self, backend: str) -> _BackendLine:
        return self._lines.setdefault(backend, _BackendLine())

    def _choose(self, backend: str) -> None:
        line = self._lines.get(backend)
        while line is not None and not line.is_paused and self._has_room(backend):
            ticket = line.choose(self._has_room_for)
            if ticket is None:
                return
            del self._waiting[ticket.name]
            _count_down(self._waiting_for, backend)
            if self._is_limited:
                auid = ticket.auid
                self._running[ticket.name] = (backend, auid)
                self._on_backend[backend] += 1
                self._of_auid[auid] += 1
            self._chosen.append(ticket)

    def _has_room(self, backend: str) -> bool:
        most = self._max_jobs.get(backend, self._max_jobs.get("", 0))
        return not most or self._on_backend[backend] < most

    def _has_room_for(self, auid: str) -> bool:
        return not self._max_per_auid or self._of_auid[auid] < self._max_per_auid


def _count_down(counter: collections.Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
