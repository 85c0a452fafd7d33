"""Makes the Job of an order, and its claim, exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pman.backends._engine.order import Order
from pman.backends._engine.port import JOB_LABEL, Unanswered
from pman.backends._openshift.cache import job_label
from pman.backends._openshift.failures import Answered, is_forbidden_verb
from pman.backends._openshift.guard import MERGE_PATCH
from pman.backends._openshift.manifest import labels_of, manifests, names_of
from pman.backends._openshift.objects import Claim, KubeJob
from pman.backends._openshift.removal import remove_object
from pman.backends._openshift.states import handle_of
from pman.backends._openshift.tickets import Tickets, ticket_name, ticket_of
from pman.errors import BackendUnavailable, JobConflict, SubmitFailed
from pman.settings import Settings

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

#: What the server answers to an object that it will never take.
_REFUSED = (400, 403, 413, 422)
#: What something in front of the server says of a request that it has passed on, or not; the
#: server's own 503 names its cause, and means that nothing was done.
_UNSURE = (500, 502, 503, 504)
#: Of several reasons for a conflict the one that means that a name is taken.
_TAKEN = "AlreadyExists"
#: What it says, with status 500, of an object that its data base does not take.
#: Source: etcd, api/v3rpc/rpctypes/error.go
_TOO_LARGE = "request is too large"


class Creator:
    """Makes Jobs. Thread-safe, but for two calls for the same job at a time."""

    def __init__(self, settings: Settings, instance: str, tickets: Tickets) -> None:
        self._tickets = tickets
        self._settings = settings
        self._instance = instance
        #: Jobs whose request was not answered: their Job may be there, under either name.
        self._doubtful: set[str] = set()
        self._current: set[str] = set()

    def create(self, api: Api, order: Order) -> dict[str, Any]:
        """Make the Job of an order; see `Engine.create`."""
        self._current.add(order.job_name)
        try:
            made = find_job(api, order.job_name) if order.job_name in self._doubtful else None
            made = made or self._make(api, order)
        except Unanswered:
            self._doubtful.add(order.job_name)
            raise
        except (JobConflict, SubmitFailed):
            with contextlib.suppress(BackendUnavailable):  # then the sweeper takes it
                self._tickets.take(api, order.job_name)
            raise
        finally:
            self._current.discard(order.job_name)
        self._doubtful.discard(order.job_name)
        return handle_of(made)

    def describe(self, api: Api, order: Order) -> dict[str, Any]:
        """Return what would be made of an order; see `Engine.describe`."""
        names = names_of(order)
        name = next((name for name in names if _is_free(api, name)), None)
        if name is None:
            raise _taken(names)
        job, claim = self._manifests(api, order, name)
        found = {"job": job}
        if claim is not None:
            found["claim"] = claim
        if self._tickets.are_used:
            found["configMap"] = ticket_of(order.job_name, labels_of(order, self._instance))
        return found

    def being_made(self) -> set[str]:
        """Return the jobs whose claim or ticket may be there before they are."""
        return self._current | self._doubtful

    def forget(self, job_name: str) -> None:
        """Forget a job that is not to be made any more."""
        self._doubtful.discard(job_name)

    def _make(self, api: Api, order: Order) -> KubeJob:
        names = names_of(order)
        self._make_ticket(api, order)
        for name in names:
            job, claim = self._manifests(api, order, name)
            if claim is not None and not _make_claim(api, claim, order):
                continue
            made = _post_job(api, job, order)
            if made is not None:
                if claim is not None:
                    _give_claim(api, claim, made)
                return made
            if claim is not None:
                remove_claim(api, claim["metadata"]["name"], order.job_name)
        raise _taken(names)

    def _manifests(
        self, api: Api, order: Order, name: str
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        return manifests(
            order,
            self._settings,
            name=name,
            instance=self._instance,
            namespace=api.namespace,
            ticket=ticket_name(order.job_name) if self._tickets.are_used else None,
        )

    def _make_ticket(self, api: Api, order: Order) -> None:
        if not self._tickets.are_used:
            return
        try:
            self._tickets.make(api, order.job_name, labels_of(order, self._instance))
        except Answered as exc:
            raise _refused(exc) from exc


def _taken(names: Sequence[str]) -> JobConflict:
    return JobConflict(f"the names {' and '.join(names)} are taken by other Jobs", field="jid")


def _is_free(api: Api, name: str) -> bool:
    """Return whether no Job has a name."""
    try:
        api.get(f"{api.jobs}/{name}", KubeJob)
    except Answered as exc:
        if exc.status != 404:
            raise
        return True
    return False


def find_job(api: Api, job_name: str) -> KubeJob | None:
    """Return the Job of one of pman's jobs by its label, or None.

    Raises:
        BackendUnavailable: The server can't be asked.
    """
    found, _ = api.list(api.jobs, KubeJob, {"labelSelector": f"{JOB_LABEL}={job_name}"})
    return found[0] if found else None


def remove_claim(api: Api, name: str, job_name: str) -> None:
    """Remove the claim of one of pman's jobs; none, or one that is not the job's, is no error.

    Raises:
        BackendUnavailable: The server can't be told.
    """
    path = f"{api.claims}/{name}"
    try:
        claim = api.get(path, Claim)
    except Answered as exc:
        if exc.status != 404:
            raise
        return
    if claim.metadata.labels.get(JOB_LABEL) == job_name:
        remove_object(api, path, uid=claim.metadata.uid, propagationPolicy="Background")


def _post_job(api: Api, job: dict[str, Any], order: Order) -> KubeJob | None:
    """Make a Job; None when another one has its name."""
    try:
        return api.post(api.jobs, job, KubeJob)
    except Answered as exc:
        if exc.status == 409 and exc.cause == _TAKEN:
            return _own(api, job["metadata"]["name"], order)
        raise _refused(exc) from exc


def _own(api: Api, name: str, order: Order) -> KubeJob | None:
    """Return the Job of a name if it is that of this very job."""
    try:
        there = api.get(f"{api.jobs}/{name}", KubeJob)
    except Answered as exc:
        if exc.status == 404:
            return None  # it went this moment, and the next name will do
        raise Unanswered(exc.message) from exc  # it may be ours, and must not get a second one
    return there if job_label(there) == order.job_name else None


def _make_claim(api: Api, claim: dict[str, Any], order: Order) -> bool:
    """Make a claim; False when the name is taken by another job's."""
    try:
        api.post(api.claims, claim, Claim)
    except Answered as exc:
        if exc.status != 409 or exc.cause != _TAKEN:
            raise _refused(exc) from exc
        there = api.get(f"{api.claims}/{claim['metadata']['name']}", Claim)
        is_ours = there.metadata.labels.get(JOB_LABEL) == order.job_name
        return is_ours and there.metadata.deletion_timestamp is None
    return True


def _give_claim(api: Api, claim: dict[str, Any], job: KubeJob) -> None:
    """Have a claim go along with its Job."""
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": False,
        "blockOwnerDeletion": False,
    }
    path = f"{api.claims}/{claim['metadata']['name']}"
    with contextlib.suppress(BackendUnavailable):  # `remove` and the sweeper take it as well
        patch = {"metadata": {"ownerReferences": [owner]}}
        api.request("PATCH", path, body=patch, content_type=MERGE_PATCH)


def _refused(exc: Answered) -> BackendUnavailable | SubmitFailed:
    is_refused = exc.status in _REFUSED and not is_forbidden_verb(exc)
    if is_refused or _TOO_LARGE in exc.words:
        return SubmitFailed(f"the API server refuses it: {exc.words}")
    if exc.status in _UNSURE and not (exc.status == 503 and exc.cause):
        return Unanswered(exc.message)
    return exc
