"""How each backend is built, told what to run and looked into, for the suite in test_backends.py.

A new backend gets a `Kit` here, and the suite is run on it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import need_kubernetes, need_swarm
from recorder import Recorder, make_job

from pman.backends.base import Backend, BackendContext
from pman.backends.host import HostBackend
from pman.backends.openshift import OpenShiftBackend
from pman.backends.stub import StubBackend
from pman.backends.swarm import SwarmBackend
from pman.config import Settings
from pman.job.record import Job
from pman.job.spec import JobSpec, spec_from_meta
from pman.output import LIVE_SUFFIX, STREAMS, OutputFiles

#: Image for container jobs; every engine of the tests has it.
IMAGE = "local/busybox:1"

#: User that containers run as where they may not be root.
CONTAINER_UID = 1000


class Kit:
    """One backend under test.

    Attributes:
        ok, fails, killed, prints, lasts: Commands that succeed; end with exit code 7; end by signal
            9; print "out" and "err" to their streams; last for a minute.
        refused: A command that `check` refuses.
        killed_code: Exit code of a job that was ended by signal 9.
        streams: What is kept of `prints`: stdout, stderr.
        runs_programs: Whether a command is more than words.
        takes_stdin: Whether a job has a standard input.
        makes_cwd: Whether a working directory is made that is not there.
        deadline_s: How long anything may take.
    """

    ok = "true"
    fails = "exit 7"
    killed = "kill -9 $$"
    prints = "{ echo out; echo err >&2; }"
    lasts = "sleep 60"
    refused = "x" * 200_000
    killed_code: int | None = None
    streams = ("out\n", "err\n")
    runs_programs = True
    takes_stdin = True
    makes_cwd = False
    deadline_s = 30.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder = Recorder(self.deadline_s)
        self.output = OutputFiles(folder / "output", 1 << 20)
        self.instance = f"contract-{uuid.uuid4().hex[:12]}"
        self._open: list[Backend] = []

    def build(self, context: BackendContext) -> Backend:
        """Make a backend object."""
        raise NotImplementedError

    def settings(self) -> Settings:
        """Return the settings of the daemon."""
        return Settings(db_path=self.folder)

    def meta(self) -> dict[str, Any]:
        """Return what `meta` needs beside the command, for one job."""
        return {}

    def counting(self, key: str) -> str:
        """Return a command that succeeds and leaves a trace of having been run."""
        raise NotImplementedError

    def count(self, key: str, job: Job) -> int:
        """Return how often that command was run."""
        raise NotImplementedError

    def talks(self) -> str:
        """Return a command that prints "one", waits until it is let go, and prints "two"."""
        file = shlex.quote(str(self.folder / "go"))
        return f"{{ echo one; while [ ! -e {file} ]; do sleep 0.05; done; echo two; }}"

    def let_go(self) -> None:
        """Let that command go on."""
        (self.folder / "go").touch()

    def said(self, job: Job) -> bytes:
        """Return what is in the files of a job, while it runs and afterwards."""
        for suffix in ("", LIVE_SUFFIX):
            path = self.output.folder(job.name) / f"0.stdout{suffix}"
            if path.exists():
                return path.read_bytes()
        return b""

    def leftovers(self) -> list[str]:
        """Return what the backend still keeps of jobs: their names, with what may follow."""
        raise NotImplementedError

    def printed(self, job: Job) -> tuple[str, str]:
        """Return what is kept of a job's streams."""
        stdout, stderr = (self.output.read_text(job.name, 0, name) for name in STREAMS)
        return stdout, stderr

    def job(self, cmd: str) -> Job:
        """Make a job that has just been accepted."""
        return make_job(cmd, **self.meta())

    def spec(self, cmd: str) -> JobSpec:
        """Make what a client asks for."""
        return spec_from_meta({"cmd": cmd, "auid": "", "jid": "", **self.meta()})

    def opened(self) -> Backend:
        """Return a backend object that has been started, as a new daemon has it."""
        backend = self.build(
            BackendContext(
                settings=self.settings(),
                instance=self.instance,
                state_path=self.folder / "state",
                output=self.output,
            )
        )
        backend.start(self.recorder.observe)
        self._open.append(backend)
        return backend

    def close(self) -> None:
        """Close all backend objects, and remove what the test has left on purpose."""
        for backend in self._open:
            backend.close()


class HostKit(Kit):
    """The host backend with a shepherd of its own."""

    def build(self, context: BackendContext) -> Backend:
        return HostBackend(context)

    def counting(self, key: str) -> str:
        return f"echo >> {shlex.quote(str(self.folder / key))}"

    def count(self, key: str, job: Job) -> int:
        return count_lines(self.folder / key)

    def leftovers(self) -> list[str]:
        logs = self.folder / "state" / "jobs"
        return sorted(path.name for path in logs.iterdir()) if logs.exists() else []


