"""Opens the job DB at start: `pman.db`, or what is left of it, or a tree of 2.2."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
import uuid
from pathlib import Path

import msgspec

from pman.config import Settings
from pman.errors import SnapshotError, StartError
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb import orphans, tree22
from pman.jobdb.database import COMPANIONS, Database, DatabaseDamaged
from pman.jobdb.lock import DBLock
from pman.jobdb.private import make_folder, make_inner_folder, write_private
from pman.jobdb.snapshot import SNAPSHOT_NAME, SnapshotFolder
from pman.output import OutputFiles

_log = logging.getLogger(__name__)

DATABASE_NAME = "pman.db"
OUTPUT_NAME = "output"
BACKENDS_NAME = "backends"

#: Of a DB file that was moved aside; stands between its name and a stamp.
_DAMAGED = ".damaged-"

#: Copy of the name of this job DB: labels on engines hold it, so it must outlive `pman.db`.
INSTANCE_NAME = "instance"


@dataclasses.dataclass(frozen=True)
class OpenJobDB:
    """The job DB of this daemon.

    Attributes:
        lock: Ours as long as the daemon lives.
        database: For the writer.
        jobs: All jobs, in order of acceptance.
        instance: Name of this job DB; stays the same over restarts.
    """

    lock: DBLock
    database: Database
    jobs: list[Job]
    instance: str

    def close(self) -> None:
        """Give file and lock back; may be called twice."""
        self.database.close()
        self.lock.release()


def open_job_db(settings: Settings) -> OpenJobDB:
    """Make, lock, and open or rebuild the job DB at `settings.db_path`.

    Raises:
        StartError: It is in use, or cannot be used; says why.
    """
    folder = settings.db_path
    make_folder(folder, "DBpath")
    lock = DBLock.acquire(folder)
    try:
        for name in (BACKENDS_NAME, OUTPUT_NAME, SNAPSHOT_NAME):
            make_inner_folder(folder / name)
        database, jobs = _open_or_make(settings)
        try:
            _set_orphans_aside(folder, database)
            instance = database.instance()
            _keep_instance(folder, instance)
        except BaseException:
            database.close()
            raise
    except SnapshotError as exc:
        lock.release()
        raise StartError(exc.message) from exc
    except BaseException:
        lock.release()
        raise
    return OpenJobDB(lock, database, jobs, instance)


def _open_or_make(settings: Settings) -> tuple[Database, list[Job]]:
    path = settings.db_path / DATABASE_NAME
    if path.exists():
        try:
            return _open(path)
        except DatabaseDamaged as exc:
            _log.error("%s; it is rebuilt from the snapshot, which may lack the newest jobs", exc)
    _move_aside(path)
    jobs = [_as_taken(job) for job in SnapshotFolder(settings.db_path / SNAPSHOT_NAME).read_all()]
    if jobs:
        _log.warning("%s is rebuilt from the readable snapshot: %d jobs", path, len(jobs))
    elif tree22.holds_jobs(settings.db_path):
        output = OutputFiles(settings.db_path / OUTPUT_NAME, settings.max_inline_output_bytes)
        jobs = tree22.import_tree(settings.db_path, output)
        _log.warning("%d jobs are taken over from the files of pman 2.2", len(jobs))
    return Database.create(path, jobs, _known_instance(settings.db_path)), jobs


def _as_taken(job: Job) -> Job:
    """Return a job of the snapshot, which may be older than what has become of the job.

    One that reads NEW there, or is held, may have run long since. As QUEUED it is followed if its
    backend knows it, and is LOST if not, but it is not started again.
    """
    if job.state is not JobState.NEW and not job.hold:
        return job
    return msgspec.structs.replace(job, state=JobState.QUEUED, hold="")


def _open(path: Path) -> tuple[Database, list[Job]]:
    database = Database.open(path)
    try:
        return database, database.read_all()
    except BaseException:
        database.close()
        raise


def _move_aside(path: Path) -> None:
    """Keep what is left of a DB file under another name.

    Raises:
        SnapshotError: It cannot be renamed.
    """
    stamp = f"{time.strftime('%Y%m%d%H%M%S')}-{os.getpid()}"
    for companion in ("", *COMPANIONS):
        source = path.with_name(path.name + companion)
        target = path.with_name(f"{path.name}{_DAMAGED}{stamp}{companion}")
        try:
            source.replace(target)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise SnapshotError(f"{source} cannot be moved aside: {exc.strerror}") from exc
        _log.error("%s is kept as %s", source, target.name)


def _set_orphans_aside(folder: Path, database: Database) -> None:
    """Have output that belongs to no job removed; before anything runs that makes new output."""
    if any(folder.glob(f"{DATABASE_NAME}{_DAMAGED}*")):
        return  # what was moved aside may hold its record
    count = orphans.set_aside(folder / OUTPUT_NAME, frozenset(database.names()))
    if count:
        _log.warning("output of %d jobs that have no record is removed", count)


def _known_instance(folder: Path) -> str:
    """Return the name that this job DB had before, or a new one."""
    try:
        text = (folder / INSTANCE_NAME).read_text("ascii").strip()
        return str(uuid.UUID(text))
    except (OSError, ValueError):
        return str(uuid.uuid4())  # no labels hold it yet, or nobody knows what they hold


def _keep_instance(folder: Path, instance: str) -> None:
    path = folder / INSTANCE_NAME
    if _known_instance(folder) == instance:
        return
    unfinished = path.with_name(f".{INSTANCE_NAME}.tmp")
    try:
        write_private(unfinished, f"{instance}\n".encode("ascii"))
        unfinished.replace(path)
    except OSError as exc:  # it is in `pman.db` too, and written again at the next start
        _log.warning("%s cannot be written: %s", path, exc.strerror)
