"""`ProgressWatcher`: reads how far running jobs say that they are."""

from __future__ import annotations

import functools
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from pman.backends.base import Backend
from pman.job.observation import Observation
from pman.job.progress import Progress, last_progress
from pman.job.record import Job, job_name_of
from pman.job.state import JobState
from pman.jobdb.store import JobStore
from pman.output import LIVE_SUFFIX, OutputFiles
from pman.services.base import Service

#: Between two looks at all running jobs, seconds; a look may take `SHARE` of the time.
PERIOD_S = 1.0
SHARE = 0.02

#: How much of the end of a stream is looked at, bytes: while a job runs, and once it has ended.
TAIL_BYTES = 64 * 1024
LAST_TAIL_BYTES = 8 * 1024

#: Longest character of UTF-8, which the beginning of an end may have cut.
MAX_CHARACTER_BYTES = 4


class ProgressWatcher(Service):
    """Looks at what running jobs print, every second; and once more when one ends."""

    def __init__(
        self, store: JobStore, backends: Mapping[str, Backend], output: OutputFiles
    ) -> None:
        super().__init__("progress")
        self._store = store
        self._backends = backends
        self._output = output
        self._sizes: dict[str, int] = {}

    def serve(self) -> None:
        """Look until `stopping` is set."""
        period_s = PERIOD_S
        while not self.stopping.wait(period_s):
            began = time.monotonic()
            self.look()
            period_s = max(PERIOD_S, (time.monotonic() - began) / SHARE)

    def look(self) -> None:
        """Look at all running jobs, and tell the store what is new."""
        running = [job for job in self._store.unfinished() if job.state is JobState.RUNNING]
        names = {job.run_name for job in running}
        self._sizes = {name: size for name, size in self._sizes.items() if name in names}
        for job in running:
            if job.wants_progress:
                seen = self._read(job)
                if seen is not None:
                    self._store.change(job.name, functools.partial(_told, job.attempt, seen))

    def with_last(
        self, observe: Callable[[Observation], object]
    ) -> Callable[[Observation], object]:
        """Return an observer that adds what a job has said last to the report of its end.

        It is called by a backend's thread, so it looks into one small file at most.
        """

        def pass_on(seen: Observation) -> object:
            if seen.state is not None and seen.state.is_final and seen.state is not JobState.LOST:
                self._add_last(seen)
            return observe(seen)

        return pass_on

    def _add_last(self, seen: Observation) -> None:
        job = self._store.get(job_name_of(seen.name))
        if job is None or job.state.is_final or not job.wants_progress:
            return
        part = max(0, len(seen.parts or ()) - 1)
        said = _read_tail(self._output.path(seen.name, part, "stdout"), LAST_TAIL_BYTES)
        if said is not None:
            seen.progress, seen.progress_text = said.share, said.text

    def _read(self, job: Job) -> Progress | None:
        """Return what a job says now; None: nothing, or nothing new."""
        path = self._current(job)
        if path is None:
            text = self._recent(job)
            # A backend gives about as much of the end: what is shorter is all there is.
            is_cut = text is not None and len(text.encode()) > TAIL_BYTES - MAX_CHARACTER_BYTES
            return None if text is None else last_progress(text, is_cut=is_cut)
        try:
            size = path.lstat().st_size
        except OSError:
            return None  # nothing was printed, or the job has just been removed
        if size == self._sizes.get(job.run_name):
            return None
        self._sizes[job.run_name] = size
        return _read_tail(path, TAIL_BYTES)

    def _current(self, job: Job) -> Path | None:
        """Return the file that the job writes its stdout to; None: only its backend knows it."""
        started = sum(part.started_at is not None for part in job.parts)
        path = self._output.path(job.run_name, max(0, started - 1), "stdout")
        live = path.with_name(path.name + LIVE_SUFFIX)
        if job.parts or path.exists():
            return path
        return live if live.exists() else None

    def _recent(self, job: Job) -> str | None:
        backend = self._backends.get(job.backend)
        return None if backend is None else backend.recent_output(job)


def _told(attempt: int, seen: Progress, job: Job) -> Job | None:
    """Return a job with its progress, unless that try of it has ended since it was read."""
    is_over = job.attempt != attempt or job.state is not JobState.RUNNING
    if is_over or seen == (job.progress, job.progress_text):
        return None
    return msgspec.structs.replace(job, progress=seen.share, progress_text=seen.text)


def _read_tail(path: Path, most: int) -> Progress | None:
    # A job may put whatever it likes in the place of its file.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError:
        return None  # nothing was printed, or the job has just been removed
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        start = max(0, status.st_size - most)
        raw = os.pread(fd, most, start)
    except OSError:
        return None  # the disk can't be read; the next look tries again
    finally:
        os.close(fd)
    if b"::progress" not in raw:
        return None
    return last_progress(raw.decode("utf-8", "replace"), is_cut=start > 0)
