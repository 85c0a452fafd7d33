"""The contract between `EngineBackend` and one kind of engine: requests out, views in.

An `Engine` keeps no jobs and decides nothing about them: it creates, looks, stops and removes
objects, and says what it sees. When a job is created, followed, given up or cleaned up is the
business of `EngineBackend`, alike for all engines. All methods but `watch` return soon, and may be
called from several threads at once.
"""

from __future__ import annotations

import abc
import enum
import threading
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from pman.backends._engine.halt import Halt
from pman.backends._engine.order import Order
from pman.backends._engine.wish import Wish
from pman.errors import BackendUnavailable
from pman.job.record import Worker
from pman.job.state import JobState

#: Labels of every object that is made on an engine; ARCHITECTURE, "Backends".
INSTANCE_LABEL, JID_LABEL, JOB_LABEL = "pman.instance", "pman.jid", "pman.job"


class Unanswered(BackendUnavailable):
    """A request went out and no answer came: the engine may have carried it out, or not."""

    @property
    def kind(self) -> str:
        """Name that clients see: to them it is the same."""
        return BackendUnavailable.__name__


class Phase(enum.Enum):
    """How far the containers of a job are, all together."""

    WAITING = "waiting"  #: none has started
    RUNNING = "running"  #: one has started, not all have ended
    ENDED = "ended"  #: none runs, and none will


