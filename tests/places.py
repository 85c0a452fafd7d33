"""A daemon with each backend behind it, told what to run in one way."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, Reply, wait_until
from engines import need_swarm
from openshift_daemon import Project, Share, Starter, small
from swarm_daemon import Swarm, swarm_below

#: How long what a test asks of an engine may take, seconds.
DEADLINE_S = 150.0


class Place:
    """Daemons whose jobs run on one backend; a test's scripts are the same on all of them.

    Attributes:
        name: Of the backend.
        folder: That jobs and test have in common.
        share: Where jobs see it.
    """

    name = ""
    share = "/share"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *flags: str, name: str = "pman") -> DaemonProcess:
        """Start a daemon; the same name is the same job DB."""
        raise NotImplementedError

    def meta(self) -> dict[str, Any]:
        """Return what `meta` needs beside the command."""
        return {}

    def run(self, daemon: DaemonProcess, script: str, **meta: Any) -> str:
        """Have a shell run a script; return the jid."""
        jid = meta.pop("jid", None) or f"{self.name}-{uuid.uuid4().hex[:12]}"
        reply = self.try_to_run(daemon, script, jid=jid, **meta)
        assert (reply.status, reply.json()["status"]) == (200, True), reply.body[-2000:]
        return jid

    def try_to_run(self, daemon: DaemonProcess, script: str, **meta: Any) -> Reply:
        """Ask for it, and return the reply."""
        wanted = {"argv": ["sh", "-c", script], "auid": "tester", "threaded": True}
        return daemon.post("run", **{**wanted, **self.meta(), **meta})

    def gate(self) -> SharedGate:
        """Make a gate that scripts can wait at."""
        return SharedGate(self.folder, self.share)


class SharedGate:
    """A file that scripts wait for, in the folder that they share with the test.

    Attributes:
        passage: Shell words that wait.
    """

    def __init__(self, folder: Path, share: str) -> None:
        self._path = folder / f"gate-{uuid.uuid4().hex[:8]}"
        self.passage = f"until [ -e {share}/{self._path.name} ]; do sleep 0.1; done"

    def open(self) -> None:
        """Let all pass, now and when they come."""
        self._path.touch()


class HostPlace(Place):
    """Jobs on this machine."""

    name = "host"

    def __init__(self, folder: Path, new: NewDaemon) -> None:
        super().__init__(folder)
        self.share = str(folder)
        self._new = new

    def start(self, *flags: str, name: str = "pman") -> DaemonProcess:
        return self._new("--killGrace", "2", *flags, name=name)


class SwarmPlace(Place):
    """Jobs on a real Docker Swarm."""

    name = "swarm"

    def __init__(self, swarm: Swarm) -> None:
        super().__init__(swarm.share)
        self._swarm = swarm
        swarm.share.chmod(0o777)

    def start(self, *flags: str, name: str = "pman") -> DaemonProcess:
        return self._swarm.start("--killGrace", "2", *flags, name=name)

    def meta(self) -> dict[str, Any]:
        return {"container": self._swarm.block()}


class OpenShiftPlace(Place):
    """Jobs on a real Kubernetes."""

    name = "openshift"

    def __init__(self, starter: Starter, share: Share) -> None:
        super().__init__(share.path)
        self._starter = starter
        self._share = share

    def start(self, *flags: str, name: str = "pman") -> DaemonProcess:
        return self._starter(*flags, name=name)

    def meta(self) -> dict[str, Any]:
        return small(self._share)


@contextlib.contextmanager
def place_of(
    name: str, folder: Path, new: NewDaemon, project: Callable[[], Project]
) -> Iterator[Place]:
    """Give the place of that name; skips the test where its engine is not there."""
    if name == "host":
        shared = folder / "shared"
        shared.mkdir()
        yield HostPlace(shared, new)
    elif name == "swarm":
        need_swarm()
        with swarm_below(folder, new) as swarm:
            yield SwarmPlace(swarm)
    else:
        starter = Starter(new, project())
        share = starter.share()
        try:
            yield OpenShiftPlace(starter, share)
        finally:
            share.close()


# --- what a daemon says ---------------------------------------------------------------------


@pytest.fixture(scope="module", params=["host", "swarm", "openshift"])
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_shared_daemon: NewDaemon,
) -> Iterator[Place]:
    """One backend."""
    folder = tmp_path_factory.mktemp(request.param)
    with place_of(
        request.param, folder, new_shared_daemon, lambda: request.getfixturevalue("project")
    ) as made:
        yield made


def ask(daemon: DaemonProcess, action: str, **meta: Any) -> dict[str, Any]:
    """Return the `d_ret` of an action, which must not be refused."""
    reply = daemon.post(action, **meta)
    assert reply.status == 200, reply.body[-2000:]
    result: dict[str, Any] = reply.json()["d_ret"]
    return result


def job_of(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    """Return how the newest job with a jid stands."""
    jobs = ask(daemon, "list", jid=jid)["jobs"]
    assert jobs, f"no job {jid}"
    job: dict[str, Any] = jobs[0]
    return job


def wait_for(
    daemon: DaemonProcess, jid: str, is_so: Callable[[dict[str, Any]], bool], what: str
) -> dict[str, Any]:
    """Return the job once it is so."""

    def look() -> dict[str, Any] | None:
        job = job_of(daemon, jid)
        return job if is_so(job) else None

    try:
        found: dict[str, Any] = wait_until(look, f"{jid}: {what}", DEADLINE_S)
    except AssertionError as exc:
        exc.add_note(f"{job_of(daemon, jid)}\n{daemon.log_text()[-3000:]}")
        raise
    return found


def wait_running(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    return wait_for(daemon, jid, lambda job: job["state"] == "RUNNING", "it runs")


def wait_ended(daemon: DaemonProcess, *jids: str) -> list[dict[str, Any]]:
    """Wait for the end of jobs with the action for it; return them in the order of the jids."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        said = ask(daemon, "wait", jid=list(jids), timeout=20)
        if said["isDone"]:
            by_jid = {job["jid"]: job for job in said["jobs"]}
            return [by_jid[jid] for jid in jids]
        assert time.monotonic() < deadline, f"{said}\n{daemon.log_text()[-3000:]}"


def lines_of(raw: bytes) -> list[dict[str, Any]]:
    """Return the objects of a body of JSON lines."""
    return [json.loads(line) for line in raw.splitlines() if line]
