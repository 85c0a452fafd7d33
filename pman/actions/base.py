"""What an action gets, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from pman.auth import ALL_RIGHTS, Caller
from pman.backends.base import Backend
from pman.config import Settings
from pman.errors import RequestError, shown
from pman.http.streaming import Body
from pman.job.reading import check_names, read_struct
from pman.job.record import Job
from pman.jobdb.events import EventLog
from pman.jobdb.scope import ScopedStore
from pman.jobdb.store import JobStore
from pman.output import OutputFiles
from pman.queue import JobQueue

T = TypeVar("T", bound=msgspec.Struct)

#: How long a request may wait for the readable snapshot, seconds.
SNAPSHOT_TIMEOUT_S = 60.0

#: Marks an absent `d_ret`; None is a value.
NOTHING: Any = object()


class Outcome(msgspec.Struct, frozen=True):
    """What an action came to.

    Attributes:
        status: The `status` of the reply.
        d_ret: Its result, or NOTHING when the reply has no `d_ret`.
        code: HTTP status code.
        stream: The whole body of the reply, made while it is sent, in place of any document.
        content_type: Of that body.
        headers: Further headers.
        job: The job that was asked for, where it is one that `run` has made or found.
        is_new: Whether it has made it.
    """

    status: bool
    d_ret: Any = NOTHING
    code: int = 200
    stream: Body | None = None
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    job: Job | None = None
    is_new: bool = False


#: What clients of 2.2 put into any `meta`; pfcon leaves its own name in `service`.
#: Source: WIRE.md 3 and 4.2.
KEYS_OF_2_2 = frozenset({"threaded", "service"})

#: Takes, once, what makes an outcome.
Answer = Callable[[Callable[[], Outcome]], None]


#: Forgets who waits for an outcome: from any thread, at any time after it was returned, at once.
GiveUp = Callable[[], None]


class Later(msgspec.Struct, frozen=True):
    """An outcome that does not exist yet; no listener is held while it is waited for.

    Attributes:
        subscribe: Takes a function that is called once, from any thread, with what makes the
            outcome; returns what takes that back. An outcome may be on its way all the same.
        is_work: Whether to subscribe does something beside waiting, so that it is to be done even
            if nobody wants the outcome.
    """

    subscribe: Callable[[Answer], GiveUp]
    is_work: bool = False


class ActionRequest(msgspec.Struct):
    """One authorised request for one action.

    Attributes:
        meta: The request's `meta`.
        found: Jobs that it is about. Where REST or `is_quick` has looked them up they are given,
            else the action tells them as soon as it knows them, for the log.
        caller: Who asks.
        idempotency: Digest of the client's idempotency key and of what came with it, as in
            `Job.idempotency`, or "".
        is_strict: Whether it came in a form that 2.2 did not have.
    """

    meta: dict[str, Any]
    found: list[Job] | None = None
    caller: Caller = ALL_RIGHTS
    idempotency: str = ""
    is_strict: bool = False

    def read_as(self, kind: type[T]) -> T:
        """Return `meta` as a struct of an action that 2.2 did not have.

        Raises:
            RequestError: A key is missing, not known, or of the wrong type or value; names it.
        """
        known = kind.__struct_encode_fields__
        check_names((key for key in self.meta if key not in KEYS_OF_2_2), known, "key")
        return read_struct(self.meta, kind)

    def need(self, key: str, action: str) -> Any:
        """Return `meta[key]`.

        Raises:
            RequestError: It is missing.
        """
        try:
            return self.meta[key]
        except KeyError:
            raise RequestError(f"meta has no {key!r}, which {action} needs", field=key) from None

    def text(self, key: str, action: str) -> str:
        """Return the string `meta[key]`.

        Raises:
            RequestError: It is missing or not a string.
        """
        value = self.need(key, action)
        if not isinstance(value, str):
            raise RequestError(f"{key} is {shown(value)}, expected a string", field=key)
        return value

    def is_threaded(self) -> bool:
        """Return whether the client wants no result; any true value counts, as in 2.2.

        Of a dry run the result is all that there is.
        """
        return bool(self.meta.get("threaded")) and self.meta.get("dryRun") is not True


class Errands(Protocol):
    """Runs what takes a while and nobody waits for."""

    def submit(self, errand: Callable[..., None], *args: Any) -> Any:
        """Have `errand(*args)` run, soon, in another thread."""


class Timers(Protocol):
    """Calls back later; what waits holds no thread."""

    def after(self, delay_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called once, in `delay_s` seconds; return what cancels it.

        The callback returns soon: all timers share a thread.
        """


class Snapshots(Protocol):
    """Writes the readable snapshot on demand."""

    def save_now(self, timeout_s: float) -> None:
        """Write what has changed; return when it is on disk.

        Raises:
            SnapshotError: It could not be written.
        """


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ActionContext:
    """The daemon, as far as actions may reach into it.

    Attributes:
        store: The jobs, as far as they exist for the caller.
        events: What has happened to them.
        backends: Places to run jobs, by name.
        settings: The daemon's settings.
        output: What jobs printed.
        snapshots: The readable snapshot.
        request_stop: Asks the daemon to end; returns at once.
        now: UTC epoch seconds.
        errands: Runs what may take a while and nobody waits for.
        timers: Call back later.
        queue: Starts and ends jobs; nobody else does.
    """

    store: JobStore | ScopedStore
    events: EventLog
    backends: Mapping[str, Backend]
    settings: Settings
    output: OutputFiles
    snapshots: Snapshots
    request_stop: Callable[[], object]
    now: Callable[[], float]
    errands: Errands
    timers: Timers
    queue: JobQueue

    def scoped(self, auid: str) -> ActionContext:
        """Return the daemon as one sees it for whom only the jobs of one user exist.

        Every member through which jobs can be reached is restricted here.
        """
        assert isinstance(self.store, JobStore), "a scope within a scope"
        return dataclasses.replace(self, store=ScopedStore(self.store, auid))


#: Tells whether a request will touch nothing but memory, and little of it.
IsQuick = Callable[[ActionRequest, ActionContext], bool]

#: Carries out one action. Its docstring says what it needs in `meta` and what it answers.
Perform = Callable[[ActionRequest, ActionContext], Outcome | Later]
