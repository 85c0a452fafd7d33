"""Events and letters in `pman.db`: numbers, migration, pruning, commits that failed and did not."""

from __future__ import annotations

import sqlite3
import time
import uuid
from pathlib import Path

import pytest
from jobdb_builders import THEN, finished_job, make_job

from pman.errors import SnapshotError
from pman.job.event import Event, accepted
from pman.job.record import Job
from pman.jobdb import database as database_module
from pman.jobdb.database import Database
from pman.jobdb.event_json import decode_event, encode_event
from pman.jobdb.outbox import Letter, OutboxChanges, letter_for, losses
from pman.jobdb.reader import Reader
from pman.jobdb.record_json import encode_record

#: What made a file before there were events.
SCHEMA_1 = (
    "CREATE TABLE jobs (seq INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "PRAGMA user_version = 1",
)

#: What it got then, before the numbers of events were the time and letters had an auid.
EARLY_SCHEMA_2 = (
    "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB NOT NULL)",
    "CREATE TABLE outbox (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL,"
    " url TEXT NOT NULL, body BLOB NOT NULL, created_at REAL NOT NULL, next_at REAL NOT NULL,"
    " tries INTEGER NOT NULL, problem TEXT NOT NULL, given_up_at REAL)",
    "INSERT INTO events VALUES (1, '{}')",
    "INSERT INTO outbox VALUES (1, 'msg_1', 'job-1', 'http://h/', '{}', 0, 0, 0, '', NULL)",
    "PRAGMA user_version = 2",
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.create(tmp_path / "pman.db", [], str(uuid.uuid4()))


def events_for(database: Database, *jobs: Job) -> list[Event]:
    events = [accepted(job, THEN) for job in jobs]
    for seq, event in enumerate(events, database.last_seq + 1):
        event.seq = seq
    return events


def write(database: Database, *jobs: Job) -> list[Event]:
    events = events_for(database, *jobs)
    database.apply([(job.name, encode_record(job)) for job in jobs], [], events)
    return events


def on_disk(database: Database) -> list[Event]:
    reader = Reader(database.path)
    try:
        return reader.events(0, 2**62, 10**6)
    finally:
        reader.close()


def test_event_comes_back_as_it_was() -> None:
    for job in (make_job(), finished_job("x", (1,), labels={"a": "b"}, progress=0.5)):
        event = accepted(job, THEN)
        event.seq = 5
        assert decode_event(encode_event(event)) == event
    odd = accepted(make_job(message="half a pair: \ud800"), THEN)
    assert decode_event(encode_event(odd)) == odd
    assert odd.message == "half a pair: ?"
    with pytest.raises(SnapshotError):
        decode_event(b'{"x": 1}')


def test_event_of_a_later_version_can_be_read() -> None:
    raw = encode_event(accepted(make_job(), THEN))
    assert decode_event(raw[:-1] + b',"new"]') == decode_event(raw)


def test_numbers_go_on_over_restarts_and_from_the_time_on(database: Database) -> None:
    assert abs(database.last_seq - time.time() * 1e6) < 60e6
    assert database.horizon.of(None) == database.horizon.of("a") == database.last_seq
    first = write(database, make_job(), make_job())
    database.close()
    again = Database.open(database.path)
    assert (again.horizon.of(None), again.last_seq) == (first[0].seq - 1, first[1].seq)
    second = write(again, make_job())
    assert on_disk(again) == first + second
    again.close()


def test_numbers_of_a_new_file_are_above_those_of_the_lost_one(
    database: Database, tmp_path: Path
) -> None:
    last = write(database, *(make_job() for _ in range(10)))[-1].seq
    database.close()
    rebuilt = Database.create(tmp_path / "other.db", [], "instance")
    assert rebuilt.last_seq > last
    rebuilt.close()


def make_schema_1(path: Path, jobs: list[Job]) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        for statement in SCHEMA_1:
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('instance', 'the-instance')")
        connection.executemany(
            "INSERT INTO jobs (name, record) VALUES (?, ?)",
            [(job.name, encode_record(job)) for job in jobs],
        )
    connection.close()


def test_former_file_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "pman.db"
    jobs = [finished_job("b"), make_job("a")]
    make_schema_1(path, jobs)
    database = Database.open(path)
    assert database.read_all() == jobs
    assert database.instance() == "the-instance"
    events = write(database, make_job("c"))
    database.close()
    again = Database.open(path)
    assert on_disk(again) == events
    assert [job.jid for job in again.read_all()] == ["b", "a", "c"]
    again.close()


def test_file_of_an_early_schema_2_is_made_whole(tmp_path: Path) -> None:
    path = tmp_path / "pman.db"
    make_schema_1(path, [make_job("a")])
    connection = sqlite3.connect(path)
    with connection:
        for statement in EARLY_SCHEMA_2:
            connection.execute(statement)
    connection.close()
    for _ in range(2):
        database = Database.open(path)
        assert abs(database.last_seq - time.time() * 1e6) < 60e6
        assert database.horizon.of("me") == database.horizon.of(None)
        database.close()
    reader = Reader(path)
    assert [(each.id, each.auid) for each in reader.letters()] == [("msg_1", "")]
    reader.close()


def test_taking_over_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pman.db"
    make_schema_1(path, [make_job("a")])
    statements = database_module._ADD_EVENTS_AND_OUTBOX
    monkeypatch.setattr(database_module, "_ADD_EVENTS_AND_OUTBOX", (*statements, "no SQL"))
    with pytest.raises(SnapshotError):
        Database.open(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert sorted(tables) == [("jobs",), ("meta",)]
    connection.close()
    monkeypatch.undo()
    database = Database.open(path)
    assert [job.jid for job in database.read_all()] == ["a"]
    database.close()


def test_oldest_are_pruned_some_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PRUNE_SLACK", 3)
    monkeypatch.setattr(database_module, "PRUNE_MOST", 5)
    events = write(database, *(make_job() for _ in range(20)))
    database.keep_events = 10
    for left in (16, 12, 13, 10, 11):
        events += write(database, make_job())
        assert on_disk(database) == events[-left:], left
        assert database.horizon.of(None) == events[-left - 1].seq
    database.close()
    again = Database.open(database.path)
    assert again.horizon.of(None) == events[-12].seq
    again.keep_events = 10
    for left in (12, 13, 10):  # counted anew
        events += write(again, make_job())
        assert on_disk(again) == events[-left:], left
    again.close()


def test_of_each_user_the_newest_that_was_forgotten_is_known(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PRUNE_SLACK", 0)
    began = database.last_seq
    events = write(database, *(make_job(auid=auid) for auid in ("a", "b", "a", "c", "b", "c")))
    with sqlite3.connect(database.path) as connection:
        connection.execute("UPDATE events SET event = '{}' WHERE seq = ?", (events[1].seq,))
    connection.close()
    database.keep_events = 4
    horizon = database.horizon
    write(database, make_job())
    expected = {None: events[2].seq, "a": events[2].seq, "b": began, "c": began}
    assert {owner: horizon.of(owner) for owner in expected} == expected
    for _ in range(2):
        write(database, make_job())
    expected |= {None: events[4].seq, "b": events[4].seq, "c": events[3].seq}
    assert {owner: horizon.of(owner) for owner in expected} == expected
    database.close()
    again = Database.open(database.path)
    assert {owner: again.horizon.of(owner) for owner in expected} == expected
    again.close()


def test_number_above_which_all_are_there_does_not_go_by_those_that_are_left(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PRUNE_SLACK", 0)
    database.keep_events = 1
    for step in (1000, 2000):
        event = accepted(make_job(), THEN)
        event.seq = database.last_seq + step
        database.apply([], [], [event])
        if step == 1000:
            first = event.seq
    database.close()
    again = Database.open(database.path)
    assert (again.horizon.of(None), again.last_seq) == (first, first + 2000)
    again.close()


class Forgetful(Database):
    """A data base whose next commits are reported as failed, though they are durable."""

    failures = 0

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        if not self.failures:
            return connection
        owner = self

        class Lying:
            def execute(self, statement: str, *more: object) -> sqlite3.Cursor:
                cursor = connection.execute(statement, *more)
                if statement == "COMMIT":
                    owner.failures -= 1
                    raise sqlite3.OperationalError("disk I/O error")
                return cursor

            def __getattr__(self, name: str) -> object:
                return getattr(connection, name)

        return Lying()  # type: ignore[return-value]


def test_commit_that_failed_and_is_durable_all_the_same(tmp_path: Path) -> None:
    """A new job of it was refused, so it goes; what is tried again is there once."""
    Database.create(tmp_path / "pman.db", [], "instance").close()
    database = Forgetful(tmp_path / "pman.db")
    known, refused, other = make_job("known"), make_job("refused"), make_job("other")
    first = write(database, known)
    database.failures = 2
    for _ in range(2):
        with pytest.raises(SnapshotError):
            write(database, known, refused)
    assert len(on_disk(database)) == 3
    second = write(database, known, other)
    assert on_disk(database) == first + second
    assert [event.seq for event in second] == [first[0].seq + 1, first[0].seq + 2]
    assert [job.jid for job in database.read_all()] == ["known", "other"]
    database.close()


def letter(number: int, auid: str = "me") -> Letter:
    url = "http://h/"
    return Letter(f"msg_{number}", f"job-{number}", auid, url, b"{}", THEN, THEN + number)


def test_letters_stay_until_they_are_done(database: Database) -> None:
    one, two, three = letter(1), letter(2), letter(3)
    database.apply([], [], (), OutboxChanges(new=[one, two, three]))
    one.tries, one.problem, one.next_at = 2, "no answer", THEN + 60
    three.given_up_at = THEN
    database.apply([], [], (), OutboxChanges(tried=[one, three], done=["msg_2", "unknown"]))
    reader = Reader(database.path)
    assert reader.letter("msg_1") == one
    assert reader.letter("msg_2") is None
    assert [each.id for each in reader.letters()] == ["msg_1", "msg_3"]
    reader.close()
    database.close()


def test_letter_of_a_user_whose_name_is_not_unicode_can_be_written(database: Database) -> None:
    job = finished_job("x", (0,), auid="half a pair: \ud800", callback="http://h/")
    event = accepted(job, THEN)
    database.apply([], [], (), OutboxChanges(new=[letter_for(job, event)]))
    reader = Reader(database.path)
    assert [each.auid for each in reader.letters()] == ["half a pair: ?"]
    reader.close()
    database.close()


def test_letter_written_twice_is_there_once(database: Database) -> None:
    database.apply([], [], (), OutboxChanges(new=[letter(1)]))
    database.apply([], [], (), OutboxChanges(new=[letter(1)]))
    reader = Reader(database.path)
    assert len(reader.letters()) == 1
    reader.close()
    database.close()


def test_too_many_letters_cost_the_oldest(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_module, "MAX_LETTERS", 3)
    letters = [letter(n) for n in range(3)]
    letters[2].given_up_at = THEN
    database.apply([], [], (), OutboxChanges(new=letters))
    database.apply([], [], (), OutboxChanges(new=[letter(3)]))
    reader = Reader(database.path)
    assert [each.id for each in reader.letters()] == ["msg_0", "msg_1", "msg_3"]
    database.apply([], [], (), OutboxChanges(new=[letter(4)]))
    assert [each.id for each in reader.letters()] == ["msg_1", "msg_3", "msg_4"]
    assert "1 callbacks are dropped" in caplog.text
    reader.close()
    database.close()


def test_too_many_letters_are_those_of_who_has_most(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_module, "MAX_LETTERS", 5)
    others = [letter(n, auid) for n, auid in enumerate(("you", "they"))]
    mine = [letter(n, "me") for n in range(2, 9)]
    database.apply([], [], (), OutboxChanges(new=others))
    database.apply([], [], (), OutboxChanges(new=mine))
    reader = Reader(database.path)
    assert [each.id for each in reader.letters()] == ["msg_0", "msg_1", "msg_6", "msg_7", "msg_8"]
    assert "4 callbacks are dropped of jobs with auid 'me'" in caplog.text
    reader.close()
    database.close()


@pytest.mark.parametrize(
    ("counts", "surplus", "expected"),
    [
        ({"a": 5, "b": 1}, 2, {"a": 2}),
        ({"a": 5, "b": 4}, 3, {"a": 2, "b": 1}),
        ({"a": 1}, 1, {"a": 1}),
    ],
)
def test_who_loses_how_many(counts: dict[str, int], surplus: int, expected: dict[str, int]) -> None:
    assert losses(counts, surplus) == expected


def test_reader_says_what_is_wrong_and_recovers(database: Database, tmp_path: Path) -> None:
    events = write(database, make_job())
    database.close()
    moved = database.path.rename(tmp_path / "moved.db")
    reader = Reader(database.path)
    with pytest.raises(SnapshotError, match="unable to open"):
        reader.events(0, 2**62, 10)
    moved.rename(database.path)
    assert reader.events(0, 2**62, 10) == events
    reader.close()
    reader.close()


def test_event_that_cannot_be_read_is_left_out(database: Database) -> None:
    events = write(database, make_job(), make_job(), make_job())
    with sqlite3.connect(database.path) as connection:
        connection.execute("UPDATE events SET event = '{}' WHERE seq = ?", (events[1].seq,))
    connection.close()
    assert on_disk(database) == [events[0], events[2]]
    database.close()
