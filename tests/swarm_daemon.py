"""Daemons with a real Docker Swarm behind them, and what the engine has of their jobs.

A service is named for its job's jid, and the engine belongs to many: each test run marks its jids.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, Reply, wait_until

#: Image of the jobs; the engine of the tests has it.
IMAGE = "local/busybox:1"

#: Manager of 2.2, made from tests/swarm_manager for the tests that have it run.
MANAGER_IMAGE = "local/swarm-manager:test"

#: How long the engine may take for what a test asks of it, seconds.
ENGINE_TIMEOUT_S = 120.0


def docker(*words: str) -> str:
    """Run a docker command; return what it prints.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=ENGINE_TIMEOUT_S, check=True
    )
    return done.stdout.strip()


def build_manager() -> None:
    """Have the engine have `MANAGER_IMAGE`."""
    folder = Path(__file__).parent / "swarm_manager"
    docker("build", "--quiet", "--tag", MANAGER_IMAGE, str(folder))


def service(name: str) -> dict[str, Any]:
    """Return the engine's object of one service."""
    (found,) = json.loads(docker("service", "inspect", name))
    return found  # type: ignore[no-any-return]


def has_service(name: str) -> bool:
    """Return whether the engine has a service of that name."""
    names = docker("service", "ls", "--format", "{{.Name}}", "--filter", f"name={name}")
    return name in names.split()


def containers(name: str) -> list[dict[str, Any]]:
    """Return the engine's objects of the containers of one service."""
    label = f"label=com.docker.swarm.service.name={name}"
    ids = docker("container", "ls", "--all", "--quiet", "--filter", label).split()
    found: list[dict[str, Any]] = json.loads(docker("container", "inspect", *ids)) if ids else []
    return found


def services_of(daemon: DaemonProcess) -> list[str]:
    """Return the ids of the services that carry the label of one daemon's job DB."""
    instance = (daemon.db_path / "instance").read_text().strip()
    label = f"label=pman.instance={instance}"
    return docker("service", "ls", "--quiet", "--filter", label).split()


def record_of(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    """Return the `record` leaf of the only job with that jid."""
    shown = daemon.post("search", key="jid", value=jid, path="/record").json()["d_ret"]
    assert list(shown) == ["0"], shown
    (tree,) = shown["0"].values()
    return tree["record"]  # type: ignore[no-any-return]


def container_of(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    """Return the `container` folder of the only job with that jid, as `status` shows it."""
    entry = daemon.status(jid)["0.container"]
    folder: dict[str, Any] = entry["tree"][entry["jobRoot"]]["container"]
    return folder


class Swarm:
    """Daemons whose container jobs are services of a real engine.

    Attributes:
        share: Folder that jobs see as /share, unless told otherwise.
    """

    def __init__(self, folder: Path, new_daemon: NewDaemon) -> None:
        self.folder = folder
        self.share = folder / "share"
        self.share.mkdir()
        self._tag = uuid.uuid4().hex[:8]
        self._new_daemon = new_daemon
        self._started: list[DaemonProcess] = []

    def start(self, *flags: str, **settings: Any) -> DaemonProcess:
        """Start a daemon; what its jobs leave on the engine is looked for at the end."""
        daemon = self._new_daemon(*flags, container_env="swarm", **settings)
        self._started.append(daemon)
        return daemon

    def jid(self, word: str) -> str:
        """Return a jid, and so a service name, that no other test run has."""
        return f"{word}-{self._tag}"

    def block(
        self,
        *,
        image: str = IMAGE,
        share: Path | str | None = None,
        manager: str = MANAGER_IMAGE,
        **env: Any,
    ) -> dict[str, Any]:
        """Return a container block as clients of 2.2 send it."""
        env = {"shareDir": str(share or self.share), "serviceType": "docker", **env}
        return {
            "target": {"image": image},
            "manager": {"image": manager, "app": "swarm.py", "env": env},
        }

    def run(self, daemon: DaemonProcess, cmd: str, word: str, **meta: Any) -> Reply:
        """Have a command run in a container."""
        return daemon.run(cmd, self.jid(word), **{"container": self.block(), **meta})

    def check_left(self) -> None:
        """Fail if a service of any of these daemons stays."""
        for daemon in self._started:
            wait_until(lambda daemon=daemon: not services_of(daemon), "no service is left")

    def remove_left(self) -> None:
        """Remove the services of these daemons, whatever became of the test."""
        for daemon in self._started:
            for name in services_of(daemon) if (daemon.db_path / "instance").exists() else []:
                with contextlib.suppress(subprocess.CalledProcessError):  # pman was faster
                    docker("service", "rm", name)


@contextlib.contextmanager
def swarm_below(folder: Path, new_daemon: NewDaemon) -> Iterator[Swarm]:
    """Give a `Swarm`; fail if its daemons leave a service, and remove it."""
    made = Swarm(folder, new_daemon)
    try:
        yield made
        made.check_left()
    finally:
        made.remove_left()


class EngineProxy:
    """A socket in front of the engine's, so that a test can take the engine away from one daemon.

    Attributes:
        url: What DOCKER_HOST is to be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"unix://{path}"
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._listening: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        """Let daemons reach the engine."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self._path))
        listening.listen(64)
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def cut(self) -> None:
        """Take the engine away: its socket is gone, and connections end."""
        self._path.unlink(missing_ok=True)
        if self._listening is not None:
            _hang_up(self._listening)
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            _hang_up(end)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:  # cut
                listening.close()
                return
            engine = _connect_to_engine()
            with self._lock:
                self._ends += [client, engine]
            for source, target in ((client, engine), (engine, client)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _connect_to_engine() -> socket.socket:
    scheme, _, address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition(
        "://"
    )
    if scheme == "unix":
        engine = socket.socket(socket.AF_UNIX)
        engine.connect(address)
        return engine
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port)))


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # either side has hung up
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        end.shutdown(socket.SHUT_RDWR)
