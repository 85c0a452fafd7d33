"""Whether we may do what we must, asked when a connection is made; one table in the log says it.

`SelfSubjectAccessReview` answers for each verb; OpenShift's own kinds go through the dynamic client
of its SDK.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from pman.backends._openshift import project
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.storage import CLAIM_TYPES
from pman.errors import BackendUnavailable
from pman.settings import Settings

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

_log = logging.getLogger(__name__)

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Need(msgspec.Struct, frozen=True):
    """A kind of objects and what we do with it. Attributes: group, "" for the core group."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    is_essential: bool = True


#: For a server before 1.26; see `tickets`. Without it a job may run twice there.
TICKET_NEED = Need("", "configmaps", ("create", "list", "delete"), is_essential=False)
#: What the Role in `openshift/` grants.
NEEDS = (
    Need("batch", "jobs", ("create", "get", "list", "watch", "patch", "delete")),
    Need("", "pods", ("list", "watch", "delete")),
    Need("", "pods/log", ("get",)),
    Need("", "events", ("list",), is_essential=False),
    TICKET_NEED,
)
#: The same where each job has a claim.
CLAIM_NEEDS = (Need("", "persistentvolumeclaims", ("create", "get", "list", "patch", "delete")),)
#: The same on OpenShift. Whether the project is open to us is tried before it is asked.
OPENSHIFT_NEEDS = (
    Need(project.PROJECTS.partition("/")[0], "projects", ("get",), is_essential=False),
    Need(project.ROUTES.partition("/")[0], "routes", ("list",), is_essential=False),
)


class _ReviewStatus(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _ReviewStatus


class Said:
    """What the log says of our rights by now, so that it is not said again."""

    def __init__(self) -> None:
        self._last: tuple[str, str] | None = None

    def say(self, rights: str, advice: str) -> None:
        """Log rights, and what to do about missing ones, unless that was logged last."""
        if self._last == (rights, advice):
            return
        self._last = (rights, advice)
        _log.info("%s", rights)
        if advice:
            _log.warning("%s", advice)


def check_access(api: Api, settings: Settings, said: Said) -> str | None:
    """See whether the namespace is there and we may run jobs in it; log what was found.

    Args:
        said: One for all calls that write to the same log.
    Returns:
        Where OpenShift's router serves pman, or None.
    Raises:
        BackendUnavailable: The server is away, the project is missing, or a right that no job can
            do without; names the command that grants it.
    """
    is_openshift = project.is_served(api)
    if is_openshift:
        project.check_project(api)
    else:
        _check_namespace(api)
    found = {
        need: {verb: _may(api, need, verb) for verb in need.verbs}
        for need in needs_of(settings, is_openshift=is_openshift)
    }
    kind = "OpenShift project" if is_openshift else "Kubernetes namespace"
    rights = f"rights in {kind} {api.namespace} at {api.url}:\n{table(found)}"
    missing = _missing(found)
    commands = grant_commands(missing, api.namespace, is_openshift=is_openshift)
    advice = f"rights are missing in {api.namespace!r}: {commands}" if missing else ""
    is_fatal = any(need.is_essential for need in missing)
    said.say(rights, "" if is_fatal else advice)  # an error is logged by who gets it
    if is_fatal:
        raise BackendUnavailable(advice)
    return project.route_url(api) if is_openshift else None


def needs_of(settings: Settings, *, is_openshift: bool) -> tuple[Need, ...]:
    """Return what we have to be allowed to do; not all of it is essential."""
    of_claims = CLAIM_NEEDS if settings.storage_type in CLAIM_TYPES else ()
    return NEEDS + of_claims + (OPENSHIFT_NEEDS if is_openshift else ())


def may_all(api: Api, need: Need) -> bool:
    """Whether we may do all of it.

    Raises:
        BackendUnavailable: The server can't be asked.
    """
    return all(_may(api, need, verb) for verb in need.verbs)


def _missing(found: dict[Need, dict[str, bool]]) -> dict[Need, tuple[str, ...]]:
    missing = {
        need: tuple(verb for verb, may in verbs.items() if not may) for need, verbs in found.items()
    }
    return {need: verbs for need, verbs in missing.items() if verbs}


def table(found: dict[Need, dict[str, bool]]) -> str:
    """Spell rights as lines: resource, then each verb as `yes` or `NO`."""
    return "\n".join(
        f"  {_resource(need):<32}"
        + " ".join(f"{verb}={'yes' if may else 'NO'}" for verb, may in verbs.items())
        for need, verbs in found.items()
    )


def grant_commands(
    missing: dict[Need, tuple[str, ...]], namespace: str, *, is_openshift: bool
) -> str:
    """Return what is missing and the commands that grant it, to the account named `pman`."""
    tool = "oc" if is_openshift else "kubectl"
    said = []
    for number, (need, verbs) in enumerate(missing.items()):
        role = f"pman-{number}"
        said.append(
            f"{'/'.join(verbs)} on {_resource(need)} ('{tool} create role {role}"
            f" --verb={','.join(verbs)} --resource={_resource(need)} -n {namespace}' and"
            f" '{_bind(role, namespace, is_openshift=is_openshift)}' grant it)"
        )
    return "; ".join(said)


def _bind(role: str, namespace: str, *, is_openshift: bool) -> str:
    if is_openshift:
        return (
            f"oc adm policy add-role-to-user {role} -z pman --role-namespace={namespace}"
            f" -n {namespace}"
        )
    return (
        f"kubectl create rolebinding {role} --role={role} --serviceaccount={namespace}:pman"
        f" -n {namespace}"
    )


def _resource(need: Need) -> str:
    """Return a resource as the commands spell it: `jobs.batch`, `pods/log`."""
    return f"{need.resource}.{need.group}" if need.group else need.resource


def _may(api: Api, need: Need, verb: str) -> bool:
    resource, _, subresource = need.resource.partition("/")
    attributes = {
        "namespace": api.namespace,
        "verb": verb,
        "group": need.group,
        "resource": resource,
        "subresource": subresource,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    return api.post(REVIEWS, body, _Review).status.allowed


def _check_namespace(api: Api) -> None:
    """Raise if the namespace is missing; who may not look at namespaces is not told."""
    try:
        api.request("GET", f"/api/v1/namespaces/{api.namespace}")
    except Answered as exc:
        if exc.status == 404:
            raise BackendUnavailable(
                f"namespace {api.namespace!r} does not exist: 'kubectl create namespace"
                f" {api.namespace}' makes it, --project names another"
            ) from exc
        if exc.status != 403:
            raise
