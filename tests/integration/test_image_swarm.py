"""The commands for Docker Swarm as they are printed, against a real engine and the real image.

Mapped are only the names that others use on the same engine, the port, and images that cannot be
pulled: those of the chapter stand for what this machine has.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import wait_until
from engines import need_swarm
from image_container import (
    BUILD_TIMEOUT_S,
    ENGINE_TIMEOUT_S,
    ROOT,
    build_flags,
    docker,
    engine_socket,
    free_port,
    image_tag,
)

pytestmark = pytest.mark.slow

#: Where the commands are printed, and the heading over them.
DOCUMENT = ROOT / "README.rst"
CHAPTER = "Docker Swarm"

#: What an engine says that has been told to begin a swarm before.
ALREADY = "already part of a swarm"


@pytest.fixture(scope="module", autouse=True)
def _needs_swarm() -> None:
    need_swarm()


def chapter(text: str, title: str) -> str:
    """Return what is below a heading, up to the next one of the same kind."""
    found = re.search(rf"^{title}\n(([^\w\s])\2+)\n", text, re.MULTILINE)
    assert found, f"no chapter {title!r}"
    rest = text[found.end() :]
    following = re.search(rf"^\S.*\n{re.escape(found[2])}{{4,}}$", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def commands(text: str) -> list[str]:
    """Return the blocks of shell commands."""
    blocks = re.findall(r"^\.\. code-block:: bash\n\n((?: .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in blocks]


class Shell:
    """Carries out printed commands in a folder, with the names of this machine put in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"pman-test-{secrets.token_hex(6)}"
        self.port = free_port()
        self.log_path = folder / "pman.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._names = {
            "docker build": f"docker build {' '.join(build_flags())}",
            "latest .": f"latest {ROOT}",
            "fnndsc/pman:latest": image_tag(),
            "fnndsc/pl-simpledsapp:version-1.0.8": "local/busybox:1",
            "testService": self.name,
            "--name pman ": f"--name {self.name} ",
            "docker exec pman": f"docker exec {self.name}",
            "-v /var/run/docker.sock": f"-v {engine_socket()}",
            "127.0.0.1:5010:": f"127.0.0.1:{self.port}:",
            " :5010": f" :{self.port}",
        }

    def run(self, command: str, timeout_s: float = BUILD_TIMEOUT_S) -> tuple[int, str]:
        """Return the exit status of a command and what it printed."""
        done = subprocess.run(
            self._words(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self._environment(),
            timeout=timeout_s,
            check=False,
        )
        return done.returncode, done.stdout

    def start(self, command: str) -> None:
        """Begin a command that goes on, as one does in a terminal; return when pman listens."""
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self._words(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
            )
        wait_until(self._listens, "pman to listen", ENGINE_TIMEOUT_S)

    def close(self) -> None:
        docker("service", "rm", self.name, check=False)
        docker("exec", self.name, "rm", "-rf", "/hostFS/storeBase/somedata", check=False)
        docker("stop", self.name, check=False)
        if self.process is not None:
            self.process.wait(ENGINE_TIMEOUT_S)

    def _listens(self) -> bool:
        assert self.process is not None
        text = self.log_path.read_text()
        assert self.process.poll() is None, text
        return "listening on" in text

    def _words(self, command: str) -> list[str]:
        for printed, ours in self._names.items():
            command = command.replace(printed, ours)
        return ["bash", "-euo", "pipefail", "-c", command]

    def _environment(self) -> dict[str, str]:
        programs = Path(sys.prefix) / "bin"  # http
        return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(self.folder)}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.close()


def reply_of(printed: str) -> dict[str, Any]:
    document, _ = json.JSONDecoder().raw_decode(printed, printed.index("{"))
    assert document["status"] is True, printed
    return dict(document)


def test_the_chapter_does_what_it_says(shell: Shell) -> None:
    build, init, start, put, run, status = commands(chapter(DOCUMENT.read_text(), CHAPTER))
    assert build == "docker build -t fnndsc/pman:latest ."

    code, said = shell.run(build)
    assert code == 0, said

    code, said = shell.run(init)
    assert code == 0 or ALREADY in said, said

    shell.start(start)

    code, said = shell.run(put)
    assert code == 0, said
    assert (shell.folder / "FS" / "remote" / "somedata" / "something").is_file()

    code, said = shell.run(run)
    assert code == 0, said
    assert reply_of(said)["action"] == "run"

    def look() -> dict[str, Any] | None:
        code, said = shell.run(status)
        assert code == 0, said
        result: dict[str, Any] = reply_of(said)["d_ret"]
        return result if all("finished" in word for word in result["l_status"]) else None

    result = wait_until(look, "the end of the job", ENGINE_TIMEOUT_S)
    assert result["l_status"] == ["finishedSuccessfully"], result
    assert "something" in json.dumps(result["l_logs"])
    wait_until(
        lambda: not docker("service", "ls", "--quiet", "--filter", f"name={shell.name}"),
        "the removal of the service",
    )
