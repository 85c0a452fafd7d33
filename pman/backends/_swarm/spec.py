"""From an `Order` to the service that Docker is asked for. Pure.

Source: Docker, "Engine API", ServiceSpec; the differences from 2.2's service are in ARCHITECTURE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pman.backends._engine.names import legal_name, own_name, unique_part
from pman.backends._engine.order import Order
from pman.backends._engine.port import INSTANCE_LABEL, JID_LABEL, JOB_LABEL
from pman.errors import RequestError, shown

#: Where `shareDir` appears in the container; WIRE 14.2.
SHARE_TARGET = "/share"

#: Source: moby/swarmkit, manager/controlapi/common.go, isValidDNSName and validateAnnotations.
#: Theirs repeats what is repeated already, which takes for ever where names are matched by trying.
_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9])*", re.ASCII)
MAX_NAME = 63

NAME_FIELD = "container.manager.env.serviceName"

#: Least that the engine takes. Source: moby, daemon/daemon_unix.go, linuxMinMemory.
MIN_MEMORY_BYTES = 6 << 20

#: Most of a request's own text in a service, characters. The engine keeps 1.5 MB at most, and a
#: copy for each worker. Source: moby/swarmkit, manager/state/store, MaxTransactionBytes.
MAX_SIZE = 250_000

#: Nanoseconds in a second; NanoCPUs in a thousandth of a CPU.
_NANO = 10**9
_NANO_PER_MILLI = 10**6


def service_name(order: Order) -> str:
    """Return the name of a job's service: as sent, else the jid, made legal where it isn't.

    One that asks for it gets a suffix of its own.
    """
    name = _wanted_name(order)
    return own_name(name, order.job_name, MAX_NAME) if order.has_own_name else name


def _wanted_name(order: Order) -> str:
    if order.service_name is not None:
        return order.service_name
    if _is_legal(order.jid):
        return order.jid
    return legal_name(order.jid, f"job-{unique_part(order.job_name, 8)}".rstrip("-"))


def _is_legal(name: str) -> bool:
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def check_name(order: Order) -> None:
    """Raise unless a name that was sent is one that Docker takes.

    Raises:
        RequestError: It isn't.
    """
    name = order.service_name
    if name is None or _is_legal(name):
        return
    raise RequestError(
        f"{NAME_FIELD} is {shown(name)}, expected at most {MAX_NAME} letters, digits, '-' and '_',"
        " a letter or digit at both ends",
        field=NAME_FIELD,
    )


def check_size(order: Order) -> None:
    """Raise when a service would be longer than a swarm takes: it keeps one copy for each worker.

    Raises:
        RequestError: Names what is longest.
    """
    sizes = {
        "cmd": max(len(order.cmd), sum(map(len, order.command))),
        "env": sum(len(name) + len(value) for name, value in order.env.items()),
        "jid": 2 * len(order.jid),
        "labels": 2 * sum(len(key) + len(value) for key, value in order.labels.items()),
    }
    if sum(sizes.values()) > MAX_SIZE:
        field = max(sizes, key=sizes.__getitem__)
        raise RequestError(
            f"{field} is {sizes[field]} characters long, expected at most {MAX_SIZE} of cmd, env,"
            " jid and labels together; pass long values in a file below shareDir",
            field=field,
        )


def check_resources(order: Order, nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raise when no node of the swarm can give what a job asks for.

    Args:
        nodes: As the engine lists them.
    Raises:
        RequestError: Names the limit and what there is.
    """
    memory, cpus = order.memory_bytes, order.cpu_millis
    if memory is not None and memory < MIN_MEMORY_BYTES:
        raise _unfit("memory_limit", f"{memory} bytes", f"at least {MIN_MEMORY_BYTES}")
    found = [_resources(node) for node in nodes]
    most = max((each.get("NanoCPUs", 0) for each in found), default=0) // _NANO_PER_MILLI
    if cpus is not None and 0 < most < cpus:
        raise _unfit("cpu_limit", f"{cpus}m", f"at most {most}m, which is the swarm's largest node")
    if order.gpus:
        _check_gpus(order.gpus, [_gpus(each) for each in found])


