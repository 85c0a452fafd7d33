"""The image: who pman is in there, what it can write, how it starts, is looked after and ends.

Each container is real, on the engine that DOCKER_HOST names.
"""

from __future__ import annotations

import json
import re
import stat
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_process import wait_until
from engines import need_swarm
from image_container import ROOT, Container, built_image, docker, engine_socket

import pman

pytestmark = pytest.mark.slow

NewContainer = Callable[..., Container]

#: Where the image keeps the job DB.
DB_PATH = "/var/lib/pman/db"

#: A host job that asks the engine for a sign of life, as the SDK in the image does.
PING = "/opt/pman/bin/python -I -c 'import docker; print(docker.from_env().ping())'"

SOCKET = "/var/run/docker.sock"


@pytest.fixture(scope="module", autouse=True)
def _needs_engine() -> None:
    need_swarm()


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume of the engine."""
    name = f"pman-test-{uuid.uuid4().hex[:12]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name, check=False)


@pytest.fixture
def new_container(tmp_path: Path, volume: str) -> Iterator[NewContainer]:
    """Starts containers that end with the test, before the volume goes that they may have."""
    made: list[Container] = []

    def new(*flags: str, arguments: tuple[str, ...] = (), is_started: bool = True) -> Container:
        container = Container(tmp_path, *flags, arguments=arguments)
        made.append(container)
        return container.start() if is_started else container

    yield new
    for container in made:
        container.remove()


def mount_socket() -> list[str]:
    return ["--volume", f"{engine_socket()}:{SOCKET}"]


# --- who pman is ----------------------------------------------------------------------------


def test_started_as_root_it_gives_root_up(new_container: NewContainer) -> None:
    container = new_container()
    assert container.output_of("id -u; id -g; id -G; echo $HOME", "who").split() == [
        "10001",
        "10001",
        "10001",
        "/var/lib/pman",
    ]
    status = container.output_of("grep -E '^(CapPrm|CapEff|NoNewPrivs)' /proc/self/status", "caps")
    assert re.findall(r"\S+$", status, re.MULTILINE) == ["0" * 16, "0" * 16, "1"]
    assert container.execute("stat", "-c", "%u %g %a", DB_PATH) == "10001 10001 700"


def test_it_gets_the_group_of_the_engine_socket(new_container: NewContainer) -> None:
    container = new_container(*mount_socket(), "--group-add", "4444")
    group = str(Path(engine_socket()).stat().st_gid)
    groups = container.output_of("id -G", "groups").split()
    assert sorted(groups) == sorted({"10001", "4444", group})
    assert container.output_of(PING, "ping") == "True"
    assert "docker-entrypoint" not in container.log_text()


def test_another_user_can_be_named(new_container: NewContainer) -> None:
    container = new_container("--env", "PMAN_UID=1234", "--env", "PMAN_GID=2345", *mount_socket())
    assert container.output_of("id -u; id -g", "who").split() == ["1234", "2345"]
    assert container.output_of(PING, "ping") == "True"


def test_root_can_be_kept(new_container: NewContainer) -> None:
    container = new_container("--env", "PMAN_UID=0")
    assert container.output_of("id -u; echo $HOME", "who").split() == ["0", "/root"]


@pytest.mark.parametrize("user", ["4321", "4321:4321", "1000640000:0"])
@pytest.mark.parametrize("flags", [[], ["--read-only", "--cap-drop", "ALL"]], ids=["", "confined"])
def test_any_user_will_do(new_container: NewContainer, user: str, flags: list[str]) -> None:
    container = new_container("--user", user, *flags)
    uid = user.partition(":")[0]
    assert container.output_of("id -u; echo $HOME", "who").split() == [uid, "/var/lib/pman"]
    assert container.execute("stat", "-c", "%u %a", DB_PATH) == f"{uid} 700"
    container.wait_for_health("healthy")


def test_root_file_system_may_be_read_only(new_container: NewContainer) -> None:
    container = new_container("--read-only", *mount_socket())
    assert container.output_of("touch /etc/x || echo refused", "touch") == "refused"
    assert container.output_of(PING, "ping") == "True"


def test_user_who_may_not_use_the_engine_is_told_what_to_do(new_container: NewContainer) -> None:
    container = new_container("--user", "4321", *mount_socket())
    group = Path(engine_socket()).stat().st_gid
    assert f"may not use {SOCKET}: add --group-add {group}" in container.log_text()
    with_group = new_container("--user", "4321", "--group-add", str(group), *mount_socket())
    assert with_group.output_of(PING, "ping") == "True"


@pytest.mark.parametrize(("variable", "value"), [("PMAN_UID", "pman"), ("PMAN_GID", "-1")])
def test_user_that_is_no_number_is_refused(variable: str, value: str) -> None:
    said = docker("run", "--rm", "--env", f"{variable}={value}", built_image(), check=False)
    assert f"{variable} is '{value}', expected a number" in said


# --- the job DB -----------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--user", "4321"]], ids=["root", "user"])
def test_jobs_survive_the_container(
    new_container: NewContainer, volume: str, flags: list[str]
) -> None:
    mount = ["--volume", f"{volume}:/var/lib/pman"]
    first = new_container(*mount, *flags)
    first.output_of("echo one", "one")
    first.remove()
    second = new_container(*mount, *flags)
    assert second.words("one") == ["finishedSuccessfully"]


def test_restart(new_container: NewContainer) -> None:
    container = new_container()
    container.output_of("echo one", "one")
    before = len(container.log_text())
    docker("restart", container.name)
    container.wait_until_listening(before)
    assert container.words("one") == ["finishedSuccessfully"]
    assert container.output_of("echo two", "two") == "two"


def test_folder_that_group_0_may_write_to(new_container: NewContainer, tmp_path: Path) -> None:
    """As a platform mounts a volume for a user of its own choice."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o2770)
    container = new_container("--user", "4321:0", "--volume", f"{folder}:/var/lib/pman")
    assert container.output_of("echo one", "one") == "one"
    assert stat.S_IMODE((folder / "db").stat().st_mode) & 0o777 == 0o700


