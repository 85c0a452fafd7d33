"""The commands for Docker Swarm as they are printed, against a real engine and the real image.

Mapped are only the names that others use on the same engine, the port, and images that cannot be
pulled: those of the chapter stand for what this machine has.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import wait_until
from engines import need_swarm
from image_container import (
    ENGINE_TIMEOUT_S,
    ROOT,
    build_flags,
    docker,
    engine_socket,
    free_port,
    image_tag,
)
from readme_chapter import Shell, chapter, commands, reply_of

pytestmark = pytest.mark.slow

#: Where the commands are printed, and the heading over them.
DOCUMENT = ROOT / "README.rst"
CHAPTER = "Docker Swarm"

#: What an engine says that has been told to begin a swarm before.
ALREADY = "already part of a swarm"


@pytest.fixture(scope="module", autouse=True)
def _needs_swarm() -> None:
    need_swarm()


class SwarmShell(Shell):
    """A shell for an engine that others use as well."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = f"pman-test-{secrets.token_hex(6)}"
        port = free_port()
        self.names = {
            "docker build": f"docker build {' '.join(build_flags())}",
            "latest .": f"latest {ROOT}",
            "fnndsc/pman:latest": image_tag(),
            "fnndsc/pl-simpledsapp:version-1.0.8": "local/busybox:1",
            "testService": self.name,
            "--name pman ": f"--name {self.name} ",
            "docker exec pman": f"docker exec {self.name}",
            "-v /var/run/docker.sock": f"-v {engine_socket()}",
            "127.0.0.1:5010:": f"127.0.0.1:{port}:",
            " :5010": f" :{port}",
        }

    def close(self) -> None:
        docker("service", "rm", self.name, check=False)
        docker("exec", self.name, "rm", "-rf", "/hostFS/storeBase/somedata", check=False)
        docker("stop", self.name, check=False)
        super().close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[SwarmShell]:
    made = SwarmShell(tmp_path)
    yield made
    made.close()


def test_the_chapter_does_what_it_says(shell: SwarmShell) -> None:
    build, init, start, put, run, status, why = commands(chapter(DOCUMENT.read_text(), CHAPTER))
    assert build == "docker build -t fnndsc/pman:latest ."

    shell.done(build)
    code, said = shell.run(init)
    assert code == 0 or ALREADY in said, said
    shell.start(start, "listening on")
    shell.done(put)
    assert (shell.folder / "FS" / "remote" / "somedata" / "something").is_file()

    assert reply_of(shell.done(run))["action"] == "run"

    def look() -> dict[str, Any] | None:
        result: dict[str, Any] = reply_of(shell.done(status))["d_ret"]
        return result if all("finished" in word for word in result["l_status"]) else None

    result = wait_until(look, "the end of the job", ENGINE_TIMEOUT_S)
    assert result["l_status"] == ["finishedSuccessfully"], result
    assert "something" in json.dumps(result["l_logs"])
    assert '"reason": "ok"' in shell.done(why)
    wait_until(
        lambda: not docker("service", "ls", "--quiet", "--filter", f"name={shell.name}"),
        "the removal of the service",
    )
