"""The daemon with its openshift backend on a real cluster, in a project of the tests' own.

A plug-in of pytest: its fixtures are there for every test.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_proxy import ApiProxy
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, Reply, wait_until
from engines import need_kubernetes

#: Image that every cluster of the tests has; its user is root.
IMAGE = "local/busybox:1"
#: User that containers run as, and whom the folders of the tests let in.
UID = 1000
#: How long a pod may take from its making to its end on a busy node, seconds.
DEADLINE_S = 120.0

#: All that is made for jobs.
KINDS = "jobs,pods,persistentvolumeclaims,configmaps"

FINAL = ("COMPLETED", "FAILED", "CANCELED", "LOST")


class Project:
    """A project (namespace) on the cluster, and what is in it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """Run kubectl in this project; return what it prints."""
        done = subprocess.run(
            ("kubectl", "-n", self.name, *words),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            input=text,
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def get(self, kinds: str, **labels: str) -> list[dict[str, Any]]:
        """Return the objects of some kinds whose `pman.` labels are as given."""
        chosen = ",".join(f"pman.{key}={value}" for key, value in labels.items())
        items: list[dict[str, Any]]
        items = json.loads(self.kubectl("get", kinds, "-l", chosen, "-o", "json"))["items"]
        return items

    def server_version(self) -> tuple[int, int]:
        """Return the version of Kubernetes, as in (1, 20)."""
        said = json.loads(self.kubectl("get", "--raw", "/version"))
        major, minor = (re.sub(r"\D.*", "", said[key]) for key in ("major", "minor"))
        return int(major), int(minor)

    def apply(self, *objects: dict[str, Any]) -> None:
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", text=json.dumps(document))

    def wait_gone(self, daemon: DaemonProcess, **labels: str) -> None:
        """Wait until nothing is left of a daemon's jobs, or of those with further labels."""
        chosen = {"instance": instance_of(daemon), **labels}

        def left() -> list[str]:
            found = self.get(KINDS, **chosen)
            return [_title(item) for item in found if not _is_going(item)]

        try:
            wait_until(lambda: not left(), "nothing is left on the cluster", DEADLINE_S)
        except AssertionError as exc:
            exc.add_note(f"left: {left()}\n{daemon.log_text()[-3000:]}")
            raise


def _title(item: dict[str, Any]) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def _is_going(item: dict[str, Any]) -> bool:
    """Whether a pod was deleted and does not run: its node may take a minute to let go of it."""
    statuses = item.get("status", {}).get("containerStatuses", [])
    is_running = any("running" in status["state"] for status in statuses)
    return "deletionTimestamp" in item["metadata"] and item["kind"] == "Pod" and not is_running


class Share:
    """A folder of the node that jobs see as /share, and a gate in it.

    Attributes:
        path: Where it is.
        passage: Shell words that wait at the gate.
        meta: What `meta` needs for it.
    """

    passage = "read _ < /share/gate"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(exist_ok=True)
        self.path.chmod(0o777)
        os.mkfifo(self.path / "gate")
        (self.path / "gate").chmod(0o666)
        self._fd = os.open(self.path / "gate", os.O_RDWR)

    def open(self, count: int = 1) -> None:
        """Let so many jobs pass, now or when they come."""
        os.write(self._fd, b"\n" * count)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file; [] when there is none."""
        path = self.path / name
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        os.close(self._fd)


class Starter:
    """Starts daemons with the openshift backend; `base` is their STOREBASE."""

    def __init__(self, new: NewDaemon, project: Project) -> None:
        self._new = new
        self._project = project
        self.base = new.folder / "store"
        self.base.mkdir()

    def __call__(
        self,
        *flags: str,
        storage: str = "hostPath",
        is_based: bool = True,
        uid: int | None = UID,
        kubeconfig: Path | None = None,
        **settings: Any,
    ) -> DaemonProcess:
        """Start a daemon.

        Args:
            storage: Its --storageType.
            is_based: Whether folders of jobs lie below `base`; else below /tmp/share, as in 2.2.
            uid: Its --jobUID.
            kubeconfig: Its way to the API server, the usual one if None.
        """
        where = kubeconfig or Path(os.environ["KUBECONFIG"])
        mine = ["--project", self._project.name, "--kubeconfig", str(where)]
        mine += ["--storageType", storage, "--killGrace", "2"]
        if storage == "hostPath" and is_based:
            mine += ["--storeBase", str(self.base)]
        if uid is not None:
            mine += ["--jobUID", str(uid)]
        return self._new(*mine, *flags, **{"container_env": "openshift", **settings})

    def share(self) -> Share:
        """Make a folder for jobs of a daemon whose storage is hostPath."""
        return Share(self.base / uuid.uuid4().hex[:8])


def container(image: str = IMAGE, **env: str) -> dict[str, Any]:
    """Return a container block; `env` is the manager's, `shareDir` for one."""
    return {"target": {"image": image}, "manager": {"env": env}}


def small(share: Share | None = None, image: str = IMAGE, **meta: Any) -> dict[str, Any]:
    """Return what `meta` holds of a job of which many fit on the node."""
    env = {} if share is None else {"shareDir": f"/elsewhere/{share.path.name}"}
    limits = {"cpu_limit": "100m", "memory_limit": "64Mi"}
    return {**limits, "container": container(image, **env), **meta}


def shell(script: str) -> str:
    """Return a command line that has a shell run the script."""
    return f"sh -c {shlex.quote(script)}"


def instance_of(daemon: DaemonProcess) -> str:
    """Return the name of a daemon's job DB, as labels on the cluster spell it."""
    with contextlib.closing(
        sqlite3.connect(f"file:{daemon.db_path}/pman.db?mode=ro", uri=True)
    ) as db:
        (name,) = db.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
    return str(name)


def name_of(daemon: DaemonProcess, jid: str) -> str:
    """Return the folder name of the only job with that jid."""
    found = daemon.post("search", key="jid", value=jid).json()["d_ret"]
    assert list(found) == ["0"], found
    (name,) = found["0"]
    return str(name)


def record_of(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    """Return the `record` leaf of the only job with that jid."""
    found = daemon.post("search", key="jid", value=jid, path="/record").json()["d_ret"]
    assert list(found) == ["0"], found
    (inner,) = found["0"].values()
    record: dict[str, Any] = inner["record"]
    return record


def wait_for(
    daemon: DaemonProcess, jid: str, is_so: Callable[[dict[str, Any]], bool], what: str
) -> dict[str, Any]:
    """Return a job's record once it is so."""

    def look() -> dict[str, Any] | None:
        record = record_of(daemon, jid)
        return record if is_so(record) else None

    try:
        found: dict[str, Any] = wait_until(look, f"{jid}: {what}", DEADLINE_S)
    except AssertionError as exc:
        exc.add_note(f"{record_of(daemon, jid)}\n{daemon.log_text()[-3000:]}")
        raise
    return found


def wait_running(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    return wait_for(daemon, jid, lambda r: r["state"] == "RUNNING", "it runs")


def wait_ended(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    return wait_for(daemon, jid, lambda r: r["state"] in FINAL, "it ends")


def delete(daemon: DaemonProcess, jid: str) -> Reply:
    """Delete a job, however long its node takes to let go of its pods."""
    document = {"payload": {"action": "delete", "meta": {"value": jid}}}
    body = json.dumps(document).encode()
    with daemon.connect(DEADLINE_S) as connection:
        head = f"POST /api/v1/cmd HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.send(head.encode() + body)
        return connection.read_reply()


def codes_of(daemon: DaemonProcess, jid: str) -> list[int | None]:
    """Return the exit codes of the containers of the only job with that jid."""
    codes: list[int | None] = daemon.status(jid)["0.end"]["returncode"]
    return codes


def log_of(daemon: DaemonProcess, jid: str) -> str:
    """Return the entry in `l_logs` of the only job with that jid."""
    (text,) = daemon.status(jid)["l_logs"]
    return str(text)


@pytest.fixture(scope="session")
def project() -> Iterator[Project]:
    """A project of our own; it goes with all that is in it."""
    need_kubernetes()
    made = Project(f"pman-test-{uuid.uuid4().hex[:8]}")
    made.kubectl("create", "namespace", made.name)
    # Pods can't be made before it is there.
    wait_until(lambda: "default" in made.kubectl("get", "serviceaccounts"), "the project is ready")
    yield made
    made.kubectl("delete", "namespace", made.name, "--wait=false")


@pytest.fixture
def start(new_daemon: NewDaemon, project: Project) -> Starter:
    """Starts daemons that end with the test."""
    return Starter(new_daemon, project)


@pytest.fixture(scope="module")
def start_shared(new_shared_daemon: NewDaemon, project: Project) -> Starter:
    """Starts daemons that last as long as the module's tests."""
    return Starter(new_shared_daemon, project)


@pytest.fixture
def share(start: Starter) -> Iterator[Share]:
    made = start.share()
    yield made
    made.close()


@pytest.fixture
def proxy(tmp_path: Path, project: Project) -> Iterator[ApiProxy]:
    """A proxy in front of the API server; depends on the project so that there is a server."""
    made = ApiProxy(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_proxy(tmp_path_factory: pytest.TempPathFactory, project: Project) -> Iterator[ApiProxy]:
    """As `proxy`, for daemons that last as long as the module's tests."""
    made = ApiProxy(tmp_path_factory.mktemp("proxy"))
    yield made
    made.close()
