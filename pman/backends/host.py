"""Jobs on this machine: what the shepherd says, put into the words of jobs.

The shepherd starts the jobs and outlives the daemon; see `pman.shepherd`.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Sequence
from signal import SIGTERM
from typing import Any

import msgspec

from pman.backends import BACKENDS
from pman.backends._outcome import observation
from pman.backends.base import Backend, BackendContext, Observer
from pman.errors import BackendError, BackendUnavailable, RequestError, SubmitFailed
from pman.job.observation import Observation
from pman.job.record import HostFacts, Job
from pman.job.shell import split_compound
from pman.job.spec import JobSpec, spec_from_meta
from pman.job.state import JobState
from pman.meters import REFUSED, UNANSWERED
from pman.shepherd.client import CONNECT, WATCH, Link
from pman.shepherd.launch import public_environment
from pman.shepherd.place import Place
from pman.shepherd.protocol import (
    Cancel,
    Event,
    Hello,
    JobRecord,
    Refused,
    Settled,
    Snapshot,
    Start,
    Update,
    Welcome,
    path_text,
)

#: Longest word of a command line, with its NUL, bytes. Source: execve(2), MAX_ARG_STRLEN.
MAX_COMMAND_BYTES = 128 * 1024
#: Commands with more pieces run as one: each piece costs a share of every look at the job.
MAX_PARTS = 1000
#: How long `submit` waits for the shepherd, seconds.
SUBMIT_TIMEOUT_S = 20.0
#: What may be refused, or not answered in time, beside what the link counts.
SUBMIT = "submit"
#: Most jobs that are remembered as canceled before they were submitted; the oldest go. Few of them
#: are submitted at all: the queue does not give away what it finds canceled.
MAX_WITHDRAWN = 1024


class _Entry(msgspec.Struct):
    """A job that this backend was told of.

    Attributes:
        start: What to send if the shepherd does not know it; None when it must.
        confirmed: Set once the shepherd has it, or `error` says why not.
        record: How it stands, as far as the shepherd has said.
        is_firm: Whether a give-up would be in vain, as the job is started all the same: it was
            released by the queue, or comes from a former daemon.
        is_sent: Whether `start` has gone out.
        is_left: Whether nobody waits for `confirmed`.
    """

    start: Start | None
    confirmed: threading.Event
    record: JobRecord | None = None
    is_firm: bool = False
    is_sent: bool = False
    is_left: bool = False
    error: BackendError | None = None
    is_over: bool = False


@BACKENDS.register("host")
class HostBackend(Backend):
    """Runs jobs with `/bin/sh` on this machine, as this user, in this working directory."""

    name = "host"
    calls = (CONNECT, WATCH, SUBMIT)

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self._lock = threading.Lock()  # of `_entries` and `_withdrawn`
        self._entries: dict[str, _Entry] = {}
        #: Jobs canceled before they were submitted, as far as they may still be.
        self._withdrawn: dict[str, None] = {}
        #: Jobs that the shepherd knows and nobody has asked for yet; the link's thread only.
        self._strangers: dict[str, JobRecord] = {}
        self._is_reconciled = False
        self._shepherd_pid = 0
        self._facts = host_facts()
        env = {path_text(key): path_text(value) for key, value in public_environment().items()}
        hello = Hello(
            env=env,
            cwd=path_text(os.getcwd()),  # noqa: PTH109, text of any bytes
            max_output_bytes=context.settings.max_output_bytes,
        )
        self._link = Link(Place(context.state_path), hello, self, self.errors)

    def start(self, observe: Observer) -> None:
        """Begin to watch; the shepherd is found or started in the background."""
        self._observe = observe
        self._link.open()

    def check(self, spec: JobSpec) -> None:
        """Refuse commands that no shell can be given, and all while there is no shepherd."""
        try:
            longest = max(len(part.encode()) for part in spec.argv or _parts(spec)) + 1
        except UnicodeEncodeError as exc:
            field = "cmd" if spec.argv is None else "argv"
            raise _no_character(field, exc) from exc
        if longest > MAX_COMMAND_BYTES:
            what = "cmd has a command" if spec.argv is None else "argv has a word"
            raise RequestError(
                f"{what} of {longest - 1} bytes, expected less than {MAX_COMMAND_BYTES}",
                field=what.split()[0],
            )
        _check_words(spec)
        if self._link.failure is not None:
            raise _unavailable(self._link.failure)

    def submit(self, job: Job) -> None:
        """Have the shepherd claim a job; returns when it has.

        Or when it was told to, for a job that the queue has released, and does not answer: that one
        is on its way, and to begin anew with it would end it.
        """
        with self._lock:
            if job.name in self._withdrawn:
                del self._withdrawn[job.name]
                return
            entry = self._entries.get(job.name)
            is_new = entry is None
            if entry is None:
                is_firm = job.hold == "released"
                entry = _Entry(self._start_of(job), threading.Event(), is_firm=is_firm)
                self._entries[job.name] = entry
        if is_new:
            self._link.post(lambda: self._send_start(entry))
        if self._link.failure is not None:
            self._give_up(job.name, self._link.failure)
        elif not entry.confirmed.wait(SUBMIT_TIMEOUT_S):
            self.errors.add(SUBMIT, UNANSWERED)
            self._give_up(job.name, BackendUnavailable("the shepherd did not take the job in time"))
        with self._lock:
            entry.is_left = True
            error = entry.error
        if error is not None:
            raise error

    def reconcile(self, jobs: Sequence[Job]) -> None:
        """Take over the jobs of a former daemon, as soon as there is a shepherd."""
        self._link.post(lambda: self._reconcile(jobs))

    def cancel(self, job: Job, grace_s: float, signal: int | None = None) -> None:
        """Have the shepherd end the job's process group."""
        if self._link.failure is not None:
            raise _unavailable(self._link.failure)
        self._link.post(lambda: self._cancel(job, Cancel(job.name, grace_s, signal or SIGTERM)))

    def cancel_after_restart(self, job: Job, grace_s: float, signal: int | None = None) -> None:
        """Have the shepherd end the job; one that does so already does nothing more.

        Unless it is not known how the job was canceled: then the shepherd knows better.
        """
        if job.cancel is not None:
            self.cancel(job, grace_s, signal)
            return
        if self._link.failure is not None:
            raise _unavailable(self._link.failure)

        def cancel() -> None:
            entry = self._entry(job.name)
            if entry is None or entry.record is None or not entry.record.is_canceled:
                self._cancel(job, Cancel(job.name, grace_s))

        self._link.post(cancel)

    def part_count(self, job: Job) -> int:
        """Return how many commands a job has; before they start, by its spec."""
        return len(job.parts) or len(self._start_of(job).parts)

    def describe(self, spec: JobSpec) -> dict[str, Any]:
        """Return the commands as they would be run; the environment is what the job adds."""
        return {
            "backend": self.name,
            "parts": _parts(spec),
            "argv": spec.argv,
            "cwd": spec.cwd or os.getcwd(),  # noqa: PTH109, as it is
            "env": spec.env,
            "stdinBytes": None if spec.stdin is None else len(spec.stdin.encode()),
        }

    def settled(self, job: Job) -> None:
        """Let the shepherd forget the job."""
        with self._lock:
            self._entries.pop(job.name, None)
        self._link.post(Settled(job.name))

    def remove(self, job: Job) -> None:
        """Let the shepherd forget the job, and remove its output."""
        self.settled(job)
        self.context.output.remove(job.name, job.attempt)

    def close(self) -> None:
        """Hang up; jobs and shepherd run on."""
        self._link.close()
        with self._lock:
            entries = list(self._entries.values())
        for entry in entries:
            # Whether it was claimed can't be known any more. The job DB has it as NEW, and the next
            # daemon takes it over or submits it, so that whoever waits may take it as taken.
            entry.confirmed.set()

    def state(self) -> str:
        """Return "ok", or why no shepherd can be had."""
        failure = self._link.failure
        return "ok" if failure is None else failure.message

    @property
    def outages(self) -> int:
        """How often the shepherd was gone and could not be started again."""
        return self._link.outages

    # --- from the link's thread -------------------------------------------------------------

    def on_welcome(self, welcome: Welcome) -> None:
        """Compare what a shepherd knows with what we do; see `Listener`."""
        self._shepherd_pid = welcome.pid
        known = {record.name: record for record in welcome.jobs}
        with self._lock:
            entries = dict(self._entries)
        self._strangers = {name: job for name, job in known.items() if name not in entries}
        for name, entry in entries.items():
            if name in known:
                self._confirm(entry, known[name])
            elif not entry.is_over:
                self._missing(name, entry)
        if self._is_reconciled:
            # A shepherd that was killed may not have got what it was sent last.
            self._settle_strangers()

    def on_event(self, event: Event) -> None:
        """Take what has happened to a job; see `Listener`."""
        if isinstance(event, Snapshot):
            entry = self._entry(event.job.name)
            if entry is not None:
                self._strangers.pop(event.job.name, None)
                self._confirm(entry, event.job)
        elif isinstance(event, Update):
            self._update(event)
        elif isinstance(event, Refused):
            self.errors.add(SUBMIT, REFUSED)
            self._give_up(event.name, SubmitFailed(event.message))

    def on_failure(self, failure: BackendUnavailable) -> None:
        """Refuse what waits for a shepherd; see `Listener`."""
        with self._lock:
            waiting = [
                name for name, entry in self._entries.items() if not entry.confirmed.is_set()
            ]
        for name in waiting:
            self._give_up(name, failure)

    def _entry(self, name: str) -> _Entry | None:
        with self._lock:
            return self._entries.get(name)

    def _update(self, update: Update) -> None:
        entry = self._entry(update.name)
        record = entry.record if entry else self._strangers.get(update.name)
        if record is None:
            return
        record.apply(update)
        if entry is not None:
            self._report(entry, record)
        elif record.is_ended and self._is_reconciled:
            # The job DB does not know it: it was restored from an older copy.
            del self._strangers[update.name]
            self._link.send(Settled(update.name))

    def _confirm(self, entry: _Entry, record: JobRecord) -> None:
        entry.record = record
        entry.confirmed.set()
        self._report(entry, record)

    def _report(self, entry: _Entry, record: JobRecord) -> None:
        entry.is_over = record.is_ended
        seen = observation(record, self._facts, self._shepherd_pid)
        if record.is_ended and seen.ended_at is None:
            seen.ended_at = time.time()
        self._observe(seen)

    def _send_start(self, entry: _Entry) -> None:
        """Send what `submit` has posted, unless it was given up meanwhile."""
        if self._is_to_be_sent(entry) and entry.start is not None:
            self._link.send(entry.start)

    def _is_to_be_sent(self, entry: _Entry) -> bool:
        """Tell whether a start has to go out, and take note that it does."""
        with self._lock:  # against a give-up: it has to know whether there is something to end
            is_open = entry.start is not None and not entry.confirmed.is_set()
            entry.is_sent |= is_open
        return is_open

    def _missing(self, name: str, entry: _Entry) -> None:
        """Deal with a job that the shepherd does not know."""
        if self._is_to_be_sent(entry) and entry.start is not None:
            self._link.send(entry.start)
            return
        entry.is_over = True
        entry.confirmed.set()
        self._observe(
            Observation(
                name=name,
                state=JobState.LOST,
                reason="lost",
                message="the shepherd keeps no record of it",
                ended_at=time.time(),
            )
        )

    def _reconcile(self, jobs: Sequence[Job]) -> None:
        self._is_reconciled = True
        wanted = {job.name: job for job in jobs if not job.state.is_final}
        for job in wanted.values():
            record = self._strangers.get(job.name)
            is_in_vain = record is None and job.state is JobState.NEW and bool(job.ending)
            with self._lock:
                if job.name in self._withdrawn:
                    del self._withdrawn[job.name]
                    continue
                if job.name in self._entries:
                    continue
                start = self._start_of(job) if job.state is JobState.NEW else None
                entry = _Entry(start, threading.Event(), is_firm=True, is_left=True)
                if not is_in_vain:
                    self._entries[job.name] = entry
            if is_in_vain:  # who wanted its end was told that it comes
                self._observe(_canceled_unstarted(job))
            elif record is None:
                self._missing(job.name, entry)
            else:
                del self._strangers[job.name]
                self._confirm(entry, record)
        self._settle_strangers()

    def _settle_strangers(self) -> None:
        """Let the shepherd forget jobs that have ended and that nobody asks for any more."""
        for name in [name for name, record in self._strangers.items() if record.is_ended]:
            del self._strangers[name]
            self._link.send(Settled(name))

    def _cancel(self, job: Job, command: Cancel) -> None:
        with self._lock:
            entry = self._entries.get(job.name)
            is_known = entry is not None or job.name in self._strangers
            is_early = job.state is JobState.NEW and not is_known
            is_unsent = (
                entry is not None
                and entry.start is not None
                and not entry.is_sent
                and entry.record is None  # else a former daemon has sent it
            )
            if is_early:
                self._withdrawn[job.name] = None
                if len(self._withdrawn) > MAX_WITHDRAWN:
                    del self._withdrawn[next(iter(self._withdrawn))]
            elif is_unsent:
                del self._entries[job.name]
        if entry is not None and is_unsent:
            entry.confirmed.set()  # for whoever submits it; `_send_start` then sends nothing
        if is_early or is_unsent:
            self._observe(_canceled_unstarted(job))
        elif entry is None or not entry.is_over:
            self._link.send(command)

    # --- from any thread --------------------------------------------------------------------

    def _give_up(self, name: str, error: BackendError) -> None:
        """Forget a job that the shepherd has not confirmed; end it should it start after all.

        One that is to be started all the same stays: it is sent anew to the next shepherd.
        """
        is_away = isinstance(error, BackendUnavailable)
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or entry.confirmed.is_set():
                return
            if is_away and entry.is_firm and (entry.is_sent or entry.is_left):
                return
            del self._entries[name]
            entry.error = _unavailable(error) if isinstance(error, BackendUnavailable) else error
            entry.confirmed.set()
        if is_away and entry.is_sent:
            self._link.post(Cancel(name, 0))
        elif entry.is_left:
            self._observe(
                Observation(
                    name=name,
                    state=JobState.FAILED,
                    reason="submit_failed",
                    message=error.message,
                    ended_at=time.time(),
                )
            )

    def _start_of(self, job: Job) -> Start:
        try:
            spec = spec_from_meta(json.loads(job.meta), is_lenient=True)
        except RequestError:
            # Accepted by a pman that did not know the key at fault, and ignored it.
            spec = JobSpec(cmd=job.cmd, auid=job.auid, jid=job.jid, meta={})
        parts = [part.cmd for part in job.parts] or _parts(spec)
        return Start(
            name=job.name,
            parts=parts,
            folder=path_text(self.context.output.folder(job.name).absolute()),
            argv=spec.argv or [],
            env={path_text(key): path_text(value) for key, value in spec.env.items()},
            cwd=path_text(spec.cwd or ""),
            stdin=spec.stdin,
        )


