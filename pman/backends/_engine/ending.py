"""`Ending`: the way of one job to its end, in calls that block and may have to be made again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import msgspec

from pman.backends._engine import report
from pman.backends._engine.port import Engine, Phase, View
from pman.backends._engine.sink import LogSink
from pman.backends._engine.wish import Wish
from pman.errors import BackendError, BackendUnavailable
from pman.job.observation import Observation
from pman.job.state import JobState

#: So often the disk may refuse the output before the job ends without it.
MAX_DISK_TRIES = 5
#: So often an engine that answers may fail to give the output before the job ends without it.
MAX_READ_TRIES = 30
#: So often what nobody has thought of may come in its way before the job ends nevertheless.
MAX_FAULTS = 5


class Stop(msgspec.Struct, frozen=True):
    """Why and how a job is ended by us.

    Attributes:
        state, reason, message: What it is to be reported as.
        wish: How soon, and by which signal.
        only_waiting: Let it go on should it have started meanwhile.
    """

    state: JobState
    reason: str
    message: str
    wish: Wish
    only_waiting: bool = False


class Ending:
    """Stops a job if that is wanted, keeps its output, and says how it ended.

    `run` is called until it returns, by one thread at a time; it goes on where it failed.
    """

    def __init__(
        self,
        engine: Engine,
        make_sink: Callable[[], LogSink],
        name: str,
        handle: dict[str, object],
        view: View | None,
        stop: Stop | None,
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            settle: Called, perhaps again, once the output is kept as well as it can be.
        """
        self.view = view
        self.stop = stop
        self._engine = engine
        self._make_sink = make_sink
        self._settle = settle
        self._name = name
        self._handle = handle
        self._is_stop_sent = False
        self._is_stopped = stop is None
        self._is_kept = False
        self._note = ""
        self._disk_tries = 0
        self._read_tries = 0
        self._faults = 0

    def run(self) -> Observation | View:
        """Go the whole way.

        Returns:
            The final state, or, of a job that was to be ended only while it waits, how it goes on.
        Raises:
            BackendUnavailable: The engine has to be asked again later.
            OSError: The output could not be written; to be tried again.
        """
        try:
            going_on = None if self._is_stopped else self._stop()
            if going_on is not None:
                return going_on
            if not self._is_kept and self.view is not None:
                self._collect(self.view)
        except OSError as exc:
            self._disk_tries += 1
            if self._disk_tries < MAX_DISK_TRIES:
                raise
            self._is_stopped = self._is_kept = True
            self._note = f"its output could not be kept: {exc.strerror or exc}"
        self._settle()
        return self._observation()

    def fault(self, error: Exception) -> None:
        """Learn that `run` raised what it should not: such a thing comes again each time."""
        self._faults += 1
        if self._faults >= MAX_FAULTS:
            self._is_stopped = self._is_kept = True
            self._note = f"its output could not be kept: {error!r}; the log of pman says more"

    def _stop(self) -> View | None:
        assert self.stop is not None
        view = self._engine.look(self._name, self._handle)
        if view is None:
            self._is_stopped = self._is_kept = True
            return None
        self.view = view
        if view.phase is Phase.ENDED:
            if not self._is_stop_sent:
                self.stop = None  # it was faster, and ends as it did
            self._is_stopped = True
            return None
        has_cause = view.phase is Phase.WAITING and view.reason
        if self.stop.only_waiting and not has_cause and not self._is_stop_sent:
            return view
        self._send_stop(view, self.stop)
        return None

    def _send_stop(self, view: View, stop: Stop) -> None:
        self._is_stop_sent = True
        with self._make_sink() as sink:
            is_written = self._engine.stop(view, stop.wish, sink)
            if is_written:
                sink.close()
        self._is_stopped = True
        self._is_kept = is_written
        with contextlib.suppress(BackendUnavailable):  # then as it was seen last
            self.view = self._engine.look(self._name, view.handle) or view

    def _collect(self, view: View) -> None:
        try:
            with self._make_sink() as sink:
                self._engine.collect(view, sink)
                sink.close()
        except BackendError as exc:
            self._unreadable(view, exc)
        self._is_kept = True

    def _unreadable(self, view: View, error: BackendError) -> None:
        """Decide whether the output may still come; if so, raise."""
        if self._engine.look(self._name, view.handle) is None:
            self._note = f"the {self._engine.noun} was removed before its output was read"
            return
        self._read_tries += 1
        if self._read_tries < MAX_READ_TRIES:
            raise error
        self._note = f"its output could not be read: {error.message}"

    def _observation(self) -> Observation:
        now_s = time.time()
        stop = self.stop
        if stop is None:
            assert self.view is not None
            return report.end(self.view, now_s, self._note)
        return report.forced_end(
            self.view, self._name, stop.state, stop.reason, stop.message, now_s, self._note
        )