def test_empty_folder_of_root_is_handed_over(new_container: NewContainer, tmp_path: Path) -> None:
    folder = tmp_path / "db"
    folder.mkdir()
    container = new_container("--volume", f"{folder}:{DB_PATH}")
    assert container.output_of("echo one", "one") == "one"
    assert folder.stat().st_uid == 10001


def test_job_db_of_another_user_is_left_alone(new_container: NewContainer, tmp_path: Path) -> None:
    folder = tmp_path / "db"
    folder.mkdir(mode=0o700)
    (folder / "pman.db").write_text("")
    said = docker("run", "--rm", "--volume", f"{folder}:{DB_PATH}", built_image(), check=False)
    assert f"belongs to user {folder.stat().st_uid}, expected 10001: chown it" in said


# --- arguments and environment --------------------------------------------------------------


def test_arguments_arrive_as_they_were_given() -> None:
    said = docker("run", "--rm", built_image(), "--listeners", "a  b; *", check=False)
    assert "--listeners is 'a  b; *', expected a number" in said


def test_arguments_replace_the_default_ones(new_container: NewContainer) -> None:
    container = new_container("--publish", "127.0.0.1::5099", arguments=("--port", "5099"))
    assert re.search(
        r"listening on tcp://0\.0\.0\.0:5099 \(HTTP, 4 listeners", container.log_text()
    )
    container.wait_for_health("healthy")


def test_default_arguments(new_container: NewContainer) -> None:
    container = new_container()
    assert "tcp://0.0.0.0:5010 (HTTP, 12 listeners" in container.log_text()
    reply = container.post("hello", askAbout="timestamp")
    assert reply.header("content-type") == "application/html"


def test_another_command_can_be_run() -> None:
    assert docker("run", "--rm", built_image(), "bash", "-c", "echo $((40 + 2)); id -u") == "42\n0"
    assert docker("run", "--rm", built_image(), "pman", "--version") == (
        f"Version: {pman.__version__}"
    )


def test_directive_of_its_own_user_is_taken(new_container: NewContainer) -> None:
    container = new_container()
    said = container.execute(
        *("pman_do", "--msg", '{"action": "DBctl", "meta": {"do": "save"}}', "--wait", "20"),
        user="pman",
    )
    assert "taken by pman" in said


