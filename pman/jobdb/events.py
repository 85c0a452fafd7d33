"""`EventLog`: the newest events in memory, the older ones from the disk; who waits for more."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from pman.job.event import Event, Wanted
from pman.jobdb.horizon import Horizon
from pman.jobdb.numbering import Numbering

#: Events that are kept in memory, and how many more there may be before the oldest go.
RECENT, SLACK = 10_000, 2_000

#: Events that are looked through before the lock is let go, or the disk is asked for more.
CHUNK = 500

#: Most bytes of JSON that the events of one page take; the first one is there whatever it takes.
PAGE_BYTES = 1024 * 1024

#: Events that one call looks through, so that it ends soon even when none is wanted. For a client
#: that is bound to a user it goes on to the end: an early one would count the events of others.
MAX_SCAN = 100_000

_encode = msgspec.json.Encoder().encode

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
        next: What the client is to go on from. If it is bound to a user, it tells of that user's
            events only: the last one that was looked at, or the number that was asked for.
        at: Number up to which all were looked at; not for clients.
        first_seq: All events that the client may see are there from this number on.
        is_gap: Whether events before these are missing: they were forgotten, or the number that was
            asked for lies in the future.
        is_end: Whether there was no event behind these.
    """

    events: list[Event]
    next: int
    at: int
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

    def __init__(self, numbering: Numbering, horizon: Horizon, read: ReadEvents) -> None:
        """Begin with what is on disk.

        Args:
            numbering: Numbers the events; all that it gives from now on are published here.
            horizon: What is forgotten.
            read: Reads those that are not in memory.
        """
        self.is_closed = False
        self._lock = threading.Lock()
        self._numbering = numbering
        self._horizon = horizon
        self._last_seq = numbering.now()  # of the newest in memory; those on disk are not above it
        self._recent: list[Event] = []
        self._before = self._last_seq  # all behind it are in `_recent`
        self._newest: dict[str, int] = {}  # user who has asked -> none of its events is above
        self._read = read
        self._subscribers: dict[_Key, dict[_Subscriber, None]] = {}
        self._told = self._last_seq

    @property
    def is_awaited(self) -> bool:
        """Whether anybody has subscribed: who does so later looks by itself what came before."""
        return bool(self._subscribers)

    # --- writing --------------------------------------------------------------------------

    def publish(self, events: Sequence[Event]) -> None:
        """Take in events that have become durable, in order."""
        if not events:
            return
        with self._lock:
            self._recent += events
            self._last_seq = events[-1].seq
            if self._newest:
                for event in events:
                    if event.auid in self._newest:
                        self._newest[event.auid] = event.seq
            if len(self._recent) > RECENT + SLACK:
                surplus = len(self._recent) - RECENT
                self._before = self._recent[surplus - 1].seq
                del self._recent[:surplus]

    # --- reading --------------------------------------------------------------------------

    def now(self, owner: str | None) -> int:
        """Return the number to begin with for all that comes from now on.

        Args:
            owner: To whom the client is bound, if to anybody.
        """
        return self._numbering.now(owner)

    def since(self, seq: int | None, limit: int, wanted: Wanted, scan: int | None = None) -> Page:
        """Return events behind a number.

        Args:
            seq: Number of the last event that is known already; 0: begin with the oldest that is
                left; None: only what comes from now on.
            limit: Most events to return; fewer where they take more than `PAGE_BYTES`.
            scan: About how many to look at; None: as with `MAX_SCAN`.
        Raises:
            SnapshotError: Older events cannot be read.
        """
        owner = wanted.owner
        if scan is None and owner is None:
            scan = MAX_SCAN
        horizon = self._horizon.of(owner)
        at = self.now(owner) if seq is None else seq
        is_gap = at != 0 and (at < horizon or at > self._numbering.latest())
        if is_gap or at == 0:
            at = horizon
        mine = at  # number of the last event that a bound client may know of
        found: list[Event] = []
        is_end = is_full = False
        scanned = size = 0
        while not is_full and len(found) < limit and (scan is None or scanned < scan):
            chunk = self._chunk(at, owner, mine)
            is_gap = is_gap or at < self._horizon.of(owner)
            if not chunk:
                is_end = True
                break
            for event in chunk:
                is_wanted = wanted.matches(event)
                if is_wanted:
                    size += len(_encode(event))
                    is_full = bool(found) and size > PAGE_BYTES
                    if is_full:
                        break
                at = event.seq
                scanned += 1
                if event.auid == owner:
                    mine = at
                if is_wanted:
                    found.append(event)
                    if len(found) == limit:
                        break
        going_on = at if owner is None else mine
        return Page(found, going_on, at, self._horizon.of(owner) + 1, is_gap, is_end)

    def _chunk(self, after: int, owner: str | None, mine: int) -> list[Event]:
        """Return some events behind a number; [] when there are none, or none of the owner's.

        Args:
            mine: No event of the owner's lies between this number and `after`.
        """
        while True:
            with self._lock:
                last, before = self._last_seq, self._before
                if owner is not None:
                    if after >= last:
                        self._newest.setdefault(owner, mine)
                    last = self._newest.get(owner, last)
                if after >= last:
                    return []
                if after >= before:
                    begin = bisect_right(self._recent, after, key=_seq)
                    return self._recent[begin : begin + CHUNK]
            older = self._read(after, before, CHUNK)
            if older:
                return older
            after = before

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
            is_late = self._told < self._before
            begin = bisect_right(self._recent, self._told, key=_seq)
            news = [] if is_late else self._recent[begin:]
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


def _seq(event: Event) -> int:
    return event.seq


def _key(wanted: Wanted) -> _Key:
    if wanted.job is not None:
        return "job", wanted.job
    if wanted.jid is not None:
        return "jid", wanted.jid
    user = wanted.auid if wanted.owner is None else wanted.owner
    return None if user is None else ("auid", user)
