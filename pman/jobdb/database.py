"""`Database`: the SQLite file `pman.db`. One connection, used by one thread at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from pman.errors import SnapshotError, shown
from pman.job.event import Event
from pman.job.record import Job
from pman.jobdb.event_json import auid_in, decode_event, encode_event
from pman.jobdb.horizon import Horizon
from pman.jobdb.numbering import LATEST_US
from pman.jobdb.outbox import MAX_LETTERS, OutboxChanges, losses
from pman.jobdb.record_json import decode_record, encode_record

_log = logging.getLogger(__name__)

#: Layout of the tables, kept in `user_version`; 0 is a file that was never finished.
SCHEMA = 2

#: The first layout, which had neither events nor an outbox.
SCHEMA_OF_JOBS = 1

#: What SQLite puts beside its file.
COMPANIONS = ("-wal", "-shm")

#: How long to wait for somebody who looks into the file, seconds.
BUSY_TIMEOUT_S = 5.0

#: Events that may be too many before the oldest go, and most that go at a time.
PRUNE_SLACK, PRUNE_MOST = 1_000, 5_000

_CREATE = (
    "CREATE TABLE jobs (seq INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
_ADD_EVENTS_AND_OUTBOX = (
    "CREATE TABLE IF NOT EXISTS events"
    " (seq INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS forgotten (auid TEXT PRIMARY KEY, seq INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
    " job TEXT NOT NULL, auid TEXT NOT NULL, url TEXT NOT NULL, body BLOB NOT NULL,"
    " created_at REAL NOT NULL, next_at REAL NOT NULL, tries INTEGER NOT NULL,"
    " problem TEXT NOT NULL, given_up_at REAL)",
)
_ADD_AUID = "ALTER TABLE outbox ADD COLUMN auid TEXT NOT NULL DEFAULT ''"
_ORDER_LETTERS = (
    "CREATE INDEX IF NOT EXISTS outbox_of_auid ON outbox (auid, given_up_at IS NULL, seq)"
)
_UPSERT = (
    "INSERT INTO jobs (name, record) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET record = excluded.record"
)
_LAST_SEQ = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
_FORGET = "INSERT OR REPLACE INTO forgotten VALUES (?, ?)"
_KEEP_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_ADD_LETTER = (
    "INSERT OR REPLACE INTO outbox"
    " (id, job, auid, url, body, created_at, next_at, tries, problem, given_up_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_KEEP_TRIES = "UPDATE outbox SET next_at = ?, tries = ?, problem = ?, given_up_at = ? WHERE id = ?"
_DROP_OLDEST_LETTERS = (
    "DELETE FROM outbox WHERE seq IN"
    " (SELECT seq FROM outbox WHERE auid = ? ORDER BY given_up_at IS NULL, seq LIMIT ?)"
)

#: Keys in `meta`: the number behind which events began, and that of the newest forgotten one.
_BEGAN, _FORGOTTEN = "events-began", "events-forgotten"

#: Result codes that mean "this is not, or no longer, a data base".
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class DatabaseDamaged(SnapshotError):
    """The file is there and cannot be read as a job DB."""


class Database:
    """The jobs on disk, `seq` keeps the order of acceptance; their events; the outbox.

    Attributes:
        keep_events: About how many events are kept; 0: all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keep_events = 0
        self._connection: sqlite3.Connection | None = None
        self._last_seq: int | None = None
        self._count: int | None = None  # of events
        self._horizon: Horizon | None = None
        self._is_unsure = False  # whether the last transaction, which failed, is durable

    @classmethod
    def create(cls, path: Path, jobs: Iterable[Job], instance: str) -> Database:
        """Make the file with all that is to be in it; a crash leaves one that counts as damaged.

        Args:
            path: Nothing may be there yet.
            instance: Name of this job DB, for labels on engines.
        Raises:
            SnapshotError: The disk would not take it.
        """
        with translated(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        database = cls(path)
        with database._transaction() as connection:
            for statement in _CREATE:
                connection.execute(statement)
            _complete(connection)
            connection.execute("INSERT INTO meta VALUES ('instance', ?)", (instance,))
            connection.executemany(_UPSERT, ((job.name, encode_record(job)) for job in jobs))
        return database

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open and check the file.

        Raises:
            DatabaseDamaged: It is not a job DB, or not a whole one.
            SnapshotError: It cannot be read, or was written by a later pman.
        """
        database = cls(path)
        try:
            with translated(path):
                database._check(database._connect())
        except SnapshotError:
            database.close()
            raise
        return database

    def read_all(self) -> list[Job]:
        """Return every job, in order of acceptance; a record that can't be read is left out.

        Raises:
            SnapshotError: The file cannot be read.
        """
        jobs = []
        with translated(self.path):
            for name, record in self._connect().execute(
                "SELECT name, record FROM jobs ORDER BY seq"
            ):
                try:
                    jobs.append(decode_record(record))
                except SnapshotError as exc:
                    _log.error("job %s is left out: %s", name, exc)
        return jobs

    def names(self) -> list[str]:
        """Return the names of all jobs, of those too whose record can't be read.

        Raises:
            SnapshotError: The file cannot be read.
        """
        with translated(self.path):
            return [row[0] for row in self._connect().execute("SELECT name FROM jobs")]

    def instance(self) -> str:
        """Return the name of this job DB.

        Raises:
            DatabaseDamaged: It has none.
        """
        with translated(self.path):
            row = (
                self._connect().execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
            )
        if row is None:
            raise DatabaseDamaged(f"{self.path} has no instance")
        return str(row[0])

    @property
    def last_seq(self) -> int:
        """Highest number that an event was ever given, or the one behind which they begin.

        Raises:
            SnapshotError: The file cannot be read.
        """
        if self._last_seq is None:
            with translated(self.path):
                self._last_seq = int(self._connect().execute(_LAST_SEQ).fetchone()[0])
        return self._last_seq

    @property
    def horizon(self) -> Horizon:
        """What is forgotten; always the same object, which changes with the file.

        Raises:
            SnapshotError: The file cannot be read.
        """
        if self._horizon is None:
            with translated(self.path):
                connection = self._connect()
                meta = dict(connection.execute("SELECT key, value FROM meta"))
                users = dict(connection.execute("SELECT auid, seq FROM forgotten"))
            began = int(meta[_BEGAN])
            self._horizon = Horizon(began, int(meta.get(_FORGOTTEN, began)), users)
        return self._horizon

    def apply(
        self,
        upserts: Sequence[tuple[str, bytes]],
        deletes: Sequence[str],
        events: Sequence[Event] = (),
        outbox: OutboxChanges | None = None,
    ) -> None:
        """Change jobs in one transaction; durable on return.

        Args:
            upserts: Name and record; a name that is new, or deleted here, goes behind all others.
            deletes: Names; removed first.
            events: What has happened, with growing numbers above `last_seq`.
            outbox: Letters to add, to keep the tries of, to remove.
        Raises:
            SnapshotError: Nothing was changed; the next call starts afresh. Where a disk that
                reported a failure has kept the change all the same, the next call takes back what
                it does not hold itself.
        """
        last_seq = self.last_seq
        count = self._count
        try:
            with self._transaction() as connection:
                if self._is_unsure:
                    _take_back(connection, last_seq, {name for name, _ in upserts})
                connection.executemany("DELETE FROM jobs WHERE name = ?", ((n,) for n in deletes))
                connection.executemany(_UPSERT, upserts)
                if events:
                    connection.executemany(
                        "INSERT INTO events VALUES (?, ?)",
                        ((event.seq, encode_event(event)) for event in events),
                    )
                    last_seq = events[-1].seq
                    count = self._prune(connection, count, len(events))
                if outbox is not None:
                    _change_outbox(connection, outbox)
        except BaseException:
            self._is_unsure = True
            raise
        self._is_unsure = False
        self._last_seq, self._count = last_seq, count

    def _prune(self, connection: sqlite3.Connection, count: int | None, added: int) -> int | None:
        """Remove the oldest events if there are too many.

        Args:
            count: How many there were before; None: not counted yet.
            added: How many have been added.
        Returns:
            How many are left; None: not counted.
        """
        if not self.keep_events:
            return None
        if count is None:
            count = int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
        else:
            count += added
        surplus = count - self.keep_events
        if surplus <= PRUNE_SLACK:
            return count
        rows = connection.execute(
            "SELECT seq, event FROM events ORDER BY seq LIMIT ?", (min(surplus, PRUNE_MOST),)
        ).fetchall()
        upto = rows[-1][0]
        users = {auid: seq for seq, raw in rows if (auid := auid_in(raw)) is not None}
        self.horizon.forget(upto, users)
        connection.executemany(_FORGET, users.items())
        connection.execute(_KEEP_META, (_FORGOTTEN, str(upto)))
        connection.execute("DELETE FROM events WHERE seq <= ?", (upto,))
        return count - len(rows)

    def close(self) -> None:
        """Give the file back; may be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as exc:  # nothing is lost: commits are in the write-ahead log
                _log.warning("%s was not closed cleanly: %s", self.path, exc)

    def _connect(self) -> sqlite3.Connection:
        """Return the connection, made anew after a failure."""
        if self._connection is None:
            # mode=rw: a file that somebody removed must not come back empty
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection = connection
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        return self._connection

    def _check(self, connection: sqlite3.Connection) -> None:
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        if schema == 0:
            raise DatabaseDamaged(f"{self.path} is empty")
        if schema not in (SCHEMA_OF_JOBS, SCHEMA):
            raise SnapshotError(f"{self.path} has schema {schema}, expected {SCHEMA}")
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise DatabaseDamaged(f"{self.path}: {problem}")
        with self._transaction() as changing:
            _complete(changing)
        if schema == SCHEMA_OF_JOBS:
            _log.info("%s has a log of events from now on; older pmans can't read it", self.path)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with translated(self.path):
                connection = self._connect()
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        except BaseException:
            # Closing rolls back. After a full disk or an I/O error only a new connection is sure
            # to see the file as it is.
            self.close()
            raise


def _complete(connection: sqlite3.Connection) -> None:
    """Make what schema 2 has beyond schema 1, and what a file of an early schema 2 lacks."""
    for statement in _ADD_EVENTS_AND_OUTBOX:
        connection.execute(statement)
    if "auid" not in {row[1] for row in connection.execute("PRAGMA table_info(outbox)")}:
        connection.execute(_ADD_AUID)
    connection.execute(_ORDER_LETTERS)
    if connection.execute("SELECT 1 FROM meta WHERE key = ?", (_BEGAN,)).fetchone() is None:
        _begin_events(connection)
    if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _begin_events(connection: sqlite3.Connection) -> None:
    """Give the next event a number above all that clients have been given.

    Numbers are the time, in microseconds, so this holds for a file that takes the place of a lost
    one as well.
    """
    began = min(time.time_ns() // 1000, LATEST_US)
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (began,))
    connection.execute(_KEEP_META, (_BEGAN, str(began)))


def _take_back(connection: sqlite3.Connection, last_seq: int, written: set[str]) -> None:
    """Undo what a transaction did that was taken for failed, but for what is written again now.

    Everything in it comes again, with its events, but for new jobs: those were refused.

    Args:
        last_seq: Number of the last event before those that it may have written.
        written: Names of the jobs that are written now.
    """
    rows = connection.execute("SELECT event FROM events WHERE seq > ?", (last_seq,)).fetchall()
    if rows:
        refused = {decode_event(raw).job for (raw,) in rows} - written
        connection.executemany("DELETE FROM jobs WHERE name = ?", ((name,) for name in refused))
        connection.execute("DELETE FROM events WHERE seq > ?", (last_seq,))


def _change_outbox(connection: sqlite3.Connection, changes: OutboxChanges) -> None:
    connection.executemany(
        "DELETE FROM outbox WHERE id = ?", ((letter_id,) for letter_id in changes.done)
    )
    connection.executemany(
        _KEEP_TRIES,
        (
            (each.next_at, each.tries, each.problem, each.given_up_at, each.id)
            for each in changes.tried
        ),
    )
    if changes.new:
        connection.executemany(_ADD_LETTER, map(msgspec.structs.astuple, changes.new))
        _drop_surplus_letters(connection)


def _drop_surplus_letters(connection: sqlite3.Connection) -> None:
    surplus = connection.execute("SELECT count(*) FROM outbox").fetchone()[0] - MAX_LETTERS
    if surplus <= 0:
        return
    counts = dict(connection.execute("SELECT auid, count(*) FROM outbox GROUP BY auid"))
    for auid, lost in losses(counts, surplus).items():
        connection.execute(_DROP_OLDEST_LETTERS, (auid, lost))
        _log.error(
            "%d callbacks are dropped of jobs with auid %s, which has most of the %d that may wait",
            lost,
            shown(auid),
            MAX_LETTERS,
        )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into `SnapshotError` with a reason."""
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DAMAGE:
            raise DatabaseDamaged(f"{path} is damaged: {exc}") from exc
        if code == sqlite3.SQLITE_FULL:
            raise SnapshotError(f"no space left for the job DB {path}") from exc
        raise SnapshotError(f"the job DB {path} cannot be used: {exc}") from exc
    except OSError as exc:
        raise SnapshotError(f"the job DB {path} cannot be used: {exc.strerror}") from exc
