"""`Order` -> Job; pure. Source: WIRE.md 15.1, with ARCHITECTURE's differences."""

from __future__ import annotations

import re
from typing import Any

from pman.backends._engine.names import legal_name, own_name
from pman.backends._engine.order import Order
from pman.backends._engine.port import INSTANCE_LABEL, JID_LABEL, JOB_LABEL
from pman.backends._openshift.storage import STREAMS, Storage, bytes_text, storage_of
from pman.errors import RequestError, shown
from pman.settings import Settings

#: Limits of 2.2, should the client ask for none.
DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES = 2000, 1024 << 20
#: What is set aside for a container, as in 2.2: that share of its default limit. Of a smaller limit
#: at most the whole; of a larger one the same share, so that a node is not given what it can't run.
REQUEST_CPU_MILLIS, REQUEST_MEMORY_BYTES = 250, 150 << 20

#: Longest name of a Job, characters: those of its pods have six more, and a name that is taken
#: gets a suffix of six.
MAX_NAME = 51
FALLBACK_NAME = "job"
#: Characters of the job's own uuid that tell two jobs of one name apart.
SUFFIX_LENGTH = 5
MAX_LABEL = 63
#: The job id in full is kept in an annotation up to this, characters.
MAX_JID = 4096

ORIGIN_LABEL = "job-origin"
#: Labels that the Job controller or we ourselves select by.
RESERVED_LABELS = (ORIGIN_LABEL, "job-name", "controller-uid")
_RESERVED_PREFIX = "batch.kubernetes.io/"

_NOT_IN_LABEL = re.compile(r"[^A-Za-z0-9_.-]")
#: `$(NAME)` is replaced by the value of a variable, `$$` stands for `$`.
#: Source: Kubernetes, third_party/forked/golang/expansion/expand.go
_EXPANDED = re.compile(r"\$(?=[$(])")

GPU = "nvidia.com/gpu"
_GPU_ENV = {
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    "NVIDIA_REQUIRE_CUDA": "cuda>=9.0",
}


def check_labels(order: Order) -> None:
    """Refuse labels that would make pods lose their Job.

    Raises:
        RequestError: Names the label.
    """
    for key in order.labels:
        if key in RESERVED_LABELS or key.startswith(_RESERVED_PREFIX):
            raise RequestError(
                f"labels is {shown(key)}, expected none of {', '.join(RESERVED_LABELS)}, which"
                " Kubernetes and pman use themselves",
                field="labels",
            )


def check_env(order: Order) -> None:
    """Refuse names of variables that Kubernetes does not take.

    Raises:
        RequestError: Names the variable.
    """
    for name in order.env:
        if name == "." or name.startswith(".."):
            raise RequestError(
                f"env is {shown(name)}, expected names that are not '.' and begin with no '..'",
                field="env",
            )


def names_of(order: Order) -> list[str]:
    """Return the names that a Job may have, the wanted one first; the same for each try."""
    name = legal_name(order.jid, FALLBACK_NAME, MAX_NAME)
    if order.has_own_name:
        return [own_name(name, order.job_name, MAX_NAME + 1 + SUFFIX_LENGTH)]
    unique = f"{name}-{order.job_name.rsplit('_', 1)[-1][:SUFFIX_LENGTH].lower()}"
    # The command's container is called like the Job, and no two of a pod may share a name.
    return [unique] if name in STREAMS else [name, unique]


def labels_of(order: Order, instance: str) -> dict[str, str]:
    """Return the labels of all objects that are made for a job."""
    return {
        **order.labels,
        INSTANCE_LABEL: instance,
        JOB_LABEL: order.job_name,
        JID_LABEL: label_value(order.jid),
        ORIGIN_LABEL: "pman",
    }


def label_value(text: str) -> str:
    """Return a text as the value of a label."""
    return _NOT_IN_LABEL.sub("-", text)[:MAX_LABEL].strip("-_.")