class StubKit(Kit):
    """The backend that only pretends."""

    killed = "kill 9"
    prints = "print out err"
    runs_programs = False
    refused = "echo 'never ends"

    def build(self, context: BackendContext) -> Backend:
        return StubBackend(context)

    def counting(self, key: str) -> str:
        return "true"

    def count(self, key: str, job: Job) -> int:
        return self._stub()._engine.starts.get(job.name, 0)

    def talks(self) -> str:
        pytest.skip("it prints nothing while a job runs")

    def leftovers(self) -> list[str]:
        return sorted(self._stub()._engine.seen)

    def _stub(self) -> StubBackend:
        backend = self._open[-1]
        assert isinstance(backend, StubBackend)
        return backend


class ContainerKit(Kit):
    """A backend with a real engine; `share` is what jobs see as /share."""

    fails = "sh -c 'exit 7'"
    # A first process of a container takes no signal from itself.
    killed = "sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'"
    prints = "sh -c 'echo out; echo err >&2'"
    refused = "echo 'never ends"
    killed_code = 137
    takes_stdin = False
    makes_cwd = True
    deadline_s = 180.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.share = folder / "share"
        self.share.mkdir()
        self.share.chmod(0o777)  # jobs run as another user

    def meta(self) -> dict[str, Any]:
        return {
            "jid": f"{self.instance}-{uuid.uuid4().hex[:8]}",
            "cpu_limit": "100m",
            "memory_limit": "64Mi",
            "container": {
                "target": {"image": IMAGE},
                "manager": {"env": {"shareDir": str(self.share)}},
            },
        }

    def counting(self, key: str) -> str:
        return f"sh -c 'echo >> /share/{key}'"

    def count(self, key: str, job: Job) -> int:
        return count_lines(self.share / key)

    def talks(self) -> str:
        return "sh -c 'echo one; while [ ! -e /share/go ]; do sleep 0.05; done; echo two'"

    def let_go(self) -> None:
        (self.share / "go").touch()


class SwarmKit(ContainerKit):
    """The swarm backend on a real Docker Engine."""

    def __init__(self, folder: Path) -> None:
        need_swarm()
        super().__init__(folder)

    def build(self, context: BackendContext) -> Backend:
        return SwarmBackend(context)

    def leftovers(self) -> list[str]:
        ids = ask("docker", "service", "ls", "--quiet", *self._filter())
        form = '{{index .Spec.Labels "pman.job"}}'
        return sorted(ask("docker", "service", "inspect", "--format", form, *ids)) if ids else []

    def close(self) -> None:
        super().close()
        ids = ask("docker", "service", "ls", "--quiet", *self._filter())
        if ids:
            ask("docker", "service", "rm", *ids)

    def _filter(self) -> tuple[str, str]:
        return "--filter", f"label=pman.instance={self.instance}"


class OpenShiftKit(ContainerKit):
    """The openshift backend on a real Kubernetes.

    It keeps both streams as one, in the order in which it happens to read them.
    """

    streams = ("err\nout\n", "")

    def __init__(self, folder: Path) -> None:
        need_kubernetes()
        super().__init__(folder)

    def build(self, context: BackendContext) -> Backend:
        return OpenShiftBackend(context)

    def settings(self) -> Settings:
        return Settings(
            db_path=self.folder,
            kubeconfig=Path(os.environ["KUBECONFIG"]),
            project="myproject",
            storage_type="hostPath",
            store_base=str(self.share.parent),
            job_uid=CONTAINER_UID,
        )

    def printed(self, job: Job) -> tuple[str, str]:
        stdout, stderr = super().printed(job)
        return "".join(sorted(stdout.splitlines(keepends=True))), stderr

    def leftovers(self) -> list[str]:
        form = 'jsonpath={range .items[*]}{.metadata.labels.pman\\.job}{"\\n"}{end}'
        return sorted(ask("kubectl", "get", "jobs", *self._labels(), "-o", form))

    def close(self) -> None:
        super().close()
        ask("kubectl", "delete", "jobs,pods,pvc,configmaps", *self._labels(), "--wait=false")

    def _labels(self) -> tuple[str, ...]:
        return "-n", "myproject", "-l", f"pman.instance={self.instance}"


def count_lines(path: Path) -> int:
    """Return how many lines a file has; 0 when there is none."""
    return path.read_text().count("\n") if path.exists() else 0


def ask(*words: str) -> list[str]:
    """Run a command and return the lines it prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


KITS: dict[str, Callable[[Path], Kit]] = {
    "host": HostKit,
    "openshift": OpenShiftKit,
    "stub": StubKit,
    "swarm": SwarmKit,
}