class View(msgspec.Struct, kw_only=True):
    """What an engine knows of one job.

    Attributes:
        job_name: From the label.
        handle: JSON value that finds the object again, and the names of its parts.
        phase: See `Phase`.
        workers: One per container (the newest try of each), in a stable order.
        started_at: When the first container started, UTC epoch seconds, or None.
        ended_at: When the last one ended, UTC epoch seconds, or None.
        outcome: COMPLETED, FAILED or LOST once it has ended, else None.
        exit_code: Of the job as a whole, or None.
        signal: Number of the signal that ended it, or None.
        reason: While waiting: why it can't start, "" when nothing is wrong; it then counts against
            `--pendingTimeout`. While running: what troubles it (`node_lost`), or "". Ended: `ok`,
            `error`, `oom_killed`, `image_pull_failed`, `rejected`, ….
        message: The engine's own words, one sentence.
        extra: Leaves for the `container/` folder of the record tree, or None.
        count: How many workers there will be; until all are seen their places may change.
    """

    job_name: str
    handle: dict[str, Any]
    phase: Phase
    workers: list[Worker] = []
    started_at: float | None = None
    ended_at: float | None = None
    outcome: JobState | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    message: str = ""
    extra: dict[str, Any] | None = None
    count: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether the places of the workers are theirs for good."""
        return len(self.workers) >= self.count


class Sink(Protocol):
    """Takes the output of containers, in order for each stream."""

    def write(self, worker: int, stream: str, raw: bytes) -> None:
        """Append to a stream of the n-th of the view's workers.

        Args:
            worker: Counted from 0.
            stream: `stdout`, `stderr`, or the name of a helper container.
        Raises:
            OSError: It can't be kept.
        """


#: Takes the name of a job that something has happened to (None: it may be any), and whether more is
#: to be expected within moments, so that it is worth looking again and again.
Changed = Callable[[str | None, bool], None]


class Engine(abc.ABC):
    """One kind of engine."""

    #: What is made for one job, for messages: "service", "Job".
    noun: str = "object"

    #: Whether `create` may take so long that no client is to wait for all of it.
    creates_slowly: bool = False

    #: Whether the object of a job may make room for another of the same name: the job has ended and
    #: its output is safe. Set by `EngineBackend`.
    may_replace: Callable[[str], bool] = staticmethod(lambda _job_name: False)

    @abc.abstractmethod
    def connect(self) -> None:
        """Connect, or connect again; cheap when nothing is wrong.

        Raises:
            BackendUnavailable: The SDK is missing, the engine is away, refuses us, or can't run
                jobs; says what to do.
        """

    @abc.abstractmethod
    def check(self, order: Order) -> None:
        """Refuse what this engine can't honour. Called while connected; may ask the engine.

        Raises:
            RequestError: Names the field and the value; 409 (`JobConflict`) for a name that is
                taken by an object that is not ours.
            BackendUnavailable: The engine can't be asked.
        """

    @abc.abstractmethod
    def create(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """Make the object of a job, with its labels, exactly once per `order.job_name`.

        If the object of this very job is there already, that is returned.

        Args:
            order: What to run.
            share_path: Folder for `/share`, in the engine's file system, or None.
        Returns:
            The handle.
        Raises:
            JobConflict: The name is taken by another object.
            SubmitFailed: The engine refused; with its words.
            BackendUnavailable: It can't be reached, and nothing was sent.
            Unanswered: No answer came.
        """

    @abc.abstractmethod
    def describe(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """Return what `create` would make, by kind, as the engine would be sent it; make nothing.

        Args:
            order, share_path: As for `create`; the order has passed `check`.
        Raises:
            JobConflict: The name is taken by another object.
            BackendUnavailable: The engine can't be asked.
        """

    @abc.abstractmethod
    def look_all(self) -> dict[str, View]:
        """Return all objects that carry the label of this instance, by job name.

        Raises:
            BackendUnavailable: The engine can't be asked, or does not know yet (it is starting).
        """

    @abc.abstractmethod
    def look(self, job_name: str, handle: dict[str, Any]) -> View | None:
        """Return the object of one job, or None: the engine is sure that it is gone.

        Raises:
            BackendUnavailable: As for `look_all`.
        """

    @abc.abstractmethod
    def watch(self, changed: Changed, stop: threading.Event) -> None:
        """Report changes until `stop` is set; blocks. One thread calls it.

        It calls `changed(None, False)` once it is certain that no later change is missed.

        Raises:
            BackendUnavailable: The connection broke.
        """

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Make `watch` return soon; from another thread, after `stop` was set."""

    @abc.abstractmethod
    def collect(self, view: View, sink: Sink) -> None:
        """Copy the whole output of all containers; the same call gives the same bytes again.

        A container that never started, or that is gone, has none.

        Raises:
            BackendUnavailable: Not all of it could be read; to be tried again.
            OSError: The sink could not keep it.
        """

    @abc.abstractmethod
    def peek(self, view: View, max_bytes: int) -> bytes:
        """Return about the last `max_bytes` of what the containers have printed so far.

        Raises:
            BackendUnavailable: It can't be read now.
        """

    @abc.abstractmethod
    def stage_of(self, worker: Worker) -> Phase:
        """Return how far one container is: WAITING while it can't have printed anything."""

    @abc.abstractmethod
    def follow(self, view: View, worker: int, sink: Sink, halt: Halt, *, waits: bool) -> None:
        """Copy the output of one running container from its first byte on, as it is printed.

        Its streams get the same bytes as from `collect`, at once where that can be done, from the
        beginning up to some point: of a container that ends the last of them may not come, nor the
        news of its end. Then and when the connection breaks, it is called again. Returns soon after
        `halt` was set.

        Args:
            worker: Place among the view's workers, counted from 0.
            waits: False: return when what there is now has been copied, so that who wants the end
                of it knows that there is no more.
        Raises:
            BackendUnavailable: The connection broke.
            OSError: The sink could not keep it.
        """

    @abc.abstractmethod
    def stop(self, view: View, wish: Wish, sink: Sink) -> bool:
        """End all containers: ask, wait as long as wished, force; blocks until that is done.

        Args:
            wish: Its signal is one that `check_signal` has taken, and is sent as far as it can be.
                What is added to it meanwhile takes effect at once.
        Returns:
            True: the output could not outlive the end and has been written to the sink, whole.
            False: `collect` will find it.
        Raises:
            BackendUnavailable: The engine can't be told, or does not answer.
        """

    @abc.abstractmethod
    def remove(self, job_name: str, handle: dict[str, Any]) -> None:
        """Remove the object and all that was made with it; nothing there is not an error.

        Raises:
            BackendUnavailable: The engine can't be told now.
        """

    def check_signal(self, signal: int) -> None:
        """Refuse a signal that `stop` can't send.

        Raises:
            RequestError: Names the field `signal` and the value.
        """
        return  # most can send any

    def retry(self, view: View) -> bool:
        """Have a job that can't start tried again (an image that could not be pulled).

        Returns:
            Whether this engine had to be told; False: it tries by itself, or never will.
        """
        return False

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of connections; twice is safe."""
