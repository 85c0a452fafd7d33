"""Removes what a Job can leave behind: claims, tickets and pods of ours that have no Job."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING

from pman.backends._engine.port import JOB_LABEL
from pman.backends._openshift.creating import remove_claim
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.objects import Claim, ConfigMap, KubePod, Meta
from pman.backends._openshift.pods import utc_now
from pman.backends._openshift.tickets import remove_ticket

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

_log = logging.getLogger(__name__)


def is_orphan(thing: Meta, jobs: Collection[str], grace_s: float) -> bool:
    """Whether an object belongs to no Job, and has done so for a while.

    One that has an owner is left to the cluster: it goes when the owner has gone.
    """
    if thing.owner_references or thing.deletion_timestamp is not None:
        return False
    if thing.labels.get(JOB_LABEL, "") in jobs or thing.creation_timestamp is None:
        return False
    return utc_now() - thing.creation_timestamp > timedelta(seconds=grace_s)


def sweep_pods(api: Api, pods: list[KubePod], jobs: Collection[str], grace_s: float) -> None:
    """Remove pods that belong to no Job.

    Raises:
        BackendUnavailable: The server can't be told.
    """
    for pod in pods:
        if is_orphan(pod.metadata, jobs, grace_s):
            _log.info("pod %s has no Job, and is removed", pod.metadata.name)
            remove_pod(api, pod.metadata.name)


def sweep_claims(api: Api, selector: str, jobs: Collection[str], grace_s: float) -> None:
    """Remove claims of this instance that belong to no Job.

    Raises:
        BackendUnavailable: The server can't be told.
    """
    claims, _ = api.list(api.claims, Claim, {"labelSelector": selector})
    for claim in claims:
        if is_orphan(claim.metadata, jobs, grace_s):
            _log.info("claim %s has no Job, and is removed", claim.metadata.name)
            remove_claim(api, claim.metadata.name)


def sweep_tickets(api: Api, selector: str, jobs: Collection[str], grace_s: float) -> None:
    """Remove tickets of this instance that belong to no Job.

    Raises:
        BackendUnavailable: The server can't be told.
    """
    tickets, _ = api.list(api.tickets, ConfigMap, {"labelSelector": selector})
    for ticket in tickets:
        if is_orphan(ticket.metadata, jobs, grace_s):
            remove_ticket(api, ticket.metadata.name)


def remove_pod(api: Api, name: str) -> None:
    """Remove a pod; one that is not there is not an error.

    Raises:
        BackendUnavailable: The server can't be told.
    """
    try:
        api.request("DELETE", f"{api.pods}/{name}", body={})
    except Answered as exc:
        if exc.status != 404:
            raise