def test_store_base_is_found_from_a_volume(new_container: NewContainer, volume: str) -> None:
    container = new_container("--env", f"PMAN_DOCKER_VOLUME={volume}", *mount_socket())
    place = docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume)
    assert container.output_of("echo $STOREBASE", "where") == place


def test_store_base_wins_over_the_volume(new_container: NewContainer, volume: str) -> None:
    flags = ["--env", f"PMAN_DOCKER_VOLUME={volume}", "--env", "STOREBASE=/here"]
    container = new_container(*flags, *mount_socket())
    assert container.output_of("echo $STOREBASE", "where") == "/here"


@pytest.mark.parametrize("has_engine", [True, False])
def test_volume_that_is_not_found_is_a_warning(
    new_container: NewContainer, has_engine: bool
) -> None:
    flags = mount_socket() if has_engine else []
    container = new_container("--env", "PMAN_DOCKER_VOLUME=pman-test-nosuch", *flags)
    assert "volume 'pman-test-nosuch' was not found: docker.errors." in container.log_text()
    assert container.output_of('echo "[$STOREBASE]"', "where") == "[]"


# --- health and end -------------------------------------------------------------------------


def test_health(new_container: NewContainer) -> None:
    container = new_container()
    container.wait_for_health("healthy")
    said = json.loads(container.inspect("{{json .State.Health.Log}}"))[-1]["Output"]
    assert said == "healthy: tcp://127.0.0.1:5010 answers\n"
    container.execute("bash", "-c", f"kill -STOP $(cat {DB_PATH}/pman.lock)")
    container.wait_for_health("unhealthy")
    container.execute("bash", "-c", f"kill -CONT $(cat {DB_PATH}/pman.lock)")
    container.wait_for_health("healthy")


def test_health_with_tokens(new_container: NewContainer, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    container = new_container(
        *("--volume", f"{tokens}:/tokens:ro"),
        arguments=("--enableTokenAuth", "--tokenPath", "/tokens"),
    )
    assert container.post("hello", askAbout="timestamp").status == 401
    container.wait_for_health("healthy")


def test_stop_is_quick_and_clean(new_container: NewContainer) -> None:
    container = new_container()
    container.run("sleep 1000", "long")
    docker("stop", "--time", "60", container.name)
    assert container.inspect("{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"
    assert "stopping; host jobs run on" in container.log_text()


def test_no_process_is_left_unreaped(new_container: NewContainer) -> None:
    container = new_container()
    container.output_of("setsid sleep 0.1 & echo away", "orphan")
    zombies = "cat /proc/[0-9]*/stat | grep -c ') Z ' || true"
    wait_until(lambda: container.execute("bash", "-c", zombies) == "0", "no zombies")


# --- what is in it --------------------------------------------------------------------------


def test_labels_and_ports() -> None:
    config = json.loads(docker("inspect", "--format", "{{json .Config}}", built_image()))
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == pman.__version__
    assert {"title", "description", "source", "licenses", "revision"} <= {
        name.removeprefix("org.opencontainers.image.") for name in labels
    }
    assert list(config["ExposedPorts"]) == ["5010/tcp"]
    assert config["StopSignal"] == "SIGTERM"


def test_nothing_is_in_it_that_is_not_needed() -> None:
    """The build context is what the Dockerfile copies, and the build's tools stay behind."""
    look = (
        "ls -A /src /opt/pman/bin; find / -xdev -name .git -o -xdev -name .venv; ls -A /var/lib/apt"
    )
    said = docker("run", "--rm", built_image(), "bash", "-c", f"{look}; true")
    assert "cannot access '/src'" in said
    assert not re.search(r"\bpip|setuptools|\.git|\.venv|\.deb\b", said)
    modules = "import docker, kubernetes, openshift.dynamic, pman.health"
    assert not docker("run", "--rm", built_image(), "/opt/pman/bin/python", "-c", modules)


def test_entry_point_is_sound_shell() -> None:
    subprocess.run(["bash", "-n", str(ROOT / "docker-entrypoint.sh")], check=True)
    assert (ROOT / "docker-entrypoint.sh").stat().st_mode & stat.S_IXUSR
