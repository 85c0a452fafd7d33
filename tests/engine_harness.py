"""`Rig`: an `EngineBackend` over a `World`, told and watched as the daemon does it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from fakes.engine import FakeEngine, Thing, World
from recorder import Recorder

from pman.backends._engine.core import EngineBackend
from pman.backends._engine.timing import Timing
from pman.backends.base import BackendContext
from pman.config import Settings
from pman.job.observation import Observation
from pman.job.record import Job, new_job
from pman.job.spec import JobSpec, spec_from_meta
from pman.job.state import JobState
from pman.output import OutputFiles

#: All that is waited for comes within moments; the slow look never comes.
FAST = Timing(
    hot_s=0.002,
    hot_max_s=0.02,
    slow_s=1000.0,
    idle_s=1000.0,
    share_s=0.005,
    connect_s=0.005,
    connect_max_s=0.02,
    again_s=0.005,
    again_max_s=0.02,
    start_s=0.01,
    start_max_s=0.02,
    peek_s=0.0,
    recent_s=0.0,
    live_s=0.005,
    live_max_s=0.02,
    live_poll_s=0.005,
    fresh_s=1000.0,
    settle_s=0.5,
    doubt_s=0.01,
    orphan_s=0.005,
)


class FakeBackend(EngineBackend):
    """Runs jobs in a `World`."""

    name = "fake"


class WatchedRecorder(Recorder):
    """Keeps all observations, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Observation] = []

    def observe(self, seen: Observation) -> None:
        self.seen.append(seen)
        super().observe(seen)

    def wait_reason(self, job: Job, reason: str) -> None:
        """Wait until a job shows a reason."""
        with self._changed:
            assert self._changed.wait_for(lambda: job.reason == reason, 30.0), job

    def wait_handle(self, job: Job) -> None:
        """Wait until the engine is known to have a job."""
        with self._changed:
            assert self._changed.wait_for(lambda: job.handle is not None, 30.0), job


class Rig:
    """One job DB's worth of daemons over one world."""

    def __init__(self, folder: Path, timing: Timing = FAST, **settings: Any) -> None:
        folder.mkdir()
        self.folder = folder
        self.world = World(is_acting=False)
        self.recorder = WatchedRecorder()
        self.output = OutputFiles(folder / "output", 1 << 20)
        self.timing = timing
        self.settings = Settings(db_path=folder, **{"orphan_grace_s": 1000.0, **settings})
        self._open: list[EngineBackend] = []
        self.backend = self.opened()

    def opened(self, kind: type[EngineBackend] = FakeBackend) -> EngineBackend:
        """Return a started backend, as a new daemon has it."""
        context = BackendContext(
            settings=self.settings,
            instance="rig",
            state_path=self.folder / "state",
            output=self.output,
        )
        self.engine = FakeEngine(self.world)
        backend = kind(context, self.engine, self.timing)
        backend.start(self.recorder.observe)
        self._open.append(backend)
        self.backend = backend
        return backend

    def connected(self) -> Rig:
        """Wait until the engine is watched."""
        self.world.wait_call("watch")
        return self

    def job(self, cmd: str = "sleep 60", share_dir: str | None = None, **meta: object) -> Job:
        """Make a job, known but not submitted."""
        job = new_job(self.spec(cmd, share_dir, **meta), "fake", time.time())
        self.recorder.add(job)
        return job

    def spec(self, cmd: str = "true", share_dir: str | None = None, **meta: object) -> JobSpec:
        env = {"shareDir": share_dir} if share_dir else {}
        if "service_name" in meta:
            env["serviceName"] = str(meta.pop("service_name"))
        container = {"target": {"image": "some/image"}, "manager": {"env": env}}
        return spec_from_meta({"cmd": cmd, "auid": "", "jid": "1", "container": container, **meta})

    def submitted(self, cmd: str = "sleep 60", **more: Any) -> Job:
        """Submit a job, and wait until the engine has it."""
        job = self.job(cmd, **more)
        self.backend.submit(job)
        self.recorder.wait(job, JobState.QUEUED)
        return job

    def running(self, **more: Any) -> Job:
        """Submit a job, and wait until it runs."""
        job = self.submitted(**more)
        self.world.run(job.name)
        return self.recorder.wait(job, JobState.RUNNING)

    def ended(self, code: int = 0, **more: Any) -> Job:
        """Submit a job, and wait until its end is reported."""
        job = self.running(**more)
        self.world.end(job.name, code)
        return self.recorder.wait(job)

    def thing(self, job: Job) -> Thing:
        return self.world.things[job.name]

    def text(self, job: Job, stream: str = "stdout") -> str:
        return self.output.read_text(job.name, 0, stream)

    def wait_removed(self, job: Job) -> None:
        self.world.wait(lambda: job.name not in self.world.things)

    def marked(self) -> Job:
        """Submit a job that ends at once, and wait for it: what was asked before it is done."""
        return self.ended()

    def close(self) -> None:
        for gate in self.world.gates.values():
            gate.set()
        for backend in self._open:
            backend.close()


def reread(job: Job) -> Job:
    """Return a job as a new daemon reads it from the disk."""
    copy = Job(**{field: getattr(job, field) for field in Job.__struct_fields__})
    copy.handle = json.loads(json.dumps(job.handle))
    return copy
