"""Hears of the ends of some jobs, for one request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from pman.actions.base import ActionContext, Answer, GiveUp, Outcome
from pman.errors import UnknownJob
from pman.job.record import Job
from pman.jobdb.store import OnJob

#: Most jobs that are shown by the thread that sees an end; more are left to another one.
FEW_JOBS = 100


def on_each_end(jobs: Iterable[Job], context: ActionContext, tell: OnJob) -> GiveUp:
    """Have `tell` called with each job once it is final, or gone; at once if it is so already.

    Returns:
        What takes back those calls that have not been made.
    """
    heard_of = list(jobs)
    for job in heard_of:
        try:
            context.store.when_final(job.name, tell)
        except UnknownJob:
            tell(job)

    def take_back() -> None:
        for job in heard_of:
            context.store.no_longer(job.name, tell)

    return take_back


def give(
    outcome: Callable[[], Outcome], count: int, answer: Answer, context: ActionContext
) -> None:
    """Answer with an outcome that shows `count` jobs; by a thread that has the time if many.

    Neither the timers nor those who see jobs end may wait until all are spelled out.
    """
    if count > FEW_JOBS:
        context.errands.submit(answer, outcome)
    else:
        answer(outcome)


class Countdown:
    """Calls `done` in the thread that makes the last of `count` calls, of which there is one."""

    def __init__(self, count: int, done: Callable[[], None]) -> None:
        assert count > 0, "nobody would call"
        self._left = count
        self._done = done
        self._lock = threading.Lock()

    def tell(self, _: object = None) -> None:
        """Count one."""
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._done()
