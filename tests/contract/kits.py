"""How each backend is built, told what to run and looked into, for the suite in test_backends.py.

A new backend gets a `Kit` here, and the suite is run on it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from recorder import Recorder

from pman.backends.base import Backend, BackendContext
from pman.backends.host import HostBackend
from pman.backends.stub import StubBackend
from pman.config import Settings
from pman.job.record import Job
from pman.output import OutputFiles


class Kit:
    """One backend under test.

    Attributes:
        ok, fails, killed, prints, lasts: Commands that succeed; end with exit code 7; end by signal
            9; print "out" and "err" to their streams; last for a minute.
        refused: A command that `check` refuses.
    """

    ok = "true"
    fails = "exit 7"
    killed = "kill -9 $$"
    prints = "{ echo out; echo err >&2; }"
    lasts = "sleep 60"
    refused = "x" * 200_000

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder = Recorder()
        self.output = OutputFiles(folder / "output", 1 << 20)
        self._open: list[Backend] = []

    def build(self, context: BackendContext) -> Backend:
        """Make a backend object."""
        raise NotImplementedError

    def counting(self, key: str) -> str:
        """Return a command that succeeds and leaves a trace of having been run."""
        raise NotImplementedError

    def count(self, key: str, job: Job) -> int:
        """Return how often that command was run."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Return what the backend still keeps of jobs, in words."""
        raise NotImplementedError

    def opened(self) -> Backend:
        """Return a backend object that has been started, as a new daemon has it."""
        backend = self.build(
            BackendContext(
                settings=Settings(db_path=self.folder),
                instance="contract",
                state_path=self.folder / "state",
                output=self.output,
            )
        )
        backend.start(self.recorder.observe)
        self._open.append(backend)
        return backend

    def close(self) -> None:
        """Close all backend objects."""
        for backend in self._open:
            backend.close()


class HostKit(Kit):
    """The host backend with a shepherd of its own."""

    def build(self, context: BackendContext) -> Backend:
        return HostBackend(context)

    def counting(self, key: str) -> str:
        return f"echo >> {shlex.quote(str(self.folder / key))}"

    def count(self, key: str, job: Job) -> int:
        path = self.folder / key
        return path.read_text().count("\n") if path.exists() else 0

    def leftovers(self) -> list[str]:
        logs = self.folder / "state" / "jobs"
        return sorted(path.name for path in logs.iterdir()) if logs.exists() else []


class StubKit(Kit):
    """The backend that only pretends."""

    killed = "kill 9"
    prints = "print out err"
    refused = "echo 'never ends"

    def build(self, context: BackendContext) -> Backend:
        return StubBackend(context)

    def counting(self, key: str) -> str:
        return "true"

    def count(self, key: str, job: Job) -> int:
        return self._stub()._engine.starts.get(job.name, 0)

    def leftovers(self) -> list[str]:
        return sorted(self._stub()._engine.seen)

    def _stub(self) -> StubBackend:
        backend = self._open[-1]
        assert isinstance(backend, StubBackend)
        return backend


KITS: dict[str, Callable[[Path], Kit]] = {"host": HostKit, "stub": StubKit}
