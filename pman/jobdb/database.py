"""`Database`: the SQLite file `pman.db`. One connection, used by one thread at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pman.errors import SnapshotError
from pman.job.record import Job
from pman.jobdb.record_json import decode_record, encode_record

_log = logging.getLogger(__name__)

#: Layout of the tables, kept in `user_version`; 0 is a file that was never finished.
SCHEMA = 1

#: What SQLite puts beside its file.
COMPANIONS = ("-wal", "-shm")

#: How long to wait for somebody who looks into the file, seconds.
BUSY_TIMEOUT_S = 5.0

_CREATE = (
    "CREATE TABLE jobs (seq INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    f"PRAGMA user_version = {SCHEMA}",
)
_UPSERT = (
    "INSERT INTO jobs (name, record) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET record = excluded.record"
)

#: Result codes that mean "this is not, or no longer, a data base".
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class DatabaseDamaged(SnapshotError):
    """The file is there and cannot be read as a job DB."""


class Database:
    """The jobs on disk; `seq` keeps the order of acceptance."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    @classmethod
    def create(cls, path: Path, jobs: Iterable[Job], instance: str) -> Database:
        """Make the file with all that is to be in it; a crash leaves one that counts as damaged.

        Args:
            path: Nothing may be there yet.
            instance: Name of this job DB, for labels on engines.
        Raises:
            SnapshotError: The disk would not take it.
        """
        with _translated(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        database = cls(path)
        with database._transaction() as connection:
            for statement in _CREATE:
                connection.execute(statement)
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
            with _translated(path):
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
        with _translated(self.path):
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
        with _translated(self.path):
            return [row[0] for row in self._connect().execute("SELECT name FROM jobs")]

    def instance(self) -> str:
        """Return the name of this job DB.

        Raises:
            DatabaseDamaged: It has none.
        """
        with _translated(self.path):
            row = (
                self._connect().execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
            )
        if row is None:
            raise DatabaseDamaged(f"{self.path} has no instance")
        return str(row[0])

    def apply(self, upserts: Sequence[tuple[str, bytes]], deletes: Sequence[str]) -> None:
        """Change jobs in one transaction; durable on return.

        Args:
            upserts: Name and record; a name that is new, or deleted here, goes behind all others.
            deletes: Names; removed first.
        Raises:
            SnapshotError: Nothing was changed; the next call starts afresh.
        """
        with self._transaction() as connection:
            connection.executemany("DELETE FROM jobs WHERE name = ?", ((n,) for n in deletes))
            connection.executemany(_UPSERT, upserts)

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
        if schema != SCHEMA:
            raise SnapshotError(f"{self.path} has schema {schema}, expected {SCHEMA}")
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise DatabaseDamaged(f"{self.path}: {problem}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with _translated(self.path):
                connection = self._connect()
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        except BaseException:
            # Closing rolls back. After a full disk or an I/O error only a new connection is sure
            # to see the file as it is.
            self.close()
            raise


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
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
