"""The newest warning that tells, whichever of its times an event has."""

from __future__ import annotations

from datetime import UTC, datetime

from pman.backends._openshift.objects import KubeEvent
from pman.backends._openshift.why import why

EARLY, LATE = datetime(2026, 11, 23, 9, tzinfo=UTC), datetime(2026, 11, 23, 10, tzinfo=UTC)


def test_the_newest_warning_counts() -> None:
    mount = KubeEvent(type="Warning", reason="FailedMount", message="m", last_timestamp=EARLY)
    place = KubeEvent(type="Warning", reason="FailedScheduling", message="s", event_time=LATE)
    other = KubeEvent(type="Warning", reason="Unheard", last_timestamp=LATE)
    assert why([mount, place, other]) == ("unschedulable", "s")
    assert why([other]) == ("", "")
