"""What is mounted at `/share`, by `--storageType`; pure.

Source: WIRE.md 15.1 for hostPath and swift.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pman.backends._engine.order import Order
from pman.errors import RequestError, shown
from pman.settings import Settings

SHARE, SHARE_PATH = "shared-volume", "/share"
#: Folder of 2.2, on the node.
HOST_BASE = "/tmp/share"  # noqa: S108  of the contract
CLAIM_SUFFIX = "-storage-claim"
#: Storage types for which a claim is made for each job.
CLAIM_TYPES = ("claim", "swift")

INIT, PUBLISH = "init-storage", "publish"
#: Container -> stream of its output; the others are the command's.
STREAMS = {INIT: "init", PUBLISH: "publish"}

_NOT_IN_FOLDER = re.compile(r"[^A-Za-z0-9._-]")
#: Longest name of a folder made from a job id, characters.
MAX_FOLDER = 200


class Storage(msgspec.Struct):
    """Parts of a pod that the storage adds.

    Attributes:
        volumes: Of the pod; the first is the share.
        mounts: Of the command's container.
        init: Containers that run before it.
        helpers: Containers that run beside it.
        claim: Claim to be made before the Job, or None.
    """

    volumes: list[dict[str, Any]]
    mounts: list[dict[str, Any]]
    init: list[dict[str, Any]] = []
    helpers: list[dict[str, Any]] = []
    claim: dict[str, Any] | None = None


def storage_of(order: Order, settings: Settings, name: str, namespace: str) -> Storage:
    """Return what the storage type adds to the Job called `name`.

    Args:
        order: Has passed `check_storage`.
        name: Of the Job.
        namespace: Of the Job.
    """
    mount = {"name": SHARE, "mountPath": SHARE_PATH}
    kind = settings.storage_type
    if kind == "hostPath":
        path = {"path": host_path(order, settings), "type": "DirectoryOrCreate"}
        return Storage([{"name": SHARE, "hostPath": path}], [mount])
    if kind == "pvc":
        mount["subPath"] = folder_name(order.jid)
        return Storage([_claimed(settings.share_claim or "")], [mount])
    if kind not in CLAIM_TYPES:
        return Storage([{"name": SHARE, "emptyDir": {}}], [mount])
    found = Storage([_claimed(name + CLAIM_SUFFIX)], [mount], claim=_claim(settings, name))
    if kind == "swift":
        _add_swift(found, order, settings, namespace)
    return found


def check_storage(order: Order, settings: Settings) -> None:
    """Refuse an order that this storage type can't serve.

    Raises:
        RequestError: Names the field and the value.
    """
    if settings.storage_type == "swift" and len(order.command) < 2:
        raise RequestError(
            f"cmd is {shown(order.cmd)}, expected an incoming and an outgoing folder as its last"
            " words, which storage type swift fills and publishes",
            field="cmd",
        )


def folder_name(jid: str) -> str:
    """Return the folder of 2.2 for a job id, as one harmless component of a path."""
    return f"key-{_NOT_IN_FOLDER.sub('-', jid)[:MAX_FOLDER]}"


def host_path(order: Order, settings: Settings) -> str:
    """Return the folder of the node: 2.2's, or one under STOREBASE."""
    base = (settings.store_base or "").rstrip("/")
    last = (order.share_dir or "").rsplit("/", 1)[-1]
    if base and last:
        return f"{base}/{last}"
    return f"{base or HOST_BASE}/{folder_name(order.jid)}"


def _claimed(name: str) -> dict[str, Any]:
    return {"name": SHARE, "persistentVolumeClaim": {"claimName": name}}


def _claim(settings: Settings, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": [settings.claim_access_mode],
        "resources": {"requests": {"storage": bytes_text(settings.claim_size_bytes)}},
    }
    if settings.storage_class is not None:
        spec["storageClassName"] = settings.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name + CLAIM_SUFFIX},
        "spec": spec,
    }


def _add_swift(found: Storage, order: Order, settings: Settings, namespace: str) -> None:
    incoming, outgoing = order.command[-2:]
    found.volumes += [
        {"name": "swift-credentials", "secret": {"secretName": settings.swift_secret}},
        {"name": "kubecfg-volume", "secret": {"secretName": settings.kubecfg_secret}},
        {"name": "local-volume", "emptyDir": {}},
    ]
    share = {"name": SHARE, "mountPath": SHARE_PATH}
    local = {"name": "local-volume", "mountPath": "/local"}
    secret = {"name": "swift-credentials", "mountPath": "/etc/swift", "readOnly": True}
    kubeconfig = {"name": "kubecfg-volume", "mountPath": "/tmp/.kube/", "readOnly": True}  # noqa: S108
    env = {"SWIFT_KEY": order.jid}
    found.init.append(
        {
            "name": INIT,
            "image": settings.swift_image,
            "command": ["python3", "get_data.py"],
            "env": env | {"INCOMING_DIR": incoming, "OUTGOING_DIR": outgoing},
            "volumeMounts": [share, secret, local],
        }
    )
    found.helpers.append(
        {
            "name": PUBLISH,
            "image": settings.swift_image,
            "command": ["python3", "put_data.py"],
            "env": env
            | {
                "NUMBER_OF_WORKERS": str(order.workers),
                "KUBECFG_PATH": "/tmp/.kube/config",  # noqa: S108  in the container
                "OPENSHIFTMGR_PROJECT": namespace,
                "OUTGOING_DIR": outgoing,
            },
            "volumeMounts": [share, secret, kubeconfig, local],
        }
    )


def bytes_text(count: int) -> str:
    """Spell a number of bytes as Kubernetes does: `1024Mi`, `2Gi`, or the plain number.

    Gi only from 2 on: 2.2's default of memory is spelled `1024Mi`.
    """
    if count % (1 << 30) == 0 and count > 1 << 30:
        return f"{count >> 30}Gi"
    return f"{count >> 20}Mi" if count % (1 << 20) == 0 else str(count)
