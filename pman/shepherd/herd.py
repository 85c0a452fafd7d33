"""The jobs of a shepherd: started part after part, canceled, reaped and told of.

It has no sockets and waits for nothing; `server` does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable

from pman.output import STREAMS
from pman.shepherd import process
from pman.shepherd.follow import Follower
from pman.shepherd.guard import Guard
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
from pman.shepherd.trim import PERIOD_S, Trimmer


class Herd:
    """All jobs that are not settled. Only one thread may use it."""

    def __init__(
        self, logs: JobLogs, guard: Guard, boot: str, tell: Callable[[Event], None]
    ) -> None:
        """Make an empty herd.

        Args:
            logs: Where each job is logged.
            guard: Our parent.
            boot: Boot id of this machine.
            tell: Takes what happens, for the daemon; there may be none.
        """
        self.jobs: dict[str, JobRecord] = {}
        self.follower = Follower()
        self._logs = logs
        self._guard = guard
        self._boot = boot
        self._tell = tell
        self._env: dict[bytes, bytes] | None = None
        self._cwd_failure = ""
        #: Parts of adopted jobs that wait for the environment, which a daemon brings.
        self._parked: dict[str, int] = {}
        #: Processes that are the guard's children, by process id and start.
        self._awaited: dict[tuple[int, int], str] = {}
        #: Jobs of which a change is not in the log.
        self._unlogged: set[str] = set()
        self._trimmer = Trimmer()
        self._trim_deadline: float | None = None
        self._by_pid: dict[int, str] = {}
        self._kill_deadlines: dict[str, float] = {}
        #: The signal that a job was asked to end with last.
        self._asked: dict[str, int] = {}
        #: Canceled jobs whose shell has ended and whose process group has not.
        self._draining: dict[str, int] = {}

    @property
    def is_idle(self) -> bool:
        """True when no process of a job is left to wait for."""
        return all(job.is_ended for job in self.jobs.values())

    def next_deadline(self) -> float | None:
        """Return when `tick` is to be called, monotonic seconds, or None."""
        deadline = min(self._kill_deadlines.values(), default=None)
        if self._trim_deadline is None or deadline is None:
            return self._trim_deadline if deadline is None else deadline
        return min(self._trim_deadline, deadline)

    # --- commands ---------------------------------------------------------------------------

    def meet(self, hello: Hello) -> None:
        """Take the environment and the working directory of the jobs to come."""
        self._env = {path_bytes(key): path_bytes(value) for key, value in hello.env.items()}
        self._cwd_failure = ""
        try:
            os.chdir(path_bytes(hello.cwd))
        except OSError as exc:
            self._cwd_failure = f"working directory {hello.cwd!r}: {exc.strerror}"
        self._trimmer.max_bytes = hello.max_output_bytes
        parked, self._parked = self._parked, {}
        for name, index in parked.items():
            self._start_part(self.jobs[name], index)
        self._plan_trim()

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
        self._plan_trim()

    def cancel(self, command: Cancel) -> None:
        """Ask a job to end; asked twice, the earlier deadline counts, another signal is sent."""
        job = self.jobs.get(command.name)
        if job is None or job.is_ended:
            return
        deadline = time.monotonic() + command.grace_s
        before = self._kill_deadlines.get(job.name, deadline)
        self._kill_deadlines[job.name] = min(deadline, before)
        if not job.is_canceled:
            self._change(job, Update(name=job.name, is_canceled=True))
            if self._parked.pop(job.name, None) is not None:
                self._end(job)
        if self._asked.get(job.name) != command.signal:
            self._ask(job, command.signal)
        self.tick()

    def _ask(self, job: JobRecord, number: int) -> None:
        """Send a signal to a job that is to end."""
        pid = self._pid_of(job)
        if pid is not None:
            self._asked[job.name] = number
            process.signal_group(pid, number)
            # A stopped process handles a signal only when it goes on.
            process.signal_group(pid, signal.SIGCONT)

    def settled(self, name: str) -> None:
        """Forget a job that has ended."""
        job = self.jobs.get(name)
        if job is not None and job.is_ended:
            del self.jobs[name]
            self._unlogged.discard(name)
            self._asked.pop(name, None)
            self._logs.remove(name)

    # --- what happens -----------------------------------------------------------------------

    def reap(self) -> None:
        """Collect every child that has ended, orphans of jobs included."""
        while (seen := process.ended_child()) is not None:
            pid, code = seen
            name = self._by_pid.pop(pid, None)
            if name is not None:
                # Let go only once its end is logged: if we are killed before, our guard gets it.
                self._log_end(self.jobs[name], code, time.time())
            os.waitpid(pid, 0)
            if name is not None:
                self._go_on(self.jobs[name])
        self._drain()

    def collect(self, *, is_complete: bool = True) -> None:
        """Collect jobs of a killed shepherd whose shell has ended, from what our guard saw.

        Args:
            is_complete: False when it could not write something down.
        """
        gone = []
        if not is_complete:
            gone = [key for key in self._awaited if process.parent_of(*key) is None]
        for end in self._guard.ends.read():
            name = self._awaited.pop((end.pid, end.ticks), None)
            if name is not None:
                self._log_end(self.jobs[name], end.code, end.at)
            self._guard.ends.remove(end)
            if name is not None:
                self._go_on(self.jobs[name])
        for key in gone:
            name = self._awaited.pop(key, None)
            if name is not None:
                self._lose(self.jobs[name], "its shepherd was killed, and the disk was full")
        self._drain()

    def guard_ended(self) -> None:
        """Go on without a guard: how its children end can't be known any more."""
        self._collect_and_follow(list(self._awaited))

    def follow(self) -> None:
        """Collect jobs of a killed shepherd and guard whose shell has ended."""
        for name in self.follower.ended():
            job = self.jobs.get(name)
            if job is None or job.is_ended:
                continue  # killed at its deadline, while we followed its children
            if not job.is_canceled:
                why = "its shepherd and guard were killed, so that its exit code can't be known"
                self._lose(job, why)
            elif not self._follow_group(job):
                self._end(job)

    def tick(self) -> None:
        """Kill what was asked to end and has not in time."""
        now = time.monotonic()
        if self._trim_deadline is not None and self._trim_deadline <= now:
            self._trim()
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
            if job.is_ended:
                _drop_stdin(job)  # killed between the two
            else:
                self._adopt_running(job)
        for name in broken:
            note(f"the log of job {name} can't be read")
            job = JobRecord(name=name, folder="", boot=self._boot, parts=[])
            job.is_ended = True
            job.lost = "its log can't be read, so that it can't be known whether it was started"
            self.jobs[name] = job
        # The order matters: the guard writes an end down before it lets the process go.
        strangers = [key for key in self._awaited if process.parent_of(*key) != self._guard.pid]
        self._collect_and_follow(strangers)

    def _collect_and_follow(self, keys: Iterable[tuple[int, int]]) -> None:
        """Collect what the guard saw; of `keys`, follow the others, which are not its children."""
        self.collect()
        for pid, ticks in keys:
            name = self._awaited.pop((pid, ticks), None)
            if name is not None and not self.follower.follow(name, pid, ticks):
                why = "its shepherd and guard were killed, and it ended before others were there"
                self._lose(self.jobs[name], why)

    def _adopt_running(self, job: JobRecord) -> None:
        part = _current(job)
        if job.boot != self._boot:
            self._lose(job, "the machine was restarted while it ran")
        elif part is None:
            self._end(job)  # it was canceled, and only that it ended was not logged
        elif part.pid is None or part.start_ticks is None:
            self._adopt_unstarted(job, job.parts.index(part))
        else:
            self._adopt_part(job, part.pid, part.start_ticks)

    def _adopt_part(self, job: JobRecord, pid: int, ticks: int) -> None:
        """Take over a part that was started, and may have ended."""
        self._awaited[pid, ticks] = job.name
        if job.is_canceled:
            self._kill_deadlines[job.name] = time.monotonic()

    def _adopt_unstarted(self, job: JobRecord, index: int) -> None:
        """Take over a job whose shepherd was killed just before, or just after, it started a part.

        The shell makes its output file before it runs anything. So without a file, and without a
        process that has yet to make it, nothing was started.
        """
        path = process.output_path(path_bytes(job.folder), index, STREAMS[0])
        if job.is_canceled:
            self._end(job)
        elif process.is_starting(self._guard.pid, is_first=self._guard.is_first):
            self._lose(job, "its shepherd was killed when it started a part")
        elif not os.path.lexists(path):
            self._start_part(job, index)
        elif (pid := process.leader_writing_to(path)) is not None:
            self._note_start(job, index, pid)
            self._adopt_part(job, pid, job.parts[index].start_ticks or 0)
        else:
            self._lose(job, "its shepherd was killed when it started a part")

    # --- parts ------------------------------------------------------------------------------

    def _claim(self, command: Start) -> str:
        """Make a job ours; return why that can't be done, or ""."""
        name = command.name
        if not name or name.startswith(".") or "/" in name or not command.parts:
            return f"job name {name!r} or its list of parts can't be used"
        parts = [PartRecord(cmd) for cmd in command.parts]
        job = JobRecord(
            name=name,
            folder=command.folder,
            boot=self._boot,
            parts=parts,
            argv=command.argv,
            env=command.env,
            cwd=command.cwd,
            has_stdin=command.stdin is not None,
        )
        try:
            process.make_output_folder(path_bytes(job.folder))
            if command.stdin is not None:
                process.write_stdin(path_bytes(job.folder), command.stdin)
            if not self._logs.claim(job):
                return f"job {name!r} has a log that this shepherd did not make"
        except OSError as exc:
            return f"job {name!r} can't be claimed: {exc}"
        self.jobs[name] = job
        return ""

    def _start_part(self, job: JobRecord, index: int) -> None:
        if self._env is None:
            self._parked[job.name] = index
            return
        try:
            pid = self._spawn(job, index, self._env)
        except (OSError, ValueError) as exc:
            process.remove_empty_output(path_bytes(job.folder), index)
            failure = f"part {index + 1} of {len(job.parts)} could not be started: {exc}"
            self._end(job, failure=failure)
            return
        self._by_pid[pid] = job.name
        self._note_start(job, index, pid)

    def _spawn(self, job: JobRecord, index: int, env: dict[bytes, bytes]) -> int:
        folder = path_bytes(job.folder)
        argv = [word.encode() for word in job.argv] or process.shell_command(job.parts[index].cmd)
        if job.env:
            own = {path_bytes(key): path_bytes(value) for key, value in job.env.items()}
            env = {**env, **own}
        stdin = process.stdin_path(folder) if job.has_stdin else b"/dev/null"
        if job.cwd:
            with process.working_directory(path_bytes(job.cwd)):
                return process.spawn(argv, folder, index, env, stdin)
        if self._cwd_failure:
            raise OSError(self._cwd_failure)
        return process.spawn(argv, folder, index, env, stdin)

    def _note_start(self, job: JobRecord, index: int, pid: int) -> None:
        part = job.parts[index]
        part.pid, part.start_ticks, part.started_at = pid, process.start_ticks(pid), time.time()
        self._log(Update(name=job.name, index=index, part=part))

    def _log_end(self, job: JobRecord, returncode: int, at: float) -> None:
        """Note that the current part has ended; nobody is told yet."""
        index, part = next((i, p) for i, p in enumerate(job.parts) if p.ended_at is None)
        part.returncode, part.ended_at = returncode, at
        is_last = index + 1 == len(job.parts) and not job.is_canceled
        self._log(Update(name=job.name, index=index, part=part, is_ended=is_last))

    def _go_on(self, job: JobRecord) -> None:
        """Do what follows the end of a part: tidy up, tell, and start the next one."""
        index = sum(part.ended_at is not None for part in job.parts) - 1
        part = job.parts[index]
        is_alone = part.pid is None or not process.signal_group(part.pid, 0)
        self._tidy_output(job, index, is_alone=is_alone)
        has_more = index + 1 < len(job.parts)
        job.is_ended = not has_more and not job.is_canceled
        if job.is_ended:
            _drop_stdin(job)
        self._tell(Update(name=job.name, index=index, part=part, is_ended=job.is_ended))
        if job.is_canceled:
            self._drain_or_end(job, part.pid)
        elif has_more:
            self._start_part(job, index + 1)
            if not job.is_ended:
                self._tell(Update(name=job.name, index=index + 1, part=job.parts[index + 1]))

    # --- output -----------------------------------------------------------------------------

    def _tidy_output(self, job: JobRecord, index: int, *, is_alone: bool) -> None:
        """Drop of a part's output what is too much, and empty files if nobody writes to them.

        Where the log lacks a change, the files are what tells that the part was started.
        """
        folder = path_bytes(job.folder)
        if is_alone and job.name not in self._unlogged:
            process.remove_empty_output(folder, index)
        if self._trimmer.max_bytes:
            self._trimmer.trim(folder, index)

    def _plan_trim(self) -> None:
        """See that output is looked at as long as jobs run."""
        if self._trimmer.max_bytes and self._trim_deadline is None and not self.is_idle:
            self._trim_deadline = time.monotonic() + PERIOD_S

    def _trim(self) -> None:
        running = [job for job in self.jobs.values() if not job.is_ended]
        self._trim_deadline = None
        if running and self._trimmer.max_bytes:
            wait_s = self._trimmer.look(
                (path_bytes(job.folder), job.parts.index(part))
                for job in running
                if (part := _current(job)) is not None
            )
            self._trim_deadline = time.monotonic() + wait_s

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
            _drop_stdin(job)
        self._log(update)
        self._tell(update)

    def _log(self, update: Update) -> None:
        try:
            self._logs.append(update)
        except OSError as exc:
            # The job runs on and is told of; it is only lost if this shepherd is killed as well.
            self._unlogged.add(update.name)
            note(f"a change of job {update.name} can't be logged: {exc}")

    def _pid_of(self, job: JobRecord) -> int | None:
        part = _current(job)
        return part.pid if part else None


def _drop_stdin(job: JobRecord) -> None:
    if job.has_stdin:
        process.remove_stdin(path_bytes(job.folder))


def _current(job: JobRecord) -> PartRecord | None:
    """Return the first part that has not ended."""
    return next((part for part in job.parts if part.ended_at is None), None)