def manifests(
    order: Order,
    settings: Settings,
    *,
    name: str,
    instance: str,
    namespace: str,
    ticket: str | None = None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the Job for an order, and the claim that is to be made before it, if any.

    Args:
        name: Of the Job.
        instance: For the labels.
        namespace: Of the Job.
        ticket: ConfigMap without which no container is to start, or None.
    """
    storage = storage_of(order, settings, name, namespace)
    labels = labels_of(order, instance)
    spec: dict[str, Any] = {
        "parallelism": order.workers,
        "completions": order.workers,
        "backoffLimit": 0,
        "template": {
            "metadata": {"name": name, "labels": labels},
            "spec": _pod_spec(order, settings, name, storage),
        },
    }
    if settings.job_deadline_s:
        spec["activeDeadlineSeconds"] = max(1, round(settings.job_deadline_s))
    if settings.job_ttl_s:
        spec["ttlSecondsAfterFinished"] = max(1, round(settings.job_ttl_s))
    metadata = {"name": name, "labels": labels, "annotations": {JID_LABEL: order.jid[:MAX_JID]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
    if ticket is not None:
        _add_ticket(spec["template"]["spec"], ticket)
    if storage.claim is not None:
        storage.claim["metadata"] |= {"labels": labels}
    return job, storage.claim


def _pod_spec(order: Order, settings: Settings, name: str, storage: Storage) -> dict[str, Any]:
    main: dict[str, Any] = {
        "name": name,
        "image": order.image,
        "env": _env(order),
        "volumeMounts": storage.mounts,
    }
    if order.command:
        main["command"] = order.command
    limits = {
        "cpu": order.cpu_millis or DEFAULT_CPU_MILLIS,
        "memory": order.memory_bytes or DEFAULT_MEMORY_BYTES,
    }
    helper_limits = {"cpu": DEFAULT_CPU_MILLIS, "memory": DEFAULT_MEMORY_BYTES}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": max(1, round(settings.kill_grace_s)),
        "securityContext": _pod_security(settings),
        "containers": [
            _container(main, settings, limits, order.gpus),
            *(_container(helper, settings, helper_limits) for helper in storage.helpers),
        ],
        "volumes": storage.volumes,
    }
    if storage.init:
        spec["initContainers"] = [_container(c, settings, helper_limits) for c in storage.init]
    if settings.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in settings.pull_secrets]
    return spec


def _add_ticket(pod_spec: dict[str, Any], ticket: str) -> None:
    source = {"configMapRef": {"name": ticket, "optional": False}}
    for container in (*pod_spec.get("initContainers", ()), pod_spec["containers"][0]):
        container["envFrom"] = [source]


def _env(order: Order) -> dict[str, str]:
    env = {
        "NUMBER_OF_WORKERS": str(order.workers),
        "CPU_LIMIT": f"{order.cpu_millis or DEFAULT_CPU_MILLIS}m",
        "MEMORY_LIMIT": bytes_text(order.memory_bytes or DEFAULT_MEMORY_BYTES),
    }
    return env | (_GPU_ENV if order.gpus else {}) | order.env


def _container(
    parts: dict[str, Any], settings: Settings, limits: dict[str, int], gpus: int = 0
) -> dict[str, Any]:
    """Fill in what all containers have: limits, pull policy, security; and escape texts."""
    container = dict(parts)
    container["env"] = [{"name": k, "value": _literal(v)} for k, v in parts["env"].items()]
    if "command" in parts:
        container["command"] = [_literal(word) for word in parts["command"]]
    cpu, memory = limits["cpu"], limits["memory"]
    resources: dict[str, dict[str, Any]] = {
        "limits": {"memory": bytes_text(memory), "cpu": f"{cpu}m"},
        "requests": {
            "memory": bytes_text(_request(memory, REQUEST_MEMORY_BYTES, DEFAULT_MEMORY_BYTES)),
            "cpu": f"{_request(cpu, REQUEST_CPU_MILLIS, DEFAULT_CPU_MILLIS)}m",
        },
    }
    if gpus:
        resources["limits"][GPU] = gpus
    container["resources"] = resources
    container["imagePullPolicy"] = settings.pull_policy
    # What the restricted Pod Security Standard and the restricted SCC ask for.
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return container


def _request(limit: int, usual: int, usual_limit: int) -> int:
    return min(limit, max(usual, limit * usual // usual_limit))


def _pod_security(settings: Settings) -> dict[str, Any]:
    context: dict[str, Any] = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if settings.job_uid is not None:
        context["runAsUser"] = settings.job_uid
    if settings.job_gid is not None:
        context |= {"runAsGroup": settings.job_gid, "fsGroup": settings.job_gid}
    return context


def _literal(text: str) -> str:
    """Escape what Kubernetes would replace in a command or in the value of a variable."""
    return _EXPANDED.sub("$$", text)
