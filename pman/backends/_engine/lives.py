"""`Lives`: follows what running containers print, of jobs that somebody reads.

A thread for each container, up to `MAX_FOLLOWED`; one more takes turns with the rest, and reads
what they have printed so far. Who is not asked for costs nothing.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable

from pman.backends._engine.livefiles import LiveFolder, Tail, settle
from pman.backends._engine.port import Engine, Phase, View
from pman.backends._engine.timing import Timing, backoff
from pman.errors import PmanError
from pman.output import OutputFiles

_log = logging.getLogger(__name__)

#: Containers that are followed at the same time; the others are read now and then.
MAX_FOLLOWED = 64

#: Containers of a job whose latest output is shown.
MAX_RECENT = 20


class _Reader:
    """Somebody who waits until what has been printed is in the files.

    Attributes:
        behind: Containers whose files may lack some of it.
        tell: Whom to tell that there are none.
    """

    __slots__ = ("behind", "tell")

    def __init__(self, behind: set[Tail], tell: Callable[[], object]) -> None:
        self.behind = behind
        self.tell = tell


class _Live:
    """One job that is followed."""

    __slots__ = ("folder", "readers", "tails", "view")

    def __init__(self, folder: LiveFolder, view: View) -> None:
        self.folder = folder
        self.view = view
        self.tails: dict[tuple[int, str], Tail] = {}
        self.readers: list[_Reader] = []


class Lives:
    """Jobs that are followed, by name. Thread-safe; only what reads an engine waits for it."""

    def __init__(
        self, name: str, engine: Engine, output: OutputFiles, max_bytes: int, timing: Timing
    ) -> None:
        """Prepare.

        Args:
            name: For the threads.
            max_bytes: Most of one stream; 0 for all.
        """
        self._name = name
        self._engine = engine
        self._output = output
        self._max_bytes = max_bytes
        self._timing = timing
        self._wake = threading.Condition()
        self._lives: dict[str, _Live] = {}
        self._crowd: collections.deque[Tail] = collections.deque()
        self._followed = 0
        self._has_reader = False
        self._is_closed = False

    def see(self, view: View) -> None:
        """Follow the containers of a job that have started and are not followed yet."""
        with self._wake:
            if self._is_closed:
                return
            live = self._lives.get(view.job_name)
            if live is None:
                folder = LiveFolder(self._output.folder(view.job_name), self._max_bytes)
                live = self._lives[view.job_name] = _Live(folder, view)
            live.view = view
            if view.is_settled:
                self._see_workers(live)

    def catch_up(self, name: str, tell: Callable[[], object]) -> None:
        """Have `tell` called once the files have what a job that is followed has printed by now.

        Who follows a container can't know that: an engine that goes on waiting does not say when
        it has sent all. So the container is read anew, once, without waiting for more; what is in
        the file already is passed over. From then on the file keeps up.
        """
        with self._wake:
            live = self._lives.get(name)
            tails = () if live is None else live.tails.values()
            behind = {tail for tail in tails if not tail.is_abreast}
            if live is not None and behind:
                live.readers.append(_Reader(behind, tell))
                for tail in behind:
                    tail.catch_up()
                self._wake.notify_all()  # who reads in turn need not rest now
                return
        tell()

    def finish(self, name: str) -> None:
        """Follow a job no more, and let its final files take the place of the live ones."""
        with self._wake:
            live = self._lives.pop(name, None)
            if live is not None:
                _end(live)
        settle(self._output.folder(name))
        _release(live)

    def drop(self, name: str) -> None:
        """Follow a job no more; its files stay."""
        with self._wake:
            live = self._lives.pop(name, None)
            if live is not None:
                _end(live)
        _release(live)

    def recent(self, name: str, max_bytes: int) -> str | None:
        """Return the end of what a job that is followed has printed to stdout, else None."""
        with self._wake:
            live = self._lives.get(name)
            indexes = [] if live is None else sorted(index for index, _ in live.tails)[:MAX_RECENT]
        if live is None or not indexes:
            return None
        share = max_bytes // len(indexes)
        ends = (live.folder.end_of(index, "stdout", share) for index in indexes)
        return b"".join(ends).decode("utf-8", "replace")

    def close(self) -> None:
        """Follow nothing more; the files stay, for the next daemon to go on with."""
        with self._wake:
            self._is_closed = True
            lives = list(self._lives.values())
            self._lives.clear()
            for live in lives:
                _end(live)
            self._wake.notify_all()

    # --- threads ----------------------------------------------------------------------------

    def _see_workers(self, live: _Live) -> None:
        for index, worker in enumerate(live.view.workers):
            stage = self._engine.stage_of(worker)
            if stage is Phase.WAITING:
                continue
            tail = live.tails.get((index, worker.name))
            if tail is None:
                tail = live.tails[index, worker.name] = Tail(live.folder, live.view, index)
                self._begin(tail)
            if stage is Phase.ENDED:
                tail.over()

    def _begin(self, tail: Tail) -> None:
        if self._followed < MAX_FOLLOWED:
            self._followed += 1
            self._start(self._follow, tail)
            return
        self._crowd.append(tail)
        self._wake.notify_all()
        if not self._has_reader:
            self._has_reader = True
            self._start(self._read_crowd)

    def _start(self, target: Callable[..., object], *args: object) -> None:
        name = f"{self._name}-live"
        threading.Thread(target=target, args=args, name=name, daemon=True).start()

    def _follow(self, tail: Tail) -> None:
        """Follow a container until it has ended; a connection that broke is made again."""
        tries = 0
        was_behind = tail.is_behind
        while not self._read(tail, waits=True):
            if tail.is_behind != was_behind:  # it was to catch up, or has
                was_behind = tail.is_behind
                continue
            tries = 0 if tail.has_news else tries + 1
            tail.is_unwanted.wait(backoff(self._timing.live_s, self._timing.live_max_s, tries))
            was_behind = tail.is_behind
        self._caught_up(tail, goes_on=True)
        with self._wake:
            self._followed -= 1
            self._wake.notify_all()

    def _read_crowd(self) -> None:
        """Read the containers that have no thread, in turn; as long as there are any."""
        while True:
            with self._wake:
                if not self._crowd:
                    self._has_reader = False
                    return
                tail = self._crowd.popleft()
                if self._followed < MAX_FOLLOWED:
                    self._begin(tail)
                    continue
            began = time.monotonic()
            if self._read(tail, waits=False):
                self._caught_up(tail, goes_on=True)
            else:
                with self._wake:
                    self._crowd.append(tail)
                    others = len(self._crowd)
                    # The engine gets as much rest as it was asked for work.
                    rest_s = max(time.monotonic() - began, self._timing.live_poll_s / others)
                    self._wake.wait(rest_s)

    def _read(self, tail: Tail, *, waits: bool) -> bool:
        """Read a container from its beginning; return whether there is nothing more to come.

        Args:
            waits: Whether it has a thread, in which it is followed unless it is to catch up.
        """
        has_thread = waits
        tail.begin()  # before it is looked whether it is over, which interrupts what has begun
        was_over = tail.is_over
        waits = waits and not was_over and not tail.is_behind
        try:
            if not tail.is_unwanted.is_set():
                self._engine.follow(tail.view, tail.index, tail, tail.reading, waits=waits)
            if not waits and not tail.reading.is_set():
                self._caught_up(tail, goes_on=has_thread)
            # One that was interrupted, by the news that it is over say, has not read all.
            return (was_over and not tail.reading.is_set()) or tail.is_unwanted.is_set()
        except PmanError as exc:
            _log.debug("what %s prints can't be read now: %s", tail.worker, exc)
            return tail.is_unwanted.is_set()
        except OSError as exc:
            if not tail.is_unwanted.is_set():
                _log.warning("what %s prints can't be kept: %s", tail.worker, exc)
            return True
        except Exception:  # noqa: BLE001  the final files come all the same
            _log.exception("following %s failed in an unexpected way", tail.worker)
            return True
        finally:
            if waits:
                tail.is_abreast = False
            tail.close()

    def _caught_up(self, tail: Tail, *, goes_on: bool) -> None:
        """Tell those who have waited for a container, and for no other any more.

        Args:
            goes_on: Whether its file keeps up from now on.
        """
        with self._wake:
            tail.is_behind, tail.is_abreast = False, goes_on
            live = self._lives.get(tail.view.job_name)
            readers = [] if live is None else live.readers
            for reader in readers:
                reader.behind.discard(tail)
            served = [reader for reader in readers if not reader.behind]
            if live is not None:
                live.readers = [reader for reader in readers if reader.behind]
        for reader in served:
            reader.tell()


def _release(live: _Live | None) -> None:
    """Have those go on who wait for a job that is not followed any more."""
    for reader in () if live is None else live.readers:
        reader.tell()


def _end(live: _Live) -> None:
    live.folder.shut()
    for tail in live.tails.values():
        tail.end()
