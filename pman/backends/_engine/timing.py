"""How long `EngineBackend` waits between its tries; all in one place, so that tests need not."""

from __future__ import annotations

import msgspec


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Periods and limits, seconds; the tries of the same thing come ever more seldom.

    Attributes:
        hot_s, hot_max_s: Between looks at a job that is about to change: the first, the last.
        slow_s: Between looks at all jobs, should an event be missed.
        idle_s: The same while no job is open.
        share_s: Between looks for folders that jobs wait for.
        connect_s, connect_max_s: Between tries to connect.
        create_s: How long who submits a job waits for an engine that creates slowly.
        again_s, again_max_s: Between tries of what an engine could not do for one job.
        start_s, start_max_s: Between tries to have a job started that can't be.
        doubt_s: How long it must be known that a job can't be started before it is given up.
        orphan_s: Between looks for objects without a job, at least.
        peek_s: Between looks at the output of one running job.
        recent_s: The same while nobody reads it, for what it says of its progress.
        live_s, live_max_s: Between tries to follow the output of a running container.
        live_poll_s: Between looks at the output of one that can't be followed beside others.
        fresh_s: A failure that is younger is believed without asking again.
        settle_s: How long a job that has ended may take to become durable, for one that waits to
            take its name.
        close_s: For the threads to end.
    """

    hot_s: float = 0.01
    hot_max_s: float = 5.0
    slow_s: float = 10.0
    idle_s: float = 60.0
    share_s: float = 1.0
    connect_s: float = 0.2
    connect_max_s: float = 5.0
    create_s: float = 4.0
    again_s: float = 0.5
    again_max_s: float = 60.0
    start_s: float = 5.0
    start_max_s: float = 60.0
    doubt_s: float = 5.0
    orphan_s: float = 5.0
    peek_s: float = 2.0
    recent_s: float = 5.0
    live_s: float = 0.5
    live_max_s: float = 30.0
    live_poll_s: float = 2.0
    fresh_s: float = 1.0
    settle_s: float = 2.0
    close_s: float = 2.0


def backoff(first_s: float, most_s: float, tries: int) -> float:
    """Return how long to wait after the n-th try, counted from 0."""
    return min(first_s * 2.0 ** min(tries, 30), most_s)
