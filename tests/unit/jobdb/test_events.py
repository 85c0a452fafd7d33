"""`EventLog`: pages, gaps, the way from disk to memory, who is told."""

from __future__ import annotations

import pytest
from jobdb_builders import make_job

from pman.job.event import Event, Wanted, accepted
from pman.jobdb import events as events_module
from pman.jobdb.events import PAGE_BYTES, EventLog
from pman.jobdb.horizon import Horizon
from pman.jobdb.numbering import Numbering

ALL = Wanted()
MINE = Wanted(owner="me")


class Disk:
    """Events that were published, and how often somebody read some."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reads = 0
        self.horizon = Horizon(100, 100, {})
        self.now_us = 100

    def make_log(self) -> EventLog:
        numbering = Numbering(self.now_us, lambda: self.now_us * 1000, lambda: 0)
        return EventLog(numbering, self.horizon, self.read)

    def forget(self, count: int) -> None:
        """Let the oldest go."""
        gone, self.events = self.events[:count], self.events[count:]
        self.horizon.forget(gone[-1].seq, {event.auid: event.seq for event in gone})

    def read(self, after: int, upto: int, limit: int) -> list[Event]:
        self.reads += 1
        return [event for event in self.events if after < event.seq <= upto][:limit]


def make_events(
    first: int, count: int, jid: str = "a", auid: str = "tester", step: int = 1
) -> list[Event]:
    events = []
    for seq in range(first, first + count * step, step):
        event = accepted(make_job(jid, auid=auid), 0.0)
        event.seq = seq
        events.append(event)
    return events


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def log(disk: Disk) -> EventLog:
    return disk.make_log()


def publish(log: EventLog, disk: Disk, events: list[Event]) -> None:
    disk.events += events
    disk.now_us = events[-1].seq
    log.publish(events)


def seqs(events: list[Event]) -> list[int]:
    return [event.seq for event in events]


def test_pages_follow_each_other(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(101, 5))
    page = log.since(0, 2, ALL)
    assert (seqs(page.events), page.next, page.is_gap, page.is_end) == (
        [101, 102],
        102,
        False,
        False,
    )
    page = log.since(page.next, 10, ALL)
    assert (seqs(page.events), page.next, page.is_end) == ([103, 104, 105], 105, True)
    page = log.since(page.next, 10, ALL)
    assert (page.events, page.next, page.is_end, page.first_seq) == ([], 105, True, 101)
    assert disk.reads == 0


@pytest.mark.parametrize("wanted", [ALL, MINE, Wanted(jid="a")])
def test_a_page_ends_where_it_gets_too_long(log: EventLog, disk: Disk, wanted: Wanted) -> None:
    events = make_events(101, 7, auid="me")
    for event in events:
        event.message = "x" * (PAGE_BYTES // 3)
    events[4].message = "x" * (2 * PAGE_BYTES)
    publish(log, disk, events)
    pages, since = [], 0
    while True:
        page = log.since(since, 1000, wanted)
        if page.is_end:
            break
        pages.append(seqs(page.events))
        assert page.at == page.next == page.events[-1].seq
        since = page.next
    # The one that is too long by itself is alone; what follows is not lost.
    assert pages == [[101, 102], [103, 104], [105]]
    assert seqs(page.events) == [106, 107]


def test_without_a_number_only_what_comes(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(101, 5))
    page = log.since(None, 10, ALL)
    assert (page.events, page.next) == ([], 105)


def test_what_is_not_wanted_is_passed_over(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(101, 3) + make_events(104, 1, "b") + make_events(105, 3))
    page = log.since(0, 1, Wanted(jid="b"))
    assert (seqs(page.events), page.next, page.is_end) == ([104], 104, False)
    page = log.since(page.next, 1, Wanted(jid="b"))
    assert (page.events, page.next, page.is_end) == ([], 107, True)


def test_a_look_ends_when_it_has_seen_enough(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(101, 1200))
    page = log.since(0, 10, Wanted(jid="none"), scan=600)
    assert not page.events
    assert not page.is_end
    assert page.next == 101 + 999


def test_older_ones_come_from_the_disk(
    log: EventLog, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "RECENT", 10)
    monkeypatch.setattr(events_module, "SLACK", 2)
    monkeypatch.setattr(events_module, "CHUNK", 4)
    for first in range(101, 201, 5):
        publish(log, disk, make_events(first, 5))
    assert seqs(log.since(0, 1000, ALL).events) == list(range(101, 201))
    assert disk.reads
    disk.reads = 0
    assert seqs(log.since(195, 1000, ALL).events) == list(range(196, 201))
    assert disk.reads == 0


def test_after_a_start_all_are_on_disk(disk: Disk) -> None:
    disk.events = make_events(107, 10)
    disk.now_us = 120  # numbers up to 120 were given, and taken back
    log = disk.make_log()
    assert seqs(log.since(0, 100, ALL).events) == list(range(107, 117))
    publish(log, disk, make_events(121, 2))
    page = log.since(110, 100, ALL)
    assert seqs(page.events) == [*range(111, 117), 121, 122]
    assert not page.is_gap


def test_numbers_may_lie_far_apart(
    log: EventLog, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "RECENT", 10)
    monkeypatch.setattr(events_module, "SLACK", 2)
    monkeypatch.setattr(events_module, "CHUNK", 4)
    for n in range(20):
        publish(log, disk, make_events(1000 * (n + 1), 3, step=7))
    for since in (100, 999, 1000, 1006, 9007, 18_500, 20_013, 20_014):
        page = log.since(since, 1000, ALL)
        assert seqs(page.events) == [seq for seq in seqs(disk.events) if seq > since]
        assert (page.is_gap, page.next) == (False, 20_014)


def test_what_leaves_the_memory_during_a_look_is_not_missed(
    log: EventLog, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "RECENT", 2)
    monkeypatch.setattr(events_module, "SLACK", 0)
    read = disk.read
    publish(log, disk, make_events(101, 5))
    late = make_events(106, 5)

    def read_slowly(after: int, upto: int, limit: int) -> list[Event]:
        found = read(after, upto, limit)
        if not found and late:
            publish(log, disk, late[:])
            late.clear()
        return found

    monkeypatch.setattr(log, "_read", read_slowly)
    disk.events = disk.events[3:]
    assert seqs(log.since(101, 100, ALL).events) == [104, 105, *range(106, 111)]
    disk.events = [event for event in disk.events if event.seq > 108]
    late += make_events(111, 5)
    assert seqs(log.since(107, 100, ALL).events) == list(range(109, 116))


@pytest.mark.parametrize("since", [3, 99, 106, 10**15])
def test_number_that_is_not_there_is_a_gap(log: EventLog, disk: Disk, since: int) -> None:
    publish(log, disk, make_events(101, 5))
    page = log.since(since, 100, ALL)
    assert page.is_gap
    assert seqs(page.events) == [101, 102, 103, 104, 105]
    assert not log.since(100, 100, ALL).is_gap


def test_number_that_was_not_given_and_has_passed_is_none(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(110, 2, step=10))
    page = log.since(115, 100, ALL)
    assert (page.is_gap, seqs(page.events)) == (False, [120])
    disk.now_us = 500
    page = log.since(400, 100, ALL)
    assert (page.is_gap, page.events, page.next) == (False, [], 400)


def test_forgotten_ones_are_a_gap(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(110, 6, step=10))
    disk.forget(3)
    for since, is_gap in ((110, True), (129, True), (130, False), (135, False), (0, False)):
        page = log.since(since, 100, ALL)
        assert (page.is_gap, page.first_seq) == (is_gap, 131)
        assert seqs(page.events) == [140, 150, 160]


def test_forgotten_ones_are_a_gap_in_the_middle_of_a_look(
    log: EventLog, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "RECENT", 2)
    monkeypatch.setattr(events_module, "SLACK", 0)
    monkeypatch.setattr(events_module, "CHUNK", 4)
    publish(log, disk, make_events(101, 20))
    read = disk.read

    def forget_behind(after: int, upto: int, limit: int) -> list[Event]:
        if after == 104:
            disk.forget(10)
        return read(after, upto, limit)

    monkeypatch.setattr(log, "_read", forget_behind)
    page = log.since(100, 100, ALL)
    assert page.is_gap
    assert seqs(page.events) == [*range(101, 105), *range(111, 121)]


# --- a client that is bound to a user -----------------------------------------------------


def bound_pages(others: int) -> list[tuple[list[int], int, int, bool]]:
    """Return what a bound client is shown, with more or fewer events of somebody else's."""
    disk = Disk()
    log = disk.make_log()
    shown = []

    def look() -> None:
        for since in (0, 3, 150, 1000, 1005, 2000, 5000, 10**15):
            for limit in (1, 100):
                for wanted in (MINE, Wanted(owner="me", jid="x"), Wanted(owner="me", job="none")):
                    page = log.since(since, limit, wanted)
                    shown.append((seqs(page.events), page.next, page.first_seq, page.is_gap))

    for first in (1000, 2000, 3000):
        publish(log, disk, make_events(first, 2, auid="me", step=10))
        if others:
            publish(log, disk, make_events(first + 100, others))
        look()
    disk.now_us = 6000
    if others:
        disk.horizon.forget(900, {"tester": 900})
    look()
    restarted = disk.make_log()
    restarted.since(0, 100, MINE)
    log = restarted
    look()
    return shown


