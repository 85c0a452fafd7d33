"""Why a Job does not start, where neither it nor its pods say so: from events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pman.backends._openshift.failures import Answered
from pman.backends._openshift.objects import KubeEvent

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api

#: Reason of a warning -> why it can't start. A pod that has no node says so itself;
#: `FailedScheduling` is what was once. Source: Kubernetes, pkg/kubelet/events/event.go
REASONS = {
    "FailedMount": "config_error",
    "FailedAttachVolume": "config_error",
    "FailedCreatePodSandBox": "config_error",
    "FailedCreate": "rejected",
}


def why(events: list[KubeEvent]) -> tuple[str, str]:
    """Return reason and message of the newest warning that tells; ("", "") when none does."""
    known = [event for event in events if event.type == "Warning" and event.reason in REASONS]
    if not known:
        return "", ""
    newest = max(known, key=lambda event: str(event.last_timestamp or event.event_time or ""))
    return REASONS[newest.reason], newest.message


def warnings_of(api: Api, uid: str) -> list[KubeEvent]:
    """Return the warnings about one object; none when we may not read events.

    Raises:
        BackendUnavailable: The server can't be asked.
    """
    selector = {"fieldSelector": f"involvedObject.uid={uid},type=Warning"}
    try:
        return api.list(api.events, KubeEvent, selector)[0]
    except Answered as exc:
        if exc.status == 403:
            return []
        raise
