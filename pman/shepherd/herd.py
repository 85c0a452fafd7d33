"""The jobs of a shepherd: started part after part, canceled, reaped and told of.

It has no sockets and waits for nothing; `server` does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from pman.shepherd import process
from pman.shepherd.follow import Follower
from pman.shepherd.joblog import JobLogs
from pman.shepherd.note import note
from pman.shepherd.protocol import (
    Cancel,
    Event,
    Hello,
    JobRecord,
    PartRecord,
    Refused,
    Snapshot,
    Start,
    Update,
    path_bytes,
)


class Herd:
    """All jobs that are not settled. Only one thread may use it."""

    def __init__(self, logs: JobLogs, boot: str, tell: Callable[[Event], None]) -> None:
        """Make an empty herd.

        Args:
            logs: Where each job is logged.
            boot: Boot id of this machine.
            tell: Takes what happens, for the daemon; there may be none.
        """
        self.jobs: dict[str, JobRecord] = {}
        self.follower = Follower()
        self._logs = logs
        self._boot = boot
        self._tell = tell
        self._env: dict[bytes, bytes] = {}
        self._cwd_failure = ""
        self._by_pid: dict[int, str] = {}
        self._kill_deadlines: dict[str, float] = {}
        #: Canceled jobs whose shell has ended and whose process group has not.
        self._draining: dict[str, int] = {}

    @property
    def is_idle(self) -> bool:
        """True when no process of a job is left to wait for."""
        return all(job.is_ended for job in self.jobs.values())

    def next_deadline(self) -> float | None:
        """Return when `tick` is to be called, monotonic seconds, or None."""
        return min(self._kill_deadlines.values(), default=None)

    # --- commands ---------------------------------------------------------------------------

    def meet(self, hello: Hello) -> None:
        """Take the environment and the working directory of the jobs to come."""
        self._env = {path_bytes(key): path_bytes(value) for key, value in hello.env.items()}
        self._cwd_failure = ""
        try:
            os.chdir(path_bytes(hello.cwd))
        except OSError as exc:
            self._cwd_failure = f"working directory {hello.cwd!r}: {exc.strerror}"

    def start(self, command: Start) -> None:
        """Claim a job and start its first part; tell how a known one stands."""
        known = self.jobs.get(command.name)
        if known is not None:
            self._tell(Snapshot(known))
            return
        refusal = self._claim(command)
        if refusal:
            self._tell(Refused(command.name, refusal))
            return
        job = self.jobs[command.name]
        self._start_part(job, 0)
        self._tell(Snapshot(job))

    def cancel(self, command: Cancel) -> None:
        """Ask a job to end; asked twice, the earlier deadline counts."""
        job = self.jobs.get(command.name)
        if job is None or job.is_ended:
            return
        deadline = time.monotonic() + command.grace_s
        before = self._kill_deadlines.get(job.name, deadline)
        self._kill_deadlines[job.name] = min(deadline, before)
        if not job.is_canceled:
            self._change(job, Update(name=job.name, is_canceled=True))
            pid = self._pid_of(job)
            if pid is not None:
                process.signal_group(pid, signal.SIGTERM)
                # A stopped process handles SIGTERM only when it goes on.
                process.signal_group(pid, signal.SIGCONT)
        self.tick()

    def settled(self, name: str) -> None:
        """Forget a job that has ended."""
        job = self.jobs.get(name)
        if job is not None and job.is_ended:
            del self.jobs[name]
            self._logs.remove(name)

    # --- what happens -----------------------------------------------------------------------

    def reap(self) -> None:
        """Collect every child that has ended, orphans of jobs included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            name = self._by_pid.pop(pid, None)
            if name is not None:
                self._part_ended(self.jobs[name], os.waitstatus_to_exitcode(status))
        self._drain()

    def follow(self) -> None:
        """Collect the jobs of a former shepherd whose shell has ended."""
        for name in self.follower.ended():
            job = self.jobs.get(name)
            if job is None or job.is_ended:
                continue  # killed at its deadline, while we followed its children
            if not job.is_canceled:
                self._lose(job, "its shepherd was killed, so that its exit code can't be known")
            elif not self._follow_group(job):
                self._end(job)

    def tick(self) -> None:
        """Kill what was asked to end and has not in time."""
        now = time.monotonic()
        late = [name for name, deadline in self._kill_deadlines.items() if deadline <= now]
        for name in late:
            del self._kill_deadlines[name]
            job = self.jobs[name]
            pid = self._draining.get(name) or self._pid_of(job)
            if pid is not None:
                process.signal_group(pid, signal.SIGKILL)
            if self._draining.pop(name, None) is not None:
                self._end(job)

    def _follow_group(self, job: JobRecord) -> bool:
        """Follow what is left of a canceled job's process group; return whether there is anything.

        Its processes are not our children, so that no SIGCHLD tells when they end.
        """
        pid = self._pid_of(job)
        members = process.group_members(pid) if pid is not None else []
        return job.name in self._kill_deadlines and any(
            self.follower.follow(job.name, member, ticks) for member, ticks in members
        )

    # --- jobs of a former shepherd ----------------------------------------------------------

    def adopt(self) -> None:
        """Take over what a former shepherd left: follow what lives, give the rest up as lost."""
        records, broken = self._logs.load()
        for job in records:
            self.jobs[job.name] = job
            if not job.is_ended:
                self._adopt_running(job)
        for name in broken:
            note(f"the log of job {name} can't be read")
            job = JobRecord(name=name, folder="", boot=self._boot, parts=[])
            job.is_ended = True
            job.lost = "its log can't be read, so that it can't be known whether it was started"
            self.jobs[name] = job

    def _adopt_running(self, job: JobRecord) -> None:
        part = _current(job)
        if job.boot != self._boot:
            self._lose(job, "the machine was restarted while it ran")
        elif part is None or part.pid is None or part.start_ticks is None:
            self._lose(job, "its shepherd was killed when it started a part")
        elif self.follower.follow(job.name, part.pid, part.start_ticks):
            if job.is_canceled:
                self._kill_deadlines[job.name] = time.monotonic()
        else:
            self._lose(job, "its shepherd was killed, and it ended before another was there")

    # --- parts ------------------------------------------------------------------------------

    def _claim(self, command: Start) -> str:
        """Make a job ours; return why that can't be done, or ""."""
        name = command.name
        if not name or name.startswith(".") or "/" in name or not command.parts:
            return f"job name {name!r} or its list of parts can't be used"
        parts = [PartRecord(cmd) for cmd in command.parts]
        job = JobRecord(name=name, folder=command.folder, boot=self._boot, parts=parts)
        try:
            process.make_output_folder(path_bytes(job.folder))
            if not self._logs.claim(job):
                return f"job {name!r} has a log that this shepherd did not make"
        except OSError as exc:
            return f"job {name!r} can't be claimed: {exc}"
        self.jobs[name] = job
        return ""

    def _start_part(self, job: JobRecord, index: int) -> None:
        part = job.parts[index]
        try:
            if self._cwd_failure:
                raise OSError(self._cwd_failure)
            pid = process.spawn(part.cmd, path_bytes(job.folder), index, self._env)
        except (OSError, ValueError) as exc:
            failure = f"part {index + 1} of {len(job.parts)} could not be started: {exc}"
            self._end(job, failure=failure)
            return
        self._by_pid[pid] = job.name
        part.pid, part.start_ticks, part.started_at = pid, process.start_ticks(pid), time.time()
        self._log(Update(name=job.name, index=index, part=part))

    def _part_ended(self, job: JobRecord, returncode: int) -> None:
        index, part = next((i, p) for i, p in enumerate(job.parts) if p.ended_at is None)
        part.returncode, part.ended_at = returncode, time.time()
        pid, part_update = part.pid, Update(name=job.name, index=index, part=part)
        is_alone = pid is None or not process.signal_group(pid, 0)
        if is_alone:
            process.remove_empty_output(path_bytes(job.folder), index)
        if job.is_canceled:
            self._change(job, part_update)
            self._drain_or_end(job, pid)
        elif index + 1 == len(job.parts):
            part_update.is_ended = True
            self._change(job, part_update)
        else:
            self._change(job, part_update)
            self._start_part(job, index + 1)
            if not job.is_ended:
                self._tell(Update(name=job.name, index=index + 1, part=job.parts[index + 1]))

    # --- ends -------------------------------------------------------------------------------

    def _drain_or_end(self, job: JobRecord, pid: int | None) -> None:
        """End a canceled job whose shell has ended, when nothing is left of its process group."""
        if pid is not None and job.name in self._kill_deadlines and process.signal_group(pid, 0):
            self._draining[job.name] = pid
            return
        if pid is not None:
            process.signal_group(pid, signal.SIGKILL)
        self._end(job)

    def _drain(self) -> None:
        for name, pid in list(self._draining.items()):
            if not process.signal_group(pid, 0):
                del self._draining[name]
                self._end(self.jobs[name])

    def _lose(self, job: JobRecord, why: str) -> None:
        """End a job of which the exit code is not known; for a canceled one that is no loss."""
        self._end(job, lost="" if job.is_canceled else why)

    def _end(self, job: JobRecord, *, failure: str = "", lost: str = "") -> None:
        self._kill_deadlines.pop(job.name, None)
        self._change(job, Update(name=job.name, is_ended=True, failure=failure, lost=lost))

    def _change(self, job: JobRecord, update: Update) -> None:
        """Apply, log and tell a change."""
        job.apply(update)
        if job.is_ended:
            self._kill_deadlines.pop(job.name, None)
        self._log(update)
        self._tell(update)

    def _log(self, update: Update) -> None:
        try:
            self._logs.append(update)
        except OSError as exc:
            # The job runs on and is told of; it is only lost if this shepherd is killed as well.
            note(f"a change of job {update.name} can't be logged: {exc}")

    def _pid_of(self, job: JobRecord) -> int | None:
        part = _current(job)
        return part.pid if part else None


def _current(job: JobRecord) -> PartRecord | None:
    """Return the first part that has not ended."""
    return next((part for part in job.parts if part.ended_at is None), None)