def test_bound_client_is_told_nothing_of_others() -> None:
    assert bound_pages(0) == bound_pages(3) == bound_pages(600)


def test_bound_client_goes_on_from_what_it_asked_for_or_its_own(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(110, 1, auid="me") + make_events(111, 5))
    assert log.since(0, 10, Wanted(owner="me", jid="none")).next == 110
    page = log.since(110, 10, MINE)
    assert (page.events, page.next, page.first_seq, page.is_end) == ([], 110, 101, True)
    publish(log, disk, make_events(120, 1, auid="me"))
    assert seqs(log.since(110, 10, MINE).events) == [120]


def test_horizon_of_a_bound_client_is_its_own(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(110, 2, auid="me") + make_events(120, 5))
    publish(log, disk, make_events(130, 1, auid="me"))
    disk.forget(1)
    disk.forget(4)  # the other one of its own, and three
    assert (disk.horizon.of(None), disk.horizon.of("me"), disk.horizon.of("x")) == (122, 111, 100)
    for since, is_gap in ((99, True), (110, True), (111, False), (115, False)):
        page = log.since(since, 10, MINE)
        assert (page.is_gap, page.first_seq, seqs(page.events)) == (is_gap, 112, [130])
    page = log.since(105, 10, Wanted(owner="x"))
    assert (page.is_gap, page.first_seq, page.events, page.next) == (False, 101, [], 105)


