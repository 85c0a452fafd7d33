"""The image that the Dockerfile makes, and containers of it that leave nothing behind."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import subprocess
import uuid
from pathlib import Path

from daemon_process import DaemonProcess, wait_until

ROOT = Path(__file__).parents[1]

#: A base that some machines have that cannot pull one.
LOCAL_BASE = "local/python:3.11"

#: How long a build may take, seconds.
BUILD_TIMEOUT_S = 900.0

#: How long an engine may take to start or stop a container on a busy machine, seconds.
ENGINE_TIMEOUT_S = 90.0


def docker(*words: str, timeout_s: float = ENGINE_TIMEOUT_S, check: bool = True) -> str:
    """Run a docker command; return what it printed, standard error included."""
    done = subprocess.run(
        ["docker", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0 or not check, f"docker {' '.join(words)}: {done.stdout}"
    return done.stdout.strip()


def engine_socket() -> str:
    """Return the path of the engine's socket file on this machine."""
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def image_tag() -> str:
    """Return the tag of this checkout's image."""
    return "pman-test:" + hashlib.sha256(os.fspath(ROOT).encode()).hexdigest()[:12]


def build_flags() -> list[str]:
    """Return what `docker build` needs on this machine besides a tag and a context."""
    base = os.environ.get("PMAN_TEST_BASE", "")
    if not base and docker("images", "--quiet", LOCAL_BASE):
        base = LOCAL_BASE
    return ["--network", "host", *(["--build-arg", f"BASE={base}"] if base else [])]


@functools.cache
def built_image() -> str:
    """Build the image, once a session; layers that are there are used again. Return its tag."""
    tag = image_tag()
    docker("build", *build_flags(), "--tag", tag, os.fspath(ROOT), timeout_s=BUILD_TIMEOUT_S)
    return tag


class Container(DaemonProcess):
    """A pman in a container, with the client of a `DaemonProcess`."""

    def __init__(self, folder: Path, *flags: str, arguments: tuple[str, ...] = ()) -> None:
        """Make a container that is to be started.

        Args:
            folder: Where tests put what the container sees.
            flags: Of `docker run`.
            arguments: Of pman.
        """
        super().__init__(folder)
        self.name = f"pman-test-{uuid.uuid4().hex[:12]}"
        # Quick looks, as tests wait for the outcome.
        health = ("--health-interval=1s", "--health-retries=2", "--health-timeout=3s")
        self.command = ["run", "--detach", "--name", self.name, *health]
        self.command += ["--publish", "127.0.0.1::5010", *flags, built_image(), *arguments]

    def start(self) -> Container:
        """Start; return when it listens on its port."""
        docker(*self.command)
        self.wait_until_listening()
        return self

    def wait_until_listening(self, offset: int = 0) -> None:
        """Wait until the log behind `offset` says so, and learn where port 5010 is published."""
        self.wait_for_log(r"listening on \S+?:(\d+)", offset)
        self.port = int(docker("port", self.name, "5010/tcp").rpartition(":")[2])

    def log_text(self) -> str:
        return docker("logs", self.name)

    def execute(self, *words: str, user: str = "") -> str:
        """Run a command in the container, as root unless said otherwise; return what it printed."""
        return docker("exec", *(["--user", user] if user else []), self.name, *words)

    def inspect(self, template: str) -> str:
        return docker("inspect", "--format", template, self.name)

    def wait_for_health(self, word: str) -> None:
        wait_until(
            lambda: self.inspect("{{.State.Health.Status}}") == word,
            f"health {word!r}",
            ENGINE_TIMEOUT_S,
        )

    def output_of(self, cmd: str, jid: str) -> str:
        """Run a host job to its end; return what it printed on stdout."""
        assert self.run(cmd, jid, compound=False).status == 200
        self.wait_finished(jid)
        reply = self.post("search", key="jid", value=jid, job="0", field="stdout", when="end")
        ((_, job),) = reply.json()["d_ret"]["0"].items()
        return str(job["end"]["0"]["endInfo"]["0"]["stdout"]).strip()

    def remove(self) -> None:
        """Remove it with its own volumes."""
        docker("rm", "--force", "--volumes", self.name, check=False)
