"""What only OpenShift has: projects and routes, through its SDK's dynamic client."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pman.backends._openshift.failures import Answered, answered
from pman.errors import BackendUnavailable

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

_log = logging.getLogger(__name__)

PROJECTS, ROUTES = "project.openshift.io/v1", "route.openshift.io/v1"
#: Label of pman's own Route.
ROUTE_LABEL = "app=pman"


def is_served(api: Api) -> bool:
    """Whether this is OpenShift.

    Raises:
        BackendUnavailable: The server can't be asked.
    """
    try:
        api.request("GET", f"/apis/{PROJECTS}")
    except Answered as exc:
        if exc.status in (403, 404):
            return False
        raise
    return True


def check_project(api: Api) -> None:
    """See whether the project is there and open to us.

    Raises:
        BackendUnavailable: It is not; says what to do.
    """
    failure = _ask(api, lambda client: _project(client, api.namespace))
    if isinstance(failure, Answered) and failure.status in (403, 404):
        raise BackendUnavailable(
            f"project {api.namespace!r} does not exist or is not open to us: 'oc new-project"
            f" {api.namespace}' makes it, 'oc adm policy add-role-to-user edit -z pman -n"
            f" {api.namespace}' opens it, --project names another"
        )
    if isinstance(failure, BackendUnavailable):
        raise failure


def route_url(api: Api) -> str | None:
    """Return where the router serves pman; None when it does not, or we may not know."""
    found = _ask(api, lambda client: _route(client, api.namespace))
    if isinstance(found, BackendUnavailable):
        _log.info("routes can't be read: %s", found)
        return None
    return found


def _project(client: Any, name: str) -> None:
    client.resources.get(api_version=PROJECTS, kind="Project").get(name=name)


def _route(client: Any, namespace: str) -> str | None:
    routes = client.resources.get(api_version=ROUTES, kind="Route")
    for route in routes.get(namespace=namespace, label_selector=ROUTE_LABEL).to_dict()["items"]:
        spec = route.get("spec") or {}
        if spec.get("host"):
            scheme = "https" if spec.get("tls") else "http"
            return f"{scheme}://{spec['host']}{spec.get('path') or ''}"
    return None


def _ask(api: Api, question: Callable[[Any], str | None]) -> str | BackendUnavailable | None:
    """Return what a question to the dynamic client gives, or what went wrong."""
    try:
        from kubernetes.client.exceptions import ApiException
        from openshift.dynamic import DynamicClient
        from openshift.dynamic.exceptions import ResourceNotFoundError
        from urllib3.exceptions import HTTPError
    except ImportError as exc:
        return BackendUnavailable(
            f"OpenShift's SDK is not installed ({exc}): pip install 'pman[openshift]'"
        )
    try:
        # It keeps what the server can do in a file; in a folder of ours nobody can put it there.
        with tempfile.TemporaryDirectory() as folder:
            return question(DynamicClient(api.client, cache_file=str(Path(folder, "kinds"))))
    except ResourceNotFoundError as exc:
        return BackendUnavailable(f"the API server does not serve it: {exc}")
    except ApiException as exc:
        status = int(exc.status or 0)
        return answered(status, str(exc.reason), "", namespace=api.namespace)
    except (HTTPError, OSError) as exc:
        return api.broken(exc)
