"""Removes what a Job can leave behind: claims, tickets and pods of ours that have no Job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from pman.backends._engine.port import JOB_LABEL
from pman.backends._openshift.creating import remove_claim
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.objects import Claim, ConfigMap, KubePod, Meta
from pman.backends._openshift.removal import remove_object

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

_log = logging.getLogger(__name__)


class Leftovers(msgspec.Struct):
    """What may belong to no Job.

    It is to be listed before the Jobs, and what is being made noted in between: then whatever has
    neither is not about to get one.
    """

    claims: list[Claim] = []
    tickets: list[ConfigMap] = []


def listed(api: Api, selector: str, *, with_claims: bool, with_tickets: bool) -> Leftovers:
    """List the claims and tickets of this instance.

    Raises:
        BackendUnavailable: The server can't be asked.
    """
    query = {"labelSelector": selector}
    found = Leftovers()
    if with_claims:
        found.claims, _ = api.list(api.claims, Claim, query)
    if with_tickets:
        found.tickets, _ = api.list(api.tickets, ConfigMap, query)
    return found


def sweep(
    api: Api, left: Leftovers, pods: list[KubePod], jobs: Collection[str], grace_s: float
) -> None:
    """Remove what belongs to none of `jobs`, and has done so for `grace_s` seconds.

    Raises:
        BackendUnavailable: The server can't be reached.
    """

    def is_due(thing: Claim | ConfigMap | KubePod) -> bool:
        return is_orphan(api, thing.metadata, jobs, grace_s)

    for pod in filter(is_due, pods):
        _remove("pod", pod.metadata, lambda meta: remove_object(api, f"{api.pods}/{meta.name}"))
    for claim in filter(is_due, left.claims):
        _remove("claim", claim.metadata, lambda meta: remove_claim(api, meta.name, _job(meta)))
    for ticket in filter(is_due, left.tickets):
        _remove(
            "ticket", ticket.metadata, lambda meta: remove_object(api, f"{api.tickets}/{meta.name}")
        )


def is_orphan(api: Api, thing: Meta, jobs: Collection[str], grace_s: float) -> bool:
    """Whether an object belongs to no Job, and has done so for a while.

    One that has an owner is left to the cluster: it goes when the owner has gone.
    """
    if thing.owner_references or thing.deletion_timestamp is not None:
        return False
    if _job(thing) in jobs or thing.creation_timestamp is None:
        return False
    return api.now() - thing.creation_timestamp > timedelta(seconds=grace_s)


def _remove(kind: str, thing: Meta, remove: Callable[[Meta], None]) -> None:
    """Remove one; what the server refuses must not keep jobs from being looked at."""
    try:
        remove(thing)
    except Answered as exc:
        _log.warning("%s %s has no Job, and can't be removed: %s", kind, thing.name, exc)
    else:
        _log.info("%s %s has no Job, and is removed", kind, thing.name)


def _job(thing: Meta) -> str:
    return thing.labels.get(JOB_LABEL, "")
