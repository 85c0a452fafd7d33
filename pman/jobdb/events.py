"""`EventLog`: the newest events in memory, the older ones from the disk; who waits for more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from pman.job.event import Event, Wanted

#: Events that are kept in memory, and how many more there may be before the oldest go.
RECENT, SLACK = 10_000, 2_000

#: Events that are looked through before the lock is let go, or the disk is asked for more.
CHUNK = 500

#: Events that one call looks through, so that it ends soon even when none is wanted.
MAX_SCAN = 100_000

OnNews = Callable[[], None]

#: What subscribers are found by: ("job", name), ("jid", jid), ("auid", auid), or None for all.
_Key = tuple[str, str] | None


class ReadEvents(Protocol):
    """Reads events from the disk."""

    def __call__(self, after: int, upto: int, limit: int) -> list[Event]:
        """Return the first events with numbers above `after`, up to `upto`.

        Raises:
            SnapshotError: They cannot be read.
        """


class Page(msgspec.Struct, frozen=True):
    """Some events.

    Attributes:
        events: In order.
        next: Number to go on from: all up to it were looked at.
        first_seq: Number of the oldest event that is still there.
        is_gap: Whether events before these are missing: they were forgotten, or the number that was
            asked for was never given.
        is_end: Whether there was no event behind these.
    """

    events: list[Event]
    next: int
    first_seq: int
    is_gap: bool
    is_end: bool


class _Subscriber:
    """Somebody who wants to know of news."""

    __slots__ = ("callback", "wanted")

    def __init__(self, callback: OnNews, wanted: Wanted) -> None:
        self.callback = callback
        self.wanted = wanted


class EventLog:
    """All events that are durable. Thread-safe; the lock is held for memory work only.

    `publish` is called by the thread that writes, `tell` by one thread that has the time for it.

    Attributes:
        is_closed: Set at the end: whoever waits for more waits in vain.
    """

    def __init__(self, first_seq: int, last_seq: int, read: ReadEvents) -> None:
        """Begin with what is on disk.

        Args:
            first_seq: Number of the oldest event there, or of the next one if there is none.
            last_seq: Number of the newest that there ever was.
            read: Reads those that are not in memory.
        """
        self.is_closed = False
        self._lock = threading.Lock()
        self._first_seq = first_seq
        self._last_seq = last_seq
        self._recent: list[Event] = []
        self._base = last_seq + 1  # number of the first of `_recent`; they have no gaps
        self._read = read
        self._subscribers: dict[_Key, dict[_Subscriber, None]] = {}
        self._told = last_seq

    @property
    def first_seq(self) -> int:
        """Number of the oldest event that is still there, or of the next one."""
        return self._first_seq

    @property
    def last_seq(self) -> int:
        """Number of the newest event."""
        return self._last_seq

    @property
    def is_awaited(self) -> bool:
        """Whether anybody has subscribed: who does so later looks by itself what came before."""
        return bool(self._subscribers)

    # --- writing --------------------------------------------------------------------------

    def publish(self, events: Sequence[Event], first_seq: int) -> None:
        """Take in events that have become durable, in order.

        Args:
            first_seq: Number of the oldest event that is left on disk.
        """
        with self._lock:
            self._first_seq = first_seq
            if not events:
                return
            self._recent += events
            self._last_seq = events[-1].seq
            if len(self._recent) > RECENT + SLACK:
                surplus = len(self._recent) - RECENT
                del self._recent[:surplus]
                self._base += surplus

    # --- reading --------------------------------------------------------------------------

    def since(self, seq: int | None, limit: int, wanted: Wanted, scan: int = MAX_SCAN) -> Page:
        """Return events behind a number.

        Args:
            seq: Number of the last event that is known already; 0: begin with the oldest that is
                left; None: only what comes from now on.
            limit: Most events to return.
            scan: About how many to look at.
        Raises:
            SnapshotError: Older events cannot be read.
        """
        with self._lock:
            first, last = self._first_seq, self._last_seq
        at = last if seq is None else seq
        is_gap = at != 0 and not first - 1 <= at <= last
        if is_gap or at == 0:
            at = first - 1
        found: list[Event] = []
        is_end = False
        scanned = 0
        while len(found) < limit and scanned < scan:
            chunk = self._chunk(at)
            if not chunk:
                is_end = True
                break
            is_gap = is_gap or (chunk[0].seq > at + 1 and self._first_seq > at + 1)
            for event in chunk:
                at = event.seq
                scanned += 1
                if wanted.matches(event):
                    found.append(event)
                    if len(found) == limit:
                        break
        return Page(found, at, self._first_seq, is_gap, is_end)

    def _chunk(self, after: int) -> list[Event]:
        """Return some events behind a number; [] when there are none."""
        with self._lock:
            last, base = self._last_seq, self._base
            if after >= last:
                return []
            if after + 1 >= base:
                begin = after + 1 - base
                return self._recent[begin : begin + CHUNK]
        older = self._read(after, base - 1, CHUNK)
        if older or base > last:
            return older
        with self._lock:  # numbers may be missing between those on disk and those in memory
            return self._recent[:CHUNK]

    # --- who waits ------------------------------------------------------------------------

    def subscribe(self, callback: OnNews, wanted: Wanted) -> Callable[[], None]:
        """Have `callback` called whenever there may be new events that are wanted, and at the end.

        Args:
            callback: Does not block; called by the thread of `tell`.
        Returns:
            What takes it back, from any thread, any number of times.
        """
        subscriber = _Subscriber(callback, wanted)
        key = _key(wanted)
        with self._lock:
            self._subscribers.setdefault(key, {})[subscriber] = None

        def forget() -> None:
            with self._lock:
                held = self._subscribers.get(key)
                if held is not None:
                    held.pop(subscriber, None)
                    if not held:
                        del self._subscribers[key]

        return forget

    def tell(self) -> None:
        """Call those who want what has come since the last time; by one thread only."""
        with self._lock:
            is_late = self._told + 1 < self._base
            news = [] if is_late else self._recent[self._told + 1 - self._base :]
            self._told = self._last_seq
            told = self._all() if is_late else self._interested(news)
        for subscriber in told:
            if is_late or any(map(subscriber.wanted.matches, news)):
                subscriber.callback()

    def close(self) -> None:
        """Say that nothing comes any more."""
        with self._lock:
            self.is_closed = True
            told = self._all()
        for subscriber in told:
            subscriber.callback()

    def _all(self) -> list[_Subscriber]:
        return [each for held in self._subscribers.values() for each in held]

    def _interested(self, news: Sequence[Event]) -> list[_Subscriber]:
        """Return who may want some of these events; most subscribers want those of one job."""
        if not news or not self._subscribers:
            return []
        keys: dict[_Key, None] = {None: None}
        for event in news:
            keys[("job", event.job)] = None
            keys[("jid", event.jid)] = None
            keys[("auid", event.auid)] = None
        return [each for key in keys for each in self._subscribers.get(key, ())]


def _key(wanted: Wanted) -> _Key:
    if wanted.job is not None:
        return "job", wanted.job
    if wanted.jid is not None:
        return "jid", wanted.jid
    user = wanted.auid if wanted.owner is None else wanted.owner
    return None if user is None else ("auid", user)
