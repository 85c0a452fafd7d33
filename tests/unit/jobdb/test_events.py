"""`EventLog`: pages, gaps, the way from disk to memory, who is told."""

from __future__ import annotations

import pytest
from jobdb_builders import make_job

from pman.job.event import Event, Wanted, accepted
from pman.jobdb import events as events_module
from pman.jobdb.events import EventLog

ALL = Wanted()


class Disk:
    """Events that were published, and how often somebody read some."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reads = 0

    def read(self, after: int, upto: int, limit: int) -> list[Event]:
        self.reads += 1
        return [event for event in self.events if after < event.seq <= upto][:limit]


def make_events(first: int, count: int, jid: str = "a") -> list[Event]:
    events = []
    for seq in range(first, first + count):
        event = accepted(make_job(jid), 0.0)
        event.seq = seq
        events.append(event)
    return events


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def log(disk: Disk) -> EventLog:
    return EventLog(101, 100, disk.read)


def publish(log: EventLog, disk: Disk, events: list[Event]) -> None:
    disk.events += events
    log.publish(events, disk.events[0].seq)


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
    disk.events = make_events(7, 10)
    log = EventLog(7, 20, disk.read)  # numbers up to 20 were given out, and taken back
    assert seqs(log.since(0, 100, ALL).events) == list(range(7, 17))
    publish(log, disk, make_events(21, 2))
    page = log.since(10, 100, ALL)
    assert seqs(page.events) == [*range(11, 17), 21, 22]
    assert not page.is_gap


@pytest.mark.parametrize("since", [3, 99, 106, 10**15])
def test_number_that_is_not_there_is_a_gap(log: EventLog, disk: Disk, since: int) -> None:
    publish(log, disk, make_events(101, 5))
    page = log.since(since, 100, ALL)
    assert page.is_gap
    assert seqs(page.events) == [101, 102, 103, 104, 105]
    assert not log.since(100, 100, ALL).is_gap


def test_forgotten_ones_are_a_gap(log: EventLog, disk: Disk) -> None:
    publish(log, disk, make_events(101, 5))
    disk.events = disk.events[3:]
    publish(log, disk, make_events(106, 1))
    page = log.since(101, 100, ALL)
    assert (page.is_gap, page.first_seq, seqs(page.events)) == (True, 104, [104, 105, 106])
    assert not log.since(103, 100, ALL).is_gap


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
