"""`Tickets`: what the pods of a Job need to start, and what is taken away once all of them have.

A Job controller before Kubernetes 1.26 replaces a pod that somebody has deleted, or whose node is
gone, as if it had never run; telling the Job to stop comes too late, as a node starts the new pod
within a second. So each Job there has a ConfigMap, empty, which its containers name as a source of
variables: a container is not started without it. Source: Kubernetes, "Configure a Pod to use a
ConfigMap"; pkg/controller/job, `isPodFailed`, since 1.26.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec

from pman.backends._engine.names import unique_name
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.objects import ConfigMap
from pman.backends._openshift.removal import remove_object

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

#: From this version of the server on, a deleted pod counts as failed.
NOT_NEEDED_FROM = (1, 26)

_NUMBER = re.compile(r"\d+")


class _Version(msgspec.Struct):
    major: str = ""
    minor: str = ""


def are_needed(api: Api) -> bool:
    """Whether this server replaces deleted pods of a Job that must not start twice.

    Raises:
        BackendUnavailable: It can't be asked.
    """
    said = api.get("/version", _Version)
    numbers = [_NUMBER.match(text) for text in (said.major, said.minor)]  # `26+` of some vendors
    version = tuple(int(number[0]) for number in numbers if number is not None)
    return version < NOT_NEEDED_FROM


def ticket_name(job_name: str) -> str:
    """Return the name of the ticket of one try of a job; unique, as the job's uuid is."""
    return f"pman-{unique_name(job_name)}"


def ticket_of(job_name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return the ticket of a job, as it is made."""
    metadata = {"name": ticket_name(job_name), "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


class Tickets:
    """Makes tickets, and takes each away once. Thread-safe.

    Attributes:
        are_used: Whether Jobs have any here; set at each connection.
    """

    def __init__(self) -> None:
        self.are_used = False
        self._lock = threading.Lock()
        self._taken: set[str] = set()

    def make(self, api: Api, job_name: str, labels: dict[str, str]) -> None:
        """Make the ticket of a job; one that is there already is its own.

        Raises:
            BackendUnavailable: It can't be made.
        """
        try:
            api.post(api.tickets, ticket_of(job_name, labels), ConfigMap)
        except Answered as exc:
            if exc.status != 409:
                raise

    def take(self, api: Api, job_name: str) -> None:
        """Take the ticket of a job away, unless that was done.

        Raises:
            BackendUnavailable: It can't be done now.
        """
        with self._lock:
            if not self.are_used or job_name in self._taken:
                return
        remove_object(api, f"{api.tickets}/{ticket_name(job_name)}")
        with self._lock:
            self._taken.add(job_name)

    def forget(self, job_name: str) -> None:
        """Forget a job that is no more."""
        with self._lock:
            self._taken.discard(job_name)

    def keep_only(self, job_names: Collection[str]) -> None:
        """Forget all jobs but these."""
        with self._lock:
            self._taken.intersection_update(job_names)
