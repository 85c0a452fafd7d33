"""The bodies of `logs` replies that are made while they are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec

from pman.actions._joblog import JobLog
from pman.actions.base import ActionContext
from pman.errors import UnknownJob
from pman.job.record import Job
from pman.logreading import PIECE_BYTES, StreamFile

#: Between two looks at the files of a job: while it prints, and at most, seconds.
POLL_S, MAX_POLL_S = 0.1, 0.4

#: By so much longer after each look in vain.
SLOWER = 1.25


class End(msgspec.Struct, rename="camel"):
    """The last record of a log that was followed to its end.

    Attributes:
        end: True.
        state: Of the job, or None when it was deleted.
        exit_code: Its exit code, if it has one.
        cursor: Where the reader is.
    """

    end: bool
    state: str | None
    exit_code: int | None
    cursor: str


class _Following:
    """What both bodies have in common: how soon to look again, and that their job may end."""

    def __init__(self, context: ActionContext, name: str) -> None:
        self.poll_s: float | None = POLL_S
        self._pace_s = POLL_S
        self._store = context.store
        self._name = name
        self._callback: Callable[[], None] | None = None

    def on_news(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the job ends; see `Body`."""
        self._callback = callback
        with contextlib.suppress(UnknownJob):  # `read` finds that out
            self._store.when_final(self._name, self._tell)

    def close(self) -> None:
        """Forget the callback: the job may go on for long."""
        self._store.no_longer(self._name, self._tell)
        self._callback = None

    def _pace(self, *, is_moving: bool) -> None:
        """Look again soon while there is something, less often while there is not."""
        self._pace_s = POLL_S if is_moving else min(MAX_POLL_S, SLOWER * self._pace_s)
        self.poll_s = self._pace_s

    def _tell(self, _: Job) -> None:
        callback = self._callback
        if callback is not None:
            callback()


class Records(_Following):
    """The records of a log as lines of JSON, until the job has ended and all was given."""

    may_end_anywhere = True  # what has no end record is not all

    def __init__(self, log: JobLog, context: ActionContext, limit: int | None) -> None:
        """Prepare.

        Args:
            limit: Most bytes of output; None for all. A reply that ends there has no end record.
        """
        super().__init__(context, log.position.job)
        self._log = log
        self._left = limit
        self._is_ended = False

    def read(self) -> bytes | None:
        """Return the next records, b"" when there are none yet, None at the end."""
        log = self._log
        if self._is_ended or self._left == 0:
            return None
        most = PIECE_BYTES if self._left is None else min(PIECE_BYTES, self._left)
        records = log.read(most)
        if self._left is not None:
            taken = sum(r.next - r.offset for r in records if not r.dropped)
            self._left = max(0, self._left - taken)
        lines = [msgspec.json.encode(record) for record in records]
        if log.is_complete:
            self._is_ended = True
            lines.append(msgspec.json.encode(self._end()))
        self._pace(is_moving=bool(lines))
        return b"\n".join([*lines, b""]) if lines else b""

    def _end(self) -> End:
        job = self._log.job
        cursor = self._log.position.cursor()
        if job is None:
            return End(True, None, None, cursor)
        return End(True, job.state.value, job.exit_code, cursor)


class RawBytes(_Following):
    """The bytes of one stream of one try, up to a gap or the end."""

    may_end_anywhere = False  # bytes do not tell

    def __init__(
        self,
        log: JobLog,
        file: StreamFile,
        offset: int,
        context: ActionContext,
        *,
        limit: int | None,
        is_followed: bool,
    ) -> None:
        """Prepare.

        Args:
            log: Tells whether its job has ended; not read.
            limit: Most bytes; None for all.
            is_followed: Whether to wait for more until the job has ended.
        """
        super().__init__(context, log.position.job)
        self._log = log
        self._file = file
        self._at = offset
        self._is_followed = is_followed
        self._until = None if limit is None else offset + limit
        if not is_followed:
            size = file.size()
            self._until = size if self._until is None else min(size, self._until)

    def read(self) -> bytes | None:
        """Return the next bytes, b"" when there are none yet, None at the end."""
        most = PIECE_BYTES if self._until is None else min(PIECE_BYTES, self._until - self._at)
        if most <= 0:
            return None
        is_over = self._log.look()
        fragment = self._file.read(self._at, most)
        self._pace(is_moving=fragment is not None)
        if fragment is None:
            return b"" if self._is_followed and not is_over else None
        if fragment.is_dropped:
            return None
        self._at = fragment.next
        return fragment.raw
