"""`JobLog`: what one job prints, in records and over all its tries; each byte once."""

from __future__ import annotations

import base64
import re
from typing import Annotated

import msgspec

from pman.actions._named import JobId, check_one, newest
from pman.actions.base import ActionContext
from pman.errors import RequestError, UnknownJob, shown
from pman.job.record import Job, run_name
from pman.job.state import JobState
from pman.logreading import PIECE_BYTES, Fragment, StreamFile, numbers_in
from pman.output import STREAMS
from pman.wire import HOST

_FILE = re.compile(r"[0-9]{1,9}\.(?:stdout|stderr)")

#: Longest cursor, and most streams in one: far more than any job has.
MAX_CURSOR_LENGTH, MAX_CURSOR_STREAMS = 64 * 1024, 4096

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class Position(msgspec.Struct, rename={"job": "j", "attempt": "a", "offsets": "o"}):
    """Where a reader is. As a cursor it is opaque to clients.

    Attributes:
        job: Name of the job.
        attempt: The try that is read, counted from 1.
        offsets: In each stream of it, by `StreamFile.name`; 0 where it is missing.
    """

    job: str
    attempt: Annotated[int, msgspec.Meta(ge=1)] = 1
    offsets: dict[str, Count] = {}

    def cursor(self) -> str:
        """Return how a client is to name it."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode("ascii")


_decode = msgspec.json.Decoder(Position).decode


def position_of(cursor: str) -> Position:
    """Read a cursor.

    Raises:
        RequestError: It is none of ours.
    """
    if len(cursor) > MAX_CURSOR_LENGTH:
        raise _no_cursor(cursor)
    try:
        raw = cursor.encode("ascii")
        position = _decode(base64.b64decode(raw + b"=" * (-len(raw) % 4), b"-_", validate=True))
    except (ValueError, msgspec.MsgspecError) as exc:
        raise _no_cursor(cursor) from exc
    offsets = position.offsets
    if len(offsets) > MAX_CURSOR_STREAMS or not all(map(_FILE.fullmatch, offsets)):
        raise _no_cursor(cursor)
    return position


def _part(name: str) -> int:
    """Return the part of which `StreamFile.name` tells."""
    return int(name.partition(".")[0])


def _no_cursor(cursor: str) -> RequestError:
    return RequestError(
        f"cursor is {shown(cursor)}, expected one that an earlier reply gave", field="cursor"
    )


class Record(msgspec.Struct, omit_defaults=True):
    """A piece of one stream, as clients see it.

    Attributes:
        part: Part of a compound host job or worker of a container job, counted from 0.
        stream: `stdout` or `stderr`.
        attempt: Which try printed it, counted from 1.
        offset, next: Of its first byte, and behind its last one.
        text: The bytes as text.
        base64: Instead: the bytes themselves.
        dropped: Instead: the offsets between which the bytes are no more.
        cursor: Where a reader is that has this record; only where it is followed.
    """

    part: int
    stream: str
    attempt: int
    offset: int
    next: int
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET
    dropped: tuple[int, int] | msgspec.UnsetType = msgspec.UNSET
    cursor: str | msgspec.UnsetType = msgspec.UNSET


class Wanted(msgspec.Struct, frozen=True):
    """Which part of what a job prints a reader wants, and how.

    Attributes:
        streams: Of `STREAMS`.
        part: One part or worker, or None for all.
        is_pinned: Whether it is about one try only.
        is_exact: Whether bytes are given as they are, not as text.
        is_followed: Whether each record is to have its cursor, and all streams have their turn.
    """

    streams: tuple[str, ...] = STREAMS
    part: int | None = None
    is_pinned: bool = False
    is_exact: bool = False
    is_followed: bool = False


class JobLog:
    """A reader of one job's output.

    Attributes:
        position: What comes next; moves with each `read`.
        job: The job as the last `read` found it, or None when it is no more.
        is_complete: Whether all was given, and nothing can come any more.
    """

    def __init__(
        self, job: Job, position: Position, wanted: Wanted, context: ActionContext
    ) -> None:
        self.position = position
        self.job: Job | None = job
        self.is_complete = False
        self._wanted = wanted
        self._context = context
        self._turn = 0
        self._files: dict[int, list[StreamFile]] = {}

    def read(self, most: int) -> list[Record]:
        """Return what comes next; [] when there is nothing at the moment.

        Args:
            most: Bytes, at least 1; a whole character may be up to 3 more.
        Raises:
            SnapshotError: It can't be read.
        """
        position = self.position
        records: list[Record] = []
        while True:
            is_over = self.look()
            job = self.job
            if job is None:
                self.is_complete = True
                return records
            files = self.files(job, is_over=is_over)
            most -= self._read_files(files, most, records, is_over=is_over)
            if not is_over or not all(map(self._is_read, files)):
                return records
            if self._wanted.is_pinned or job.attempt <= position.attempt:
                self.is_complete = True
                return records
            position.attempt += 1
            position.offsets = {}
            self._files = {}
            if most <= 0:
                return records

    def look(self) -> bool:
        """See how the job stands; return whether nothing is added to the try that is read.

        To be asked before the files are read: whoever reports an end has written everything.
        """
        self.job = job = self._context.store.get(self.position.job)
        if job is None:
            return True
        self._have_it_written(job)
        return job.state.is_final or job.attempt > self.position.attempt

    def drop_unknown(self, job: Job) -> None:
        """Forget offsets in parts that there are not: all replies would repeat them."""
        offsets = self.position.offsets
        count = max(1, len(job.parts), len(job.workers))
        if all(_part(name) < count for name in offsets):
            return
        # The parts of an earlier try may be others.
        folder = self._context.output.folder(run_name(job.name, self.position.attempt))
        known = numbers_in(folder) | set(range(count))
        self.position.offsets = {n: at for n, at in offsets.items() if _part(n) in known}

    def count(self, job: Job) -> int:
        """Return how many parts or workers there are, as far as can be told."""
        backend = self._context.backends.get(job.backend)
        count = 1 if backend is None else backend.part_count(job)
        folder = self._context.output.folder(run_name(job.name, self.position.attempt))
        printed = max(numbers_in(folder), default=0)
        return max(count, len(job.parts), len(job.workers), printed + 1)

    def file(self, job: Job, part: int, stream: str) -> StreamFile:
        """Return the file of one stream of the try that is read."""
        folder = self._context.output.folder(run_name(job.name, self.position.attempt))
        return StreamFile(folder, part, stream)

    def files(self, job: Job, *, is_over: bool) -> list[StreamFile]:
        """Return the files that there may be of the try that is read, in order."""
        wanted, attempt = self._wanted, self.position.attempt
        folder = self._context.output.folder(run_name(job.name, attempt))
        if wanted.part is not None:
            numbers = [wanted.part]
        else:
            known = _begun(job) if attempt == job.attempt else range(0)
            numbers = sorted({*known, *numbers_in(folder)}) if is_over else list(known)
        found: list[StreamFile] = []
        for number in numbers:
            if number not in self._files:
                self._files[number] = [StreamFile(folder, number, s) for s in wanted.streams]
            found += self._files[number]
        return found

    def _have_it_written(self, job: Job) -> None:
        # Asked again and again: after a restart the backend may not know the job yet.
        if job.state is not JobState.RUNNING:
            return
        backend = self._context.backends.get(job.backend)
        if backend is not None:
            backend.follow(job)

    def _read_files(
        self, files: list[StreamFile], most: int, records: list[Record], *, is_over: bool
    ) -> int:
        """Read from each file in turn; return how many bytes."""
        is_followed = self._wanted.is_followed
        left = most
        if is_followed and len(files) > 1:
            self._turn = (self._turn + 1) % len(files)
            files = files[self._turn :] + files[: self._turn]
        for file in files:
            while left > 0 and (fragment := self._fragment(file, left, is_over)) is not None:
                self.position.offsets[file.name] = fragment.next
                records.append(self._record(file, fragment))
                left -= len(fragment.raw)
                if is_followed and not fragment.is_dropped:
                    break
        return most - left

    def _fragment(self, file: StreamFile, most: int, is_over: bool) -> Fragment | None:
        wanted = self._wanted
        offset = self.position.offsets.get(file.name, 0)
        if wanted.is_followed:
            most = min(most, PIECE_BYTES)
        if wanted.is_exact:
            return file.read(offset, most)
        return file.read_text(offset, most, is_over=is_over)

    def _record(self, file: StreamFile, fragment: Fragment) -> Record:
        wanted = self._wanted
        record = Record(
            file.part, file.stream, self.position.attempt, fragment.offset, fragment.next
        )
        if fragment.is_dropped:
            record.dropped = fragment.offset, fragment.next
        elif wanted.is_exact:
            record.base64 = base64.b64encode(fragment.raw).decode("ascii")
        else:
            record.text = fragment.text
        if wanted.is_followed:
            record.cursor = self.position.cursor()
        return record

    def _is_read(self, file: StreamFile) -> bool:
        return self.position.offsets.get(file.name, 0) >= file.size()


def find_job(context: ActionContext, *, jid: JobId | None, name: str | None) -> Job:
    """Return the job that a client means: by name, or the newest with a job id.

    Raises:
        UnknownJob: There is none.
        RequestError: Neither or both are given.
    """
    check_one(jid, name)
    job = newest(jid, context) if jid is not None else context.store.get(name or "")
    if job is not None:
        return job
    field, value = ("jid", jid) if name is None else ("job", name)
    raise UnknownJob(f"there is no job with {field} {shown(value)}", field=field)


def newest_started(job: Job, context: ActionContext) -> int:
    """Return which try is the newest that has started, or else the first.

    Between tries the newest one waits, for its time, for a place or for its engine.
    """
    if job.attempt == 1 or job.started_at is not None:
        return job.attempt
    # Of a container that was over soon the engine may know no more than what it has printed.
    has_printed = bool(numbers_in(context.output.folder(run_name(job.name, job.attempt))))
    return job.attempt if has_printed else job.attempt - 1


def _begun(job: Job) -> range:
    """Return the numbers of parts or workers that may have printed something."""
    if job.backend != HOST:
        return range(max(1, len(job.workers)))
    # They run one after the other.
    started = [n for n, part in enumerate(job.parts, 1) if part.started_at is not None]
    return range(started[-1] if started else 0)
