"""What pman counts about itself, as plain numbers; `pman.ops.metrics` shows them.

Nobody waits for a lock to be counted: a meter belongs to one thread, unless it says otherwise, and
whoever reads it may see it a moment old.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

#: Upper bounds of times of requests, seconds. Some wait for a job to end.
REQUEST_BOUNDS_S = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)

#: Upper bounds of times of commits, seconds.
COMMIT_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)

#: Upper bounds of changes in one commit.
COMMIT_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)

#: Stands for a name that pman does not know, so that clients can't make up series.
OTHER = "other"

#: Why a call to an engine, or to the shepherd, has failed: it can't be asked or can't do it now; no
#: whole answer came, so that it may have been done; it said no; something nobody has thought of.
UNAVAILABLE, UNANSWERED, REFUSED, FAILED = "unavailable", "unanswered", "refused", "failed"
REASONS = (UNAVAILABLE, UNANSWERED, REFUSED, FAILED)

#: What tells requests apart: action, method, status.
RequestKind = tuple[str, str, int]


class Histogram:
    """How many values there were, by size.

    Attributes:
        bounds: Upper bounds, rising; a value belongs to the first that is not below it.
        counts: Of values for each bound, and of those above all.
        total: Sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RequestMeter:
    """Requests and how long they took, by kind."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: dict[RequestKind, Histogram] = {}

    def add(self, kind: RequestKind, seconds: float) -> None:
        """Count one request; there must be a bounded number of kinds."""
        times = self._times.get(kind)
        if times is None:
            times = self._times[kind] = Histogram(REQUEST_BOUNDS_S)
        # `times.add`, without the call, which costs as much as what it does.
        times.counts[bisect_left(REQUEST_BOUNDS_S, seconds)] += 1
        times.total += seconds

    def kinds(self) -> list[tuple[RequestKind, Histogram]]:
        """Return what there is; from any thread."""
        return list(self._times.items())


class SharedRequestMeter(RequestMeter):
    """A `RequestMeter` that any thread may add to."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def add(self, kind: RequestKind, seconds: float) -> None:
        """Count one request; from any thread."""
        with self._lock:
            super().add(kind, seconds)


def _none() -> int:
    return 0


class ClientMeter:
    """What the front has to do with its clients.

    Attributes:
        accepted: Connections that were made.
        refused: Those of them that were turned away at once: too many, or pman stops.
        dropped: Clients that were cut off, because they did not read or sent too far ahead.
        connections: Tells how many are open.
        streams: Tells how many replies are being made while they are sent.
        buffered_bytes: Tells the size of requests that have not been answered.
        unread_bytes: Tells the size of replies that clients have not taken.
    """

    __slots__ = (
        "accepted",
        "buffered_bytes",
        "connections",
        "dropped",
        "refused",
        "streams",
        "unread_bytes",
    )

    def __init__(self) -> None:
        self.accepted = self.refused = self.dropped = 0
        self.connections: Callable[[], int] = _none
        self.streams: Callable[[], int] = _none
        self.buffered_bytes: Callable[[], int] = _none
        self.unread_bytes: Callable[[], int] = _none


class CommitMeter:
    """What the writer has to do with the disk.

    Attributes:
        times: How long commits took, seconds; of those that failed as well.
        sizes: Changes that they held.
        failures: Commits that the disk did not take.
    """

    __slots__ = ("failures", "sizes", "times")

    def __init__(self) -> None:
        self.times = Histogram(COMMIT_BOUNDS_S)
        self.sizes = Histogram(COMMIT_BOUNDS)
        self.failures = 0


class ErrorMeter:
    """Failed calls of one backend, by call and reason. Thread-safe: they are few."""

    __slots__ = ("_counts", "_lock")

    def __init__(self, calls: Iterable[str]) -> None:
        """Prepare.

        Args:
            calls: All that there are; each has its counts from the start, or a rate would miss the
                first failure.
        """
        self._lock = threading.Lock()
        self._counts = {(call, reason): 0 for call in calls for reason in REASONS}

    def add(self, call: str, reason: str) -> None:
        """Count one failure; from any thread."""
        with self._lock:
            self._counts[call, reason] += 1

    def counts(self) -> list[tuple[tuple[str, str], int]]:
        """Return how often each call has failed for each reason; from any thread."""
        with self._lock:
            return list(self._counts.items())


class Meters:
    """All meters of one daemon, except those that belong to jobs and backends.

    Attributes:
        quick: Requests that the front has carried out itself.
        requests: All others.
        clients: Of the front.
        commits: Of the writer.
    """

    __slots__ = ("clients", "commits", "quick", "requests")

    def __init__(self) -> None:
        self.quick = RequestMeter()
        self.requests = SharedRequestMeter()
        self.clients = ClientMeter()
        self.commits = CommitMeter()