def gpu_kind(nodes: Iterable[Mapping[str, Any]]) -> str:
    """Return the name under which most GPUs of a node are offered, "" when none are.

    Source: Docker, `dockerd --node-generic-resource NVIDIA-GPU=UUID1`; names are free.
    """
    offers = [_gpus(_resources(node)) for node in nodes]
    best = max(
        ((count, kind) for offer in offers for kind, count in offer.items()), default=(0, "")
    )
    return best[1]


def _check_gpus(wanted: int, offers: list[dict[str, int]]) -> None:
    most = max((count for offer in offers for count in offer.values()), default=0)
    if not most:
        expected = "none, because no node of this swarm offers GPUs as a generic resource"
        raise _unfit("gpu_limit", str(wanted), expected)
    if wanted > most:
        raise _unfit("gpu_limit", str(wanted), f"at most {most}, which one node of this swarm has")


def _resources(node: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (node.get("Description") or {}).get("Resources") or {}
    return found


def _gpus(resources: Mapping[str, Any]) -> dict[str, int]:
    """Return {kind: number} of what looks like a GPU."""
    counts: dict[str, int] = {}
    for offer in resources.get("GenericResources") or []:
        discrete, named = offer.get("DiscreteResourceSpec"), offer.get("NamedResourceSpec")
        kind = (discrete or named or {}).get("Kind", "")
        if "gpu" in kind.lower():
            counts[kind] = counts.get(kind, 0) + (discrete["Value"] if discrete else 1)
    return counts


def _unfit(field: str, value: str, expected: str) -> RequestError:
    return RequestError(f"{field} is {value}, expected {expected}", field=field)


def labels_of(order: Order, instance: str) -> dict[str, str]:
    """Return the labels of a job's service and of its containers."""
    ours = {INSTANCE_LABEL: instance, JID_LABEL: order.jid, JOB_LABEL: order.job_name}
    return {**order.labels, **ours}


def service_spec(
    order: Order,
    *,
    instance: str,
    share_path: str | None,
    stop_grace_s: float,
    gpu_kind: str = "",
) -> dict[str, Any]:
    """Return the service of a job as `POST /services/create` takes it.

    Args:
        order: What to run.
        instance: Value of the label `pman.instance`.
        share_path: Folder for `/share` on the node, or None.
        stop_grace_s: From SIGTERM to SIGKILL where the engine ends a container.
        gpu_kind: Generic resource that GPUs are, from `gpu_kind()`.
    """
    labels = labels_of(order, instance)
    return {
        "Name": service_name(order),
        "Labels": labels,
        "TaskTemplate": {
            "ContainerSpec": _container(order, labels, share_path, stop_grace_s),
            "Resources": _limits(order) | _reservations(order, gpu_kind),
            "RestartPolicy": {"Condition": "none", "Delay": 0, "MaxAttempts": 0, "Window": 0},
            "Placement": {},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": order.workers}},
    }


def _container(
    order: Order, labels: Mapping[str, str], share_path: str | None, stop_grace_s: float
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "Image": order.image,
        "Labels": labels,
        "StopGracePeriod": int(stop_grace_s * _NANO),
    }
    if order.command:
        spec["Command"] = order.command  # replaces the entry point, as in 2.2; Args would not
    if order.cwd is not None:
        spec["Dir"] = order.cwd
    if order.env:
        spec["Env"] = [f"{name}={value}" for name, value in order.env.items()]
    if share_path is not None:
        spec["Mounts"] = [{"Type": "bind", "Source": share_path, "Target": SHARE_TARGET}]
    return spec


def _limits(order: Order) -> dict[str, Any]:
    limits: dict[str, int] = {}
    if order.cpu_millis is not None:
        limits["NanoCPUs"] = order.cpu_millis * _NANO_PER_MILLI
    if order.memory_bytes is not None:
        limits["MemoryBytes"] = order.memory_bytes
    return {"Limits": limits} if limits else {}


def _reservations(order: Order, gpu_kind: str) -> dict[str, Any]:
    if not order.gpus:
        return {}
    gpus = {"DiscreteResourceSpec": {"Kind": gpu_kind, "Value": order.gpus}}
    return {"Reservations": {"GenericResources": [gpus]}}
