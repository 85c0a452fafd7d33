"""`Reader`: a second connection to `pman.db`, for what is not kept in memory. Never writes."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

from pman.errors import SnapshotError
from pman.job.event import Event
from pman.jobdb.database import BUSY_TIMEOUT_S, translated
from pman.jobdb.event_json import decode_event
from pman.jobdb.outbox import Letter

_log = logging.getLogger(__name__)

_LETTER = (
    "SELECT id, job, auid, url, body, created_at, next_at, tries, problem, given_up_at FROM outbox"
)


class Reader:
    """Reads beside the writer: in WAL mode neither holds up the other. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def events(self, after: int, upto: int, limit: int) -> list[Event]:
        """Return the first events with numbers above `after`, up to `upto`.

        One that can't be read is left out, with a line in the log.

        Raises:
            SnapshotError: The file cannot be read.
        """
        found: list[Event] = []
        while not found and after < upto:
            rows = self._rows(
                "SELECT seq, event FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                (after, upto, limit),
            )
            if not rows:
                break
            for seq, raw in rows:
                try:
                    found.append(decode_event(raw))
                except SnapshotError as exc:
                    _log.error("event %d is left out: %s", seq, exc)
            after = rows[-1][0]
        return found

    def letters(self) -> list[Letter]:
        """Return all letters, in the order in which they were written, without their bodies.

        Raises:
            SnapshotError: The file cannot be read.
        """
        rows = self._rows(_LETTER.replace("body", "x''") + " ORDER BY seq", ())
        return [Letter(*row) for row in rows]

    def letter(self, letter_id: str) -> Letter | None:
        """Return one letter; None when it is not there any more.

        Raises:
            SnapshotError: The file cannot be read.
        """
        rows = self._rows(f"{_LETTER} WHERE id = ?", (letter_id,))
        return Letter(*rows[0]) if rows else None

    def close(self) -> None:
        """Give the file back; may be called twice."""
        with self._lock:
            self._drop()

    def _rows(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                with translated(self._path):
                    # all at once: a statement that is not done with keeps the log from being reset
                    return self._connect().execute(statement, values).fetchall()
            except SnapshotError:
                self._drop()
                raise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            # rw, because one that may only read cannot open a write-ahead log that is not in use
            self._connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.execute("PRAGMA query_only = ON")
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