def _canceled_unstarted(job: Job) -> Observation:
    return Observation(
        name=job.name,
        state=JobState.CANCELED,
        reason="canceled",
        message="canceled before it was started",
        ended_at=time.time(),
    )


def host_facts() -> HostFacts:
    """Return what sub-jobs say of the machine."""
    uname = platform.uname()
    return HostFacts(
        system=uname.system,
        machine=uname.machine,
        platform=platform.platform(),
        uname=tuple(uname),
        version=uname.version,
    )


def _parts(spec: JobSpec) -> list[str]:
    """Return the commands to run one after the other; what they read, only one can read."""
    is_compound = spec.compound and spec.argv is None and spec.stdin is None
    parts = split_compound(spec.cmd) if is_compound else [spec.cmd]
    return parts if len(parts) <= MAX_PARTS else [spec.cmd]


def _check_words(spec: JobSpec) -> None:
    """Refuse what no program can be given beside its command.

    Raises:
        RequestError: It holds what is no character, or is too long; names the field.
    """
    words = {f"env.{name}": f"{name}={value}" for name, value in spec.env.items()}
    for field, word in {**words, "cwd": spec.cwd or "", "stdin": spec.stdin or ""}.items():
        try:
            size = len(word.encode())
        except UnicodeEncodeError as exc:
            raise _no_character(field, exc) from exc
        if size >= MAX_COMMAND_BYTES and field != "stdin":
            raise RequestError(
                f"{field} has {size} bytes, expected less than {MAX_COMMAND_BYTES}", field=field
            )


def _no_character(field: str, exc: UnicodeEncodeError) -> RequestError:
    return RequestError(
        f"{field} holds {exc.object[exc.start]!r}, which is no character", field=field
    )


def _unavailable(error: BackendUnavailable) -> BackendUnavailable:
    """Return an error of one's own, as one exception must not be raised in two threads."""
    return BackendUnavailable(error.message)
