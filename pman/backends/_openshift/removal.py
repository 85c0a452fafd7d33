"""Removes objects, of whatever kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pman.backends._openshift.failures import Answered

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api


def remove_object(api: Api, path: str, *, uid: str | None = None, **options: Any) -> None:
    """Remove an object; one that is not there is not an error.

    Args:
        path: Of the object.
        uid: Its own: another one of the same name, made meanwhile, stays, and is no error either.
        options: `gracePeriodSeconds`, `propagationPolicy`.
    Raises:
        BackendUnavailable: The server can't be told, or refuses.
    Source: Kubernetes, DeleteOptions meta/v1.
    """
    body = options if uid is None else {**options, "preconditions": {"uid": uid}}
    passed_over = (404,) if uid is None else (404, 409)
    try:
        api.request("DELETE", path, body=body)
    except Answered as exc:
        if exc.status not in passed_over:
            raise
