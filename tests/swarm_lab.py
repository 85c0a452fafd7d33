"""Docker Engines of their own, which a test may stop, kill, freeze and join to a swarm.

Each engine lives in network, mount and process namespaces of its own, so that it disturbs no other
engine of the machine, and so that nothing of it outlives the tests: the first process of the
namespaces ends with the tests, whatever becomes of them, and takes all others along.

A plug-in of pytest: its fixtures are there for every test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from daemon_factory import NewDaemon
from daemon_process import wait_until
from engines import swarm_problem
from swarm_daemon import IMAGE, Swarm, swarm_below

#: How long an engine may take to start or to stop, seconds. One that was killed ends the
#: containers that it finds, which takes it ten seconds where they don't listen to SIGTERM.
ENGINE_DEADLINE_S = 60.0

#: Grace that a stopping engine gives to containers, seconds.
SHUTDOWN_S = 3

_PROGRAMS = ("dockerd", "containerd", "ip", "unshare", "nsenter", "docker")


def lab_problem() -> str:
    """Return why no engine can be started here, "" when one can."""
    if os.geteuid() != 0:
        return "an engine can be started by root only"
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"no {', '.join(missing)}"
    return swarm_problem()  # whose image is copied


def need_lab() -> None:
    """Skip the test where no engine can be started, with the reason."""
    if problem := lab_problem():
        pytest.skip(problem)


class LabEngine:
    """One Docker Engine.

    Attributes:
        url: What DOCKER_HOST is to be.
        socket_path: Of the engine.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Prepare the namespaces; `folder` is short, as the path of a socket has to be."""
        self.name = name
        self._folder = folder / name
        self._folder.mkdir()
        self.socket_path = self._folder / "docker.sock"
        self.url = f"unix://{self.socket_path}"
        self._cgroup = f"/{folder.name}-{name}"
        self._engine: subprocess.Popen[bytes] | None = None
        # The shell reaps what is orphaned: an engine that was killed takes a zombie for alive.
        command = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
        command += ["--mount-proc", "--propagation", "private", "sh", "-c", "cat; :"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.write(b"ready\n")
        self._holder.stdin.flush()
        assert self._holder.stdout.readline() == b"ready\n"
        (first,) = psutil.Process(self._holder.pid).children()
        self.pid = first.pid
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("hostname", name)

    def inside(self, *words: str) -> str:
        """Run a program of this machine in the engine's network; return what it prints."""
        command = ["nsenter", "--target", str(self.pid), "--net", "--uts", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def docker(self, *words: str, check: bool = True) -> str:
        """Run a docker command with this engine; return what it prints."""
        done = subprocess.run(
            ["docker", "--host", self.url, *words],
            capture_output=True,
            text=True,
            timeout=ENGINE_DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0 or not check, (words, done.stderr, self._log_end())
        return done.stdout.strip()

    # --- its life ---------------------------------------------------------------------------

    def start(self) -> LabEngine:
        """Start; return when it answers."""
        self.launch()
        wait_until(self._answers, f"an answer of {self.name}", ENGINE_DEADLINE_S)
        return self

    def launch(self) -> None:
        """Start, and return at once."""
        folder = self._folder
        (folder / "daemon.json").write_text("{}")
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--pid"]
        flags = ["--config-file", f"{folder}/daemon.json", "--host", self.url]
        flags += ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
        flags += ["--pidfile", f"{folder}/pid", "--cgroup-parent", self._cgroup]
        flags += ["--shutdown-timeout", str(SHUTDOWN_S)]
        with (folder / "log").open("ab") as log:
            self._engine = subprocess.Popen(
                [*enter, "dockerd", *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self) -> None:
        """SIGTERM, as a service manager stops an engine; return when it has ended."""
        self._signal(signal.SIGTERM)
        self._wait_end()

    def kill(self) -> None:
        """SIGKILL; its containers run on."""
        self._signal(signal.SIGKILL)
        self._wait_end()

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections and answers none."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._engine is not None
        self._signal(signal.SIGCONT)
        self._engine.send_signal(signal.SIGCONT)  # nsenter stops with its child

    def mend(self) -> None:
        """Have it run, whatever was done to it."""
        if self.is_up():
            self.thaw()
        else:
            self.start()

    def is_up(self) -> bool:
        """Return whether there is a process of the engine."""
        return self._engine is not None and self._engine.poll() is None

    def end(self) -> None:
        """End the engine and all that it has started, and remove its files."""
        if self.is_up():
            self.thaw()
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._holder.wait(ENGINE_DEADLINE_S)
        self._holder.kill()
        self._wait_end()
        for controller in Path("/sys/fs/cgroup").glob("*"):
            _remove_cgroups(controller / self._cgroup.lstrip("/"))
        _remove_cgroups(Path("/sys/fs/cgroup") / self._cgroup.lstrip("/"))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._engine is not None
        for child in psutil.Process(self._engine.pid).children():
            child.send_signal(number)

    def _wait_end(self) -> None:
        if self._engine is not None:
            self._engine.wait(ENGINE_DEADLINE_S)

    def _answers(self) -> bool:
        assert self.is_up(), self._log_end()
        return bool(self.docker("info", "--format", "{{.ID}}", check=False))

    def _log_end(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]

    def chown_socket(self, uid: int, mode: int) -> None:
        """Give the engine's socket to a user, and say who may use it."""
        os.chown(self.socket_path, uid, uid)
        self.socket_path.chmod(mode)

    # --- its swarm --------------------------------------------------------------------------

    def load_image(self) -> LabEngine:
        """Copy the image of the jobs from the engine of the other tests."""
        with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saved:
            command = ["docker", "--host", self.url, "load"]
            subprocess.run(command, stdin=saved.stdout, check=True, capture_output=True)
        return self

    def init_swarm(self, address: str = "127.0.0.1") -> LabEngine:
        """Make this engine the manager of a swarm of its own; return when it runs tasks."""
        self.docker("swarm", "init", "--advertise-addr", address)
        wait_until(self.is_ready, "a ready node", ENGINE_DEADLINE_S)
        return self

    def leave_swarm(self) -> None:
        """Leave the swarm; it and its services are gone with its last manager."""
        self.docker("swarm", "leave", "--force")

    def nodes(self) -> dict[str, str]:
        """Return {host name: status} of the swarm's nodes."""
        lines = self.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}", check=False)
        return dict(line.split() for line in lines.splitlines())

    def is_ready(self) -> bool:
        """Return whether the swarm says that this node can run tasks."""
        return self.nodes().get(self.name) == "Ready"


def join(manager: LabEngine, worker: LabEngine) -> None:
    """Connect two engines by a cable, and make a swarm of them."""
    ends = [(manager, "10.231.7.1"), (worker, "10.231.7.2")]
    words = ["ip", "link", "add", "lab0", "netns", str(manager.pid), "type", "veth"]
    words += ["peer", "name", "lab0", "netns", str(worker.pid)]
    subprocess.run(words, check=True)
    for engine, address in ends:
        engine.inside("ip", "address", "add", f"{address}/24", "dev", "lab0")
        engine.inside("ip", "link", "set", "lab0", "up")
        engine.start().load_image()
    manager.init_swarm("10.231.7.1")
    manager.docker("swarm", "update", "--dispatcher-heartbeat", "1s")
    token = manager.docker("swarm", "join-token", "--quiet", "worker")
    worker.docker("swarm", "join", "--token", token, "10.231.7.1:2377")
    wait_until(lambda: manager.nodes().get(worker.name) == "Ready", "two nodes", ENGINE_DEADLINE_S)


@contextlib.contextmanager
def lab_engines(*names: str) -> Iterator[list[LabEngine]]:
    """Give engines that are yet to be started; end them."""
    folder = Path(tempfile.mkdtemp(prefix="pman-lab-", dir="/tmp"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        engines = []
        for name in names:
            engines.append(LabEngine(folder, name))
            ends.callback(engines[-1].end)
        yield engines


def _remove_cgroups(top: Path) -> None:
    """Remove empty control groups, from the leaves up."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):  # the kernel is not done with it; it costs nothing
            Path(folder).rmdir()


@pytest.fixture
def lab() -> Iterator[LabEngine]:
    """An engine of the test's own, the only manager of a swarm."""
    need_lab()
    with lab_engines("lab") as (engine,):
        yield engine.start().load_image().init_swarm()


@pytest.fixture
def lab_pair() -> Iterator[tuple[LabEngine, LabEngine]]:
    """Two engines of the test's own in one swarm: the manager, and a worker."""
    need_lab()
    with lab_engines("manager", "worker") as (manager, worker):
        join(manager, worker)
        yield manager, worker


@pytest.fixture
def lab_swarm(
    lab: LabEngine, tmp_path: Path, new_daemon: NewDaemon, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Swarm]:
    """Starts daemons with `lab` behind them, and looks that no service is left."""
    monkeypatch.setenv("DOCKER_HOST", lab.url)
    with swarm_below(tmp_path, new_daemon) as made:
        try:
            yield made
        finally:
            lab.mend()


@pytest.fixture
def pair_swarm(
    lab_pair: tuple[LabEngine, LabEngine],
    tmp_path: Path,
    new_daemon: NewDaemon,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Swarm]:
    """As `lab_swarm`, with the manager of `lab_pair`."""
    monkeypatch.setenv("DOCKER_HOST", lab_pair[0].url)
    with swarm_below(tmp_path, new_daemon) as made:
        try:
            yield made
        finally:
            lab_pair[0].mend()
