"""The commands for OpenShift and Kubernetes as they are printed, against a real cluster.

They are run in a folder with what they need of the source tree. What is replaced:

- names that others use: the namespace, the ports, the job DB;
- images that cannot be pulled: pman's is built here, and named in a copy of the overlays; that of
  the jobs is one that the cluster has;
- a storage class: the claim of the job DB finds a volume that waits for it;
- `oc`, and with it the SCC and the Route: see `fake_oc`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_oc
import pytest
import yaml
from deployment import local_volume, remove_namespace
from engines import need_kubernetes, need_swarm
from image_container import ROOT, built_image, free_port
from leftovers import end_shepherds
from manifests import kubectl
from readme_chapter import Shell, chapter, commands, reply_of

pytestmark = pytest.mark.slow

#: Where the commands are printed, and the heading over them.
DOCUMENT = ROOT / "README.rst"
CHAPTER = "OpenShift and Kubernetes"

_BLOCKS = commands(chapter(DOCUMENT.read_text(encoding="utf-8"), CHAPTER))
CREATE, INSTALL, START, RUN_HERE, STATUS_HERE = _BLOCKS[:5]
DEPLOY, FORWARD, RUN_THERE, STATUS_THERE, ON_OPENSHIFT = _BLOCKS[5:]

#: What `pip install` looks at.
PACKAGE = ("setup.py", "pyproject.toml", "README.rst", "LICENSE", "pman")


class ClusterShell(Shell):
    """A shell for a cluster that others use as well, with a namespace of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.namespace = f"pman-readme-{secrets.token_hex(4)}"
        self.db_path = folder / "db"
        port = free_port()
        self.names = {
            "myproject": self.namespace,
            "service/pman 5010": f"service/pman {port}:5010",
            "127.0.0.1:5010": f"127.0.0.1:{port}",
            "docker.io/library/busybox:1": "local/busybox:1",
        }
        # what `oc new-project` changes is a copy
        kubeconfig = folder / "kubeconfig"
        shutil.copyfile(os.environ["KUBECONFIG"], kubeconfig)
        programs = folder / "bin"
        programs.mkdir()
        fake_oc.write_to(programs)
        self.environment |= {
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{folder / '.venv' / 'bin'}:{programs}:{self.environment['PATH']}",
            "PMAN_DBPATH": str(self.db_path),
            "PMAN_PORT": str(port),
        }

    def make_environment(self) -> None:
        """Have what `make run` leaves behind, as far as `pip install` needs it."""
        for name in PACKAGE:
            (self.folder / name).symlink_to(ROOT / name)
        venv.create(self.folder / ".venv", with_pip=True)

    def copy_manifests(self) -> None:
        """Have openshift/ in the folder, with the image of this tree; and a volume."""
        tree = self.folder / "openshift"
        shutil.copytree(ROOT / "openshift", tree, ignore=shutil.ignore_patterns("tokens.txt"))
        name, _, tag = built_image().partition(":")
        for path in tree.glob("overlays/*/kustomization.yaml"):
            kustomization = yaml.safe_load(path.read_text())
            (image,) = kustomization["images"]
            image |= {"newName": name, "newTag": tag}
            path.write_text(yaml.safe_dump(kustomization))
        volume = local_volume(self.folder / "volume", self.namespace, "db")
        volume["spec"]["claimRef"] = {"namespace": self.namespace, "name": "pman-db"}
        kubectl("apply", "-f", "-", given=yaml.safe_dump(volume))

    def close(self) -> None:
        super().close()
        end_shepherds(self.db_path)
        remove_namespace(self.namespace)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[ClusterShell]:
    need_swarm()
    need_kubernetes()
    made = ClusterShell(tmp_path)
    yield made
    made.close()


def has_said_hello(status: dict[str, Any]) -> bool:
    """Whether a status is that of a job that went well, with what it printed."""
    result = status["d_ret"]
    (log,) = result["l_logs"]
    return result["l_status"] == ["finishedSuccessfully"] and "hello" in log


def test_on_your_own_machine(shell: ClusterShell) -> None:
    shell.make_environment()
    shell.done(CREATE)
    shell.done(INSTALL)
    shell.start(START, "listening on")
    assert reply_of(shell.done(RUN_HERE))["action"] == "run"
    assert has_said_hello(reply_of(shell.done(STATUS_HERE)))


def test_in_the_cluster_on_kubernetes(shell: ClusterShell) -> None:
    shell.copy_manifests()
    shell.done(CREATE)
    assert "successfully rolled out" in shell.done(DEPLOY)
    shell.start(FORWARD, "Forwarding from")
    assert reply_of(shell.done(RUN_THERE))["action"] == "run"
    assert has_said_hello(reply_of(shell.done(STATUS_THERE)))


def test_in_the_cluster_on_openshift(shell: ClusterShell) -> None:
    shell.copy_manifests()
    said = shell.done(ON_OPENSHIFT)
    assert "successfully rolled out" in said
    assert said.endswith("pman pman http\n")
