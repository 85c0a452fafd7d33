"""The newest warning that tells, whichever of its times an event has."""

from __future__ import annotations

from datetime import UTC, datetime

from pman.backends._openshift.objects import KubeEvent
from pman.backends._openshift.why import why

EARLY, LATE = datetime(2026, 11, 23, 9, tzinfo=UTC), datetime(2026, 11, 23, 10, tzinfo=UTC)


def test_the_newest_warning_counts() -> None:
    mount = KubeEvent(type="Warning", reason="FailedMount", message="m", last_timestamp=EARLY)
    sandbox = KubeEvent(
        type="Warning", reason="FailedCreatePodSandBox", message="s", event_time=LATE
    )
    other = KubeEvent(type="Warning", reason="Unheard", last_timestamp=LATE)
    assert why([mount, sandbox, other]) == ("config_error", "s")
    assert why([other]) == ("", "")


def test_what_kept_a_pod_from_its_node_is_over() -> None:
    place = KubeEvent(type="Warning", reason="FailedScheduling", message="p", last_timestamp=LATE)
    mount = KubeEvent(type="Warning", reason="FailedMount", message="m", last_timestamp=EARLY)
    assert why([place]) == ("", "")
    assert why([place, mount]) == ("config_error", "m")
