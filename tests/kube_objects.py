"""Jobs and pods as an API server sends them, for tests without one."""

from __future__ import annotations

from typing import Any

import msgspec

from pman.backends._openshift.objects import KubeJob, KubePod

JOB_NAME = "20261123090253.309797_b64ea2f0-0000-4000-8000-000000000000"
#: Fields of a Job that belong to its `spec`.
SPEC_KEYS = ("parallelism", "completions", "activeDeadlineSeconds", "template")
AT = "2026-11-23T09:02:{:02d}Z"


def job(status: dict[str, Any] | None = None, **fields: Any) -> KubeJob:
    """Return a Job; `fields` are those of `metadata` and `spec`."""
    spec = {key: fields.pop(key) for key in list(fields) if key in SPEC_KEYS}
    document = {
        "metadata": {
            "name": "kx",
            "uid": "u-kx",
            "labels": {"pman.job": JOB_NAME},
            "creationTimestamp": AT.format(0),
            **fields,
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "template": {"spec": {"containers": [{"name": "kx"}]}},
            **spec,
        },
        "status": status or {},
    }
    return msgspec.json.decode(msgspec.json.encode(document), type=KubeJob)


def pod(
    name: str = "kx-a",
    phase: str = "Pending",
    state: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **metadata: Any,
) -> KubePod:
    """Return a pod of that Job; `state` is that of its only container."""
    containers = [] if state is None else [{"name": "kx", "state": state}]
    document = {
        "metadata": {
            "name": name,
            "uid": f"u-{name}",
            "labels": {"pman.job": JOB_NAME},
            "creationTimestamp": AT.format(1),
            "ownerReferences": [{"kind": "Job", "name": "kx", "uid": "u-kx"}],
            **metadata,
        },
        "spec": {"containers": [{"name": "kx"}]},
        "status": {"phase": phase, "containerStatuses": containers, **(status or {})},
    }
    return msgspec.json.decode(msgspec.json.encode(document), type=KubePod)


def ended(code: int, reason: str = "", second: int = 9, message: str = "") -> dict[str, Any]:
    """Return the state of a container that has ended."""
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "message": message,
            "startedAt": AT.format(2),
            "finishedAt": AT.format(second),
        }
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """Return the state of a container that waits."""
    return {"waiting": {"reason": reason, "message": message}}


RUNNING = {"running": {"startedAt": AT.format(2)}}


def condition(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    """Return a condition that is true."""
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": AT.format(10),
    }