def test_bound_client_is_looked_for_to_the_end(
    log: EventLog, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MAX_SCAN", 100)
    publish(log, disk, make_events(101, 2000) + make_events(3000, 1, auid="me"))
    assert seqs(log.since(0, 10, MINE).events) == [3000]
    assert log.since(0, 10, Wanted(jid="none")).next < 3000


def test_who_has_nothing_new_costs_no_look(
    log: EventLog, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "RECENT", 2)
    monkeypatch.setattr(events_module, "SLACK", 0)
    publish(log, disk, make_events(110, 1, auid="me") + make_events(111, 50))
    assert log.since(0, 10, MINE).next == 110
    publish(log, disk, make_events(200, 50))
    disk.reads = 0
    assert log.since(110, 10, MINE).events == []
    assert log.since(150, 10, MINE).next == 150
    assert disk.reads == 0
    assert seqs(log.since(105, 10, MINE).events) == [110]
    publish(log, disk, make_events(300, 1, auid="me") + make_events(301, 50))
    assert seqs(log.since(110, 10, MINE).events) == [300]


# --- who waits ----------------------------------------------------------------------------


def test_subscribers_are_told_of_what_they_want(log: EventLog, disk: Disk) -> None:
    told: list[str] = []
    wanted = {
        "all": ALL,
        "a": Wanted(jid="a"),
        "b": Wanted(jid="b"),
        "owner": Wanted(owner="tester"),
        "other": Wanted(owner="somebody"),
        "deleted": Wanted(kinds=frozenset({"deleted"})),
    }
    forget = [
        log.subscribe(lambda name=name: told.append(name), each) for name, each in wanted.items()
    ]
    log.tell()
    assert told == []
    publish(log, disk, make_events(101, 2))
    log.tell()
    assert sorted(told) == ["a", "all", "owner"]
    log.tell()
    assert len(told) == 3
    for each in forget:
        each()
        each()
    publish(log, disk, make_events(103, 2))
    log.tell()
    assert len(told) == 3
    assert log._subscribers == {}


def test_who_was_late_is_told_in_any_case(
    log: EventLog, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "RECENT", 2)
    monkeypatch.setattr(events_module, "SLACK", 0)
    told: list[str] = []
    log.subscribe(lambda: told.append("b"), Wanted(jid="b"))
    publish(log, disk, make_events(101, 1, "b"))
    publish(log, disk, make_events(102, 5, "a"))
    log.tell()
    assert told == ["b"]


def test_end_tells_all(log: EventLog) -> None:
    told: list[str] = []
    log.subscribe(lambda: told.append("x"), Wanted(jid="x"))
    log.close()
    assert log.is_closed
    assert told == ["x"]
