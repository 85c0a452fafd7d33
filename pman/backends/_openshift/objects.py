"""The fields of Kubernetes objects that pman reads; all others are dropped while decoding.

That keeps what the cache holds small, and nothing here changes with the version of the SDK.
Source: https://kubernetes.io/docs/reference/kubernetes-api/, Job, Pod, Event; v1.20 to v1.33.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class _Object(msgspec.Struct, rename="camel", kw_only=True):
    """Something of the API, whose names are in camelCase."""


class Owner(_Object):
    """Which object one belongs to."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Meta(_Object):
    """`metadata` of an object."""

    name: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[Owner] = []
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None


class Condition(_Object):
    """One line of `status.conditions`."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class Container(_Object):
    """One container of a pod, as asked for."""

    name: str = ""


class PodSpec(_Object):
    """`spec` of a pod."""

    containers: list[Container] = []
    init_containers: list[Container] = []


class Template(_Object):
    """What the pods of a Job are made from."""

    spec: PodSpec = msgspec.field(default_factory=PodSpec)


class JobSpec(_Object):
    """`spec` of a Job."""

    parallelism: int = 1
    completions: int = 1
    active_deadline_seconds: int | None = None
    template: Template = msgspec.field(default_factory=Template)


class JobStatus(_Object):
    """`status` of a Job; a fresh one has none of these."""

    active: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None
    conditions: list[Condition] = []


class KubeJob(_Object):
    """A Job."""

    metadata: Meta = msgspec.field(default_factory=Meta)
    spec: JobSpec = msgspec.field(default_factory=JobSpec)
    status: JobStatus = msgspec.field(default_factory=JobStatus)


class Waiting(_Object):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class Running(_Object):
    """Since when a container runs."""

    started_at: datetime | None = None


class Terminated(_Object):
    """How a container has ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(_Object):
    """One of three is set, or none."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Object):
    """How one container of a pod stands."""

    name: str = ""
    image: str = ""
    state: ContainerState = msgspec.field(default_factory=ContainerState)
    last_state: ContainerState = msgspec.field(default_factory=ContainerState)


class PodStatus(_Object):
    """`status` of a pod."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []


class KubePod(_Object):
    """A pod. Attributes: is_gone, whether it is no more, and this is how it was last seen."""

    metadata: Meta = msgspec.field(default_factory=Meta)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)
    is_gone: bool = False


class Claim(_Object):
    """A PersistentVolumeClaim."""

    metadata: Meta = msgspec.field(default_factory=Meta)


class ConfigMap(_Object):
    """A ConfigMap."""

    metadata: Meta = msgspec.field(default_factory=Meta)


class KubeEvent(_Object):
    """An Event of the core group; which of the times it has depends on who wrote it."""

    type: str = ""
    reason: str = ""
    message: str = ""
    last_timestamp: datetime | None = None
    event_time: datetime | None = None


class ListMeta(_Object):
    """`metadata` of a list. Attributes: continue_, the token of the next page."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class ObjectList(_Object):
    """A page of any objects, still encoded."""

    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[msgspec.Raw] = []


class WatchEvent(_Object):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Bookmark(_Object):
    """An object that holds nothing but how far a watch has come."""

    metadata: Meta = msgspec.field(default_factory=Meta)


class Status(_Object):
    """What the server says instead of an object."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: dict[str, Any] | None = None
