"""`docker-stack.yml` and `docker-compose.yml`, on a real engine."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_process import wait_until
from engines import need_swarm
from image_container import (
    ENGINE_TIMEOUT_S,
    ROOT,
    Container,
    built_image,
    docker,
    engine_socket,
    free_port,
)

pytestmark = pytest.mark.slow

COMPOSE = ROOT / "docker-compose.yml"
STACK = ROOT / "docker-stack.yml"


@pytest.fixture(scope="module", autouse=True)
def _needs_swarm() -> None:
    need_swarm()


class Stack(Container):
    """The pman of a deployed stack; its container is found by the service."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.stack = f"pman-test-{secrets.token_hex(6)}"
        self.port = free_port()
        self.token = secrets.token_hex(16)
        (folder / "store").mkdir()
        (folder / "tokens").write_text(f"{self.token}\n")
        self.environment = {
            **os.environ,
            "PMAN_IMAGE": built_image(),
            "PMAN_TOKENS": self.stack,
            "PORT": str(self.port),
            "STOREBASE": str(folder / "store"),
            "DOCKER_SOCKET": engine_socket(),
        }

    def start(self) -> Stack:
        docker("secret", "create", self.stack, str(self.folder / "tokens"))
        deploy = ["stack", "deploy", "--resolve-image", "never", "--detach=true"]
        run_docker(self.environment, *deploy, "--compose-file", str(STACK), self.stack)
        self.name = wait_until(self._find, "a container", ENGINE_TIMEOUT_S)
        self.wait_for_log("listening on")
        return self

    def remove(self) -> None:
        docker("stack", "rm", self.stack, check=False)
        label = f"label=com.docker.stack.namespace={self.stack}"
        wait_until(
            lambda: not docker("ps", "--all", "--quiet", "--filter", label),
            "the end of the stack",
            ENGINE_TIMEOUT_S,
        )
        for kind in ("secret", "volume"):
            names = docker(kind, "ls", "--quiet", "--filter", f"name={self.stack}").split()
            if names:
                docker(kind, "rm", *names)

    def _find(self) -> str:
        label = f"label=com.docker.swarm.service.name={self.stack}_pman"
        return docker("ps", "--quiet", "--filter", label)


def run_docker(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ["docker", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        timeout=ENGINE_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    try:
        yield made.start()
    finally:
        made.remove()


def test_stack_serves_those_who_have_a_token(stack: Stack) -> None:
    bearer = {"Authorization": f"Bearer {stack.token}"}
    assert stack.post("hello", askAbout="timestamp").status == 401
    assert stack.post("hello", bearer, askAbout="timestamp").status == 200
    assert "docker-entrypoint" not in stack.log_text()
    assert stack.execute("stat", "-L", "-c", "%u %a", "/run/secrets/tokens") == "10001 400"
    template = "{{.Spec.TaskTemplate.Placement.Constraints}}"
    constraints = docker("service", "inspect", "--format", template, f"{stack.stack}_pman")
    assert constraints == "[node.role == manager]"


def test_stack_runs_a_container_job(stack: Stack) -> None:
    folder = stack.folder / "store" / "somedata"
    folder.mkdir()
    (folder / "something").touch()
    bearer = {"Authorization": f"Bearer {stack.token}"}
    container = {
        "target": {"image": "local/busybox:1"},
        "manager": {
            "env": {"shareDir": "/hostFS/storeBase/somedata/", "serviceName": f"{stack.stack}-job"}
        },
    }
    reply = stack.post("run", bearer, cmd="ls /share", jid="a", auid="me", container=container)
    result = reply.json()["d_ret"]
    assert result["l_status"] == ["finishedSuccessfully"], result
    assert "something" in json.dumps(result["l_logs"])


@pytest.mark.parametrize("path", [COMPOSE, STACK], ids=lambda path: path.name)
def test_file_is_valid(path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "STOREBASE": str(tmp_path)}
    text = run_docker(environment, "stack", "config", "--compose-file", str(path))
    assert re.search(r"^\s+image: fnndsc/pman:latest$", text, re.MULTILINE)
    assert f"source: {tmp_path}\n" in text


@pytest.mark.parametrize("path", [COMPOSE, STACK], ids=lambda path: path.name)
def test_file_probes_as_the_image_does(path: Path, tmp_path: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    probe = re.search(r"CMD (\[.*pman\.health\"\])", dockerfile)
    assert probe is not None
    assert f'["CMD", {probe[1][1:]}' in path.read_text()


@pytest.mark.parametrize("path", [COMPOSE, STACK], ids=lambda path: path.name)
def test_file_without_a_store_says_what_is_missing(path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "STOREBASE"}
    with pytest.raises(AssertionError, match="STOREBASE"):
        run_docker(environment, "stack", "config", "--compose-file", str(path))
