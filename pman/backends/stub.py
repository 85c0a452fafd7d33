"""Jobs that only pretend to run: for tests, and for trying out clients where nothing may run.

A few commands are acted out in memory. What a former object of the same `state_path` was told lives
on in this process, as an engine's knowledge would.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pman.backends import BACKENDS
from pman.backends.base import Backend, BackendContext, Observer
from pman.errors import RequestError, SubmitFailed
from pman.job.observation import Observation
from pman.job.record import Job, Part
from pman.job.spec import JobSpec
from pman.job.state import JobState

#: Commands that are acted out: `print OUT ERR` writes to both streams, `kill N` ends the job by a
#: signal, `sleep S` lasts, `refuse` is not taken.
COMMANDS = ("true", "false", "exit", "echo", "print", "sleep", "kill", "refuse")


class _Engine:
    """What would run the jobs; outlives the backend objects that talk to it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.observe: Observer | None = None
        self.seen: dict[str, Observation] = {}
        self.timers: dict[str, threading.Timer] = {}
        self.starts: dict[str, int] = {}

    def report(self, seen: Observation) -> None:
        """Keep how a job stands, and tell it; a final state is final."""
        with self.lock:
            before = self.seen.get(seen.name)
            if before is not None and before.state is not None and before.state.is_final:
                return
            self.seen[seen.name] = seen
            observe = self.observe
        if observe is not None:
            observe(seen)

    def end(self, name: str, code: int) -> None:
        """End a job with an exit code, negative for a signal."""
        with self.lock:
            seen = self.seen.get(name)
            if seen is None or seen.parts is None:
                return
            part = seen.parts[0]
            timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        now = time.time()
        self.report(
            Observation(
                name=name,
                state=JobState.FAILED if code else JobState.COMPLETED,
                reason="error" if code else "ok",
                message=f"the command ended with exit code {code}" if code else "",
                exit_code=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                started_at=part.started_at,
                ended_at=now,
                parts=[Part(part.cmd, None, part.started_at, now, code)],
                handle=seen.handle,
            )
        )


@BACKENDS.register("stub")
class StubBackend(Backend):
    """Acts out `COMMANDS`; any other command runs until `end` is called."""

    name = "stub"

    _engines: ClassVar[dict[Path, _Engine]] = {}

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self._engine = self._engines.setdefault(context.state_path, _Engine())

    def start(self, observe: Observer) -> None:
        """Begin to report."""
        self._engine.observe = observe

    def check(self, spec: JobSpec) -> None:
        """Refuse commands that can't be split into words."""
        try:
            shlex.split(spec.cmd)
        except ValueError as exc:
            raise RequestError(f"cmd is {spec.cmd!r}, expected words: {exc}", field="cmd") from exc

    def submit(self, job: Job) -> None:
        """Take a job, and end it at once if its command says so."""
        engine = self._engine
        words = shlex.split(job.cmd) or ["true"]
        if words[0] == "refuse":
            raise SubmitFailed("the stub was told to refuse")
        with engine.lock:
            if job.name in engine.starts:
                return
            engine.starts[job.name] = 1
        engine.report(
            Observation(
                name=job.name,
                state=JobState.RUNNING,
                started_at=time.time(),
                parts=[Part(job.cmd, started_at=time.time())],
                handle={"stub": job.name},
            )
        )
        self._act(job.name, words)

    def end(self, name: str, code: int = 0) -> None:
        """End a job from outside.

        Args:
            name: Its name.
            code: Exit code, negative for a signal.
        """
        self._engine.end(name, code)

    def reconcile(self, jobs: Sequence[Job]) -> None:
        """Report what has become of the jobs of a former object."""
        for job in jobs:
            seen = self._engine.seen.get(job.name)
            if seen is not None:
                if self._engine.observe is not None:
                    self._engine.observe(seen)
            elif job.state is JobState.NEW:
                self.submit(job)
            else:
                lost = "the stub does not know it"
                self._engine.report(
                    Observation(name=job.name, state=JobState.LOST, reason="lost", message=lost)
                )

    def cancel(self, job: Job, grace_s: float, signal: int | None = None) -> None:
        """End a job at once; the stub's jobs need no time to think."""
        engine = self._engine
        with engine.lock:
            timer = engine.timers.pop(job.name, None)
            parts = engine.seen[job.name].parts if job.name in engine.seen else None
            engine.starts.setdefault(job.name, 0)
        if timer is not None:
            timer.cancel()
        engine.report(
            Observation(
                name=job.name,
                state=JobState.CANCELED,
                reason="canceled",
                message="canceled",
                signal=15,
                ended_at=time.time(),
                parts=parts,
            )
        )

    def settled(self, job: Job) -> None:
        """Forget a job that has ended."""
        with self._engine.lock:
            seen = self._engine.seen.get(job.name)
            if seen is not None and seen.state is not None and seen.state.is_final:
                del self._engine.seen[job.name]
                if self._engine.starts[
                    job.name
                ]:  # else `submit` may still come, and must not start
                    del self._engine.starts[job.name]

    def remove(self, job: Job) -> None:
        """Forget a job, and remove its output."""
        self.settled(job)
        self._engine.starts.pop(job.name, None)
        self.context.output.remove(job.name, job.attempt)

    def close(self) -> None:
        """Report nothing any more."""
        self._engine.observe = None

    def _write(self, name: str, stream: str, text: str) -> None:
        path = self.context.output.path(name, 0, stream)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")

    def _act(self, name: str, words: list[str]) -> None:
        command, arguments = words[0], words[1:]
        if command == "echo":
            self._write(name, "stdout", " ".join(arguments))
        elif command == "print":
            self._write(name, "stdout", arguments[0])
            self._write(name, "stderr", arguments[1])
        if command in ("true", "echo", "print"):
            self.end(name)
        elif command == "false":
            self.end(name, 1)
        elif command == "exit":
            self.end(name, int(arguments[0]))
        elif command == "kill":
            self.end(name, -int(arguments[0]))
        elif command == "sleep":
            timer = threading.Timer(float(arguments[0]), self.end, (name,))
            timer.daemon = True
            with self._engine.lock:
                self._engine.timers[name] = timer
            timer.start()
