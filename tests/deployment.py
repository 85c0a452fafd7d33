"""pman in a pod, deployed from the manifests as they are shipped, with volumes of this machine."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import yaml
from daemon_process import DEADLINE_S, Connection, DaemonProcess, Reply, wait_until
from image_container import built_image
from manifests import KubectlFailed, Object, kubectl, tree_with_tokens

#: How long pods may take to come and go, seconds.
ROLLOUT_TIMEOUT_S = 120

#: How many jobs can have a claim of their own; a volume takes one claim in its life.
JOB_VOLUMES = 6

#: How large a claim is; what the volumes really have is what the disk has.
CLAIM_SIZE = "16MiB"


def local_volume(path: Path, namespace: str, name: str) -> Object:
    """Return a volume that is a new folder of the only node, this machine; it obeys fsGroup.

    Args:
        namespace: For whose claims it is; value of its label `pman-test`.
    """
    path.mkdir(parents=True)
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    node = nodes[0]["metadata"]["labels"]["kubernetes.io/hostname"]
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}", "labels": {"pman-test": namespace}},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def remove_namespace(name: str) -> None:
    """Have a namespace and its volumes removed; the cluster takes a minute for it, on its own."""
    kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    kubectl("delete", "pv", "-l", f"pman-test={name}", "--wait=false")


class Deployment(DaemonProcess):
    """A namespace with pman in it; asks its Service, with its token.

    The cluster's node has to be this machine, for its volumes are folders here.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.namespace = f"pman-deployment-{secrets.token_hex(4)}"
        self.token = secrets.token_hex(32)
        self.address = ("", 0)

    # --- made and removed -----------------------------------------------------------------

    def deploy(self) -> None:
        """Make the volumes and apply an overlay; return when pman is ready."""
        image = built_image()
        kubectl("create", "namespace", self.namespace)
        kubectl("apply", "-f", "-", given=yaml.safe_dump_all(self._volumes()))
        kubectl("apply", "-k", self._overlay(image))
        self.wait_ready()
        spec = json.loads(self.kubectl("get", "service", "pman", "-o", "json"))["spec"]
        self.address = (spec["clusterIP"], spec["ports"][0]["port"])

    def remove(self) -> None:
        """Have all that was made removed."""
        remove_namespace(self.namespace)

    def _overlay(self, image: str) -> Path:
        """Write a kustomization for this cluster: the image, the namespace, classes of volumes."""
        tree_with_tokens(self.folder, self.token + "\n")
        name, _, tag = image.partition(":")
        settings = {
            "PMAN_STORAGETYPE": "claim",
            "PMAN_STORAGECLASS": f"{self.namespace}-jobs",
            "PMAN_CLAIMSIZE": CLAIM_SIZE,
            "PMAN_KILLGRACE": "1",
        }
        claim_class = [
            {"op": "add", "path": "/spec/storageClassName", "value": f"{self.namespace}-db"}
        ]
        kustomization = {
            "namespace": self.namespace,
            "resources": ["../openshift/overlays/kubernetes"],
            "images": [{"name": "fnndsc/pman", "newName": name, "newTag": tag}],
            "configMapGenerator": [
                {
                    "name": "pman-settings",
                    "behavior": "merge",
                    "literals": [f"{key}={value}" for key, value in settings.items()],
                }
            ],
            "patches": [
                {
                    "target": {"kind": "PersistentVolumeClaim", "name": "pman-db"},
                    "patch": yaml.safe_dump(claim_class),
                }
            ],
        }
        overlay = self.folder / "overlay"
        overlay.mkdir()
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return overlay

    def _volumes(self) -> list[Object]:
        """Return volumes for the job DB and for jobs."""
        names = ["db", *(f"job-{number}" for number in range(JOB_VOLUMES))]
        return [self._volume(name) for name in names]

    def _volume(self, name: str) -> Object:
        made = local_volume(self.folder / "volumes" / name, self.namespace, name)
        kind = "db" if name == "db" else "jobs"
        made["spec"]["storageClassName"] = f"{self.namespace}-{kind}"
        return made

    # --- looked at ------------------------------------------------------------------------

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """Run kubectl in the namespace."""
        return kubectl("--namespace", self.namespace, *words, given=given)

    def wait_ready(self) -> None:
        """Wait until one pod of the newest kind is ready, and no other is left."""
        limit = f"--timeout={ROLLOUT_TIMEOUT_S}s"
        try:
            self.kubectl("rollout", "status", "deployment/pman", limit)
        except KubectlFailed as exc:
            exc.add_note(self.kubectl("describe", "pods", "-l", "app.kubernetes.io/name=pman"))
            exc.add_note(self.log_text())
            raise

    def pods(self) -> list[Object]:
        """Return the pods of pman itself that are not about to go."""
        words = ("get", "pods", "-l", "app.kubernetes.io/name=pman", "-o", "json")
        items: list[Object] = json.loads(self.kubectl(*words))["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def shares(self) -> list[Path]:
        """Return the folders of which each job sees one as /share."""
        return [path for path in (self.folder / "volumes").iterdir() if path.name != "db"]

    def objects_of_jobs(self) -> list[str]:
        """Return Jobs, pods and claims that pman has made and that are not about to go."""
        words = ("get", "jobs,pods,persistentvolumeclaims", "-l", "pman.instance", "-o", "json")
        items: list[Object] = json.loads(self.kubectl(*words))["items"]
        return [
            f"{item['kind']} {item['metadata']['name']}"
            for item in items
            if "deletionTimestamp" not in item["metadata"]
        ]

    def log_text(self) -> str:
        return self.kubectl("logs", "deployment/pman", "--tail=-1")

    def connect(self, timeout_s: float = DEADLINE_S) -> Connection:
        """As `DaemonProcess.connect`; the node learns of a new pod a while after we do."""

        def knock() -> Connection | None:
            try:
                return Connection(self.address, timeout_s)
            except ConnectionRefusedError:
                return None

        found: Connection = wait_until(knock, "the Service leads to pman")
        return found

    def post(self, action: str, headers: dict[str, str] | None = None, **meta: Any) -> Reply:
        """As `DaemonProcess.post`, with the token unless `headers` are given.

        While the node does not know of a new pod, whoever has the address of the former one
        answers; pman never answers with nothing.
        """
        if headers is None:
            headers = {"Authorization": f"Bearer {self.token}"}
        send = super().post

        def ask() -> Reply | None:
            reply = send(action, headers, **meta)
            return reply if reply.body else None

        answered: Reply = wait_until(ask, "the Service leads to pman")
        return answered
