"""`Rescue`: keeps the logs of pods that are about to vanish.

A Job controller deletes the running pods of a Job when one of them has failed or the time is up,
and a pod that is deleted takes its log along, before anybody can collect it. Of a log that is
longer than the cap the middle is dropped: what is kept is what `LogSink` keeps of it.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from pman.backends._openshift import logs
from pman.errors import BackendUnavailable
from pman.output import punch_hole

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api, Stream

_log = logging.getLogger(__name__)

#: Most logs that are followed at a time.
MAX_FOLLOWED = 64
#: How long `read` waits for a log that is still being followed, seconds.
WAIT_S = 30.0
#: Between tries to read the log of a container that is said not to have started, seconds.
AGAIN_S = 0.25
#: More than the cap by so much before the middle is dropped, bytes.
SLACK_BYTES = 1024 * 1024


class _Kept(msgspec.Struct):
    """One log.

    Attributes:
        done: Set once nothing more will come.
        dropped: Set once nobody wants it.
        is_whole: Whether it came in to its end.
    """

    file: IO[bytes]
    done: threading.Event
    dropped: threading.Event
    stream: Stream | None = None
    is_whole: bool = False


class Rescue:
    """Logs on their way into unnamed files. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int = 0) -> None:
        """Keep the files in `folder` if it is there, else where temporary files go.

        Args:
            max_bytes: Most that one log may take up; 0 for all.
        """
        self._folder = folder if folder.is_dir() else None
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: dict[str, dict[tuple[str, str], _Kept]] = {}
        self._count = 0

    def begin(
        self, api: Api, job_name: str, pod: str, container: str, is_over: Callable[[], bool]
    ) -> None:
        """Follow a log from its beginning to its end, unless that is done already.

        Args:
            is_over: Says whether the pod has ended.
        """
        kept = self._add(job_name, pod, container)
        if kept is None:
            return
        threading.Thread(
            target=self._follow,
            args=(api, kept, pod, container, is_over),
            name="openshift-log",
            daemon=True,
        ).start()

    def _add(self, job_name: str, pod: str, container: str) -> _Kept | None:
        """Return a place for a log; None when it has one, or can have none."""
        with self._lock:
            of_job = self._kept.setdefault(job_name, {})
            if (pod, container) in of_job or self._count >= MAX_FOLLOWED:
                return None
            try:
                file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  closed by `drop`
            except OSError as exc:
                # Of a full disk others tell; those who watch must go on.
                _log.warning("the log of pod %s can't be kept: %s", pod, exc)
                return None
            self._count += 1
            kept = of_job[pod, container] = _Kept(file, threading.Event(), threading.Event())
            return kept

    def read(self, job_name: str, pod: str, container: str) -> Iterator[bytes] | None:
        """Return a log that was kept, or None."""
        with self._lock:
            kept = self._kept.get(job_name, {}).get((pod, container))
        if kept is None or not kept.done.wait(WAIT_S) or not kept.is_whole:
            return None
        return _chunks(kept.file)

    def drop(self, job_name: str) -> None:
        """Forget the logs of a job."""
        with self._lock:
            dropped = self._kept.pop(job_name, {}).values()
        for kept in dropped:
            kept.dropped.set()
            if kept.stream is not None:
                kept.stream.interrupt()
            if kept.done.is_set():
                kept.file.close()

    def keep_only(self, job_names: Collection[str]) -> None:
        """Forget the logs of all jobs but these."""
        with self._lock:
            names = [name for name in self._kept if name not in job_names]
        for name in names:
            self.drop(name)

    def _follow(
        self, api: Api, kept: _Kept, pod: str, container: str, is_over: Callable[[], bool]
    ) -> None:
        try:
            kept.stream = _open(api, kept, pod, container, is_over)
            if kept.stream is not None:
                with kept.stream:
                    self._copy(kept.stream, kept)
                kept.file.flush()
                kept.is_whole = True
        except (BackendUnavailable, OSError, ValueError) as exc:
            _log.warning("the log of pod %s could not be kept: %s", pod, exc)
        finally:
            with self._lock:
                self._count -= 1
            kept.done.set()

    def _copy(self, stream: Stream, kept: _Kept) -> None:
        start = self._max_bytes // 2
        dropped_to = size = 0
        for raw in logs.chunks_of(stream):
            if kept.dropped.is_set():
                return
            kept.file.write(raw)
            size += len(raw)
            end = size - (self._max_bytes - start)
            if self._max_bytes and end > max(start, dropped_to) + SLACK_BYTES:
                kept.file.flush()
                punch_hole(kept.file.fileno(), start, end - start)
                dropped_to = end


def _open(
    api: Api, kept: _Kept, pod: str, container: str, is_over: Callable[[], bool]
) -> Stream | None:
    """Begin to follow a log; wait for it as long as its pod may have one."""
    while True:
        is_last = is_over() or kept.dropped.is_set()
        stream = logs.open_log(api, pod, container, follow="true")
        if stream is not None or is_last:
            return stream
        kept.dropped.wait(AGAIN_S)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while raw := file.read(1 << 16):
        yield raw
