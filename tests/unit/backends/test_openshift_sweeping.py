"""What has no Job goes after a while; by the server's clock, and only what may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pman.backends._openshift.failures import Answered
from pman.backends._openshift.objects import Claim, ConfigMap, KubePod, Meta
from pman.backends._openshift.sweeping import Leftovers, is_orphan, sweep

MADE = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
GRACE_S = 60.0


class Server:
    """An API server with a clock. Attributes: refused, paths that it deletes nothing of."""

    pods, claims, tickets = "/pods", "/claims", "/maps"

    def __init__(self, refused: str = "-") -> None:
        self.time = MADE + timedelta(seconds=2 * GRACE_S)
        self.refused = refused
        self.deleted: list[str] = []

    def now(self) -> datetime:
        return self.time

    def get(self, path: str, kind: type[Claim]) -> Claim:
        return Claim(metadata=meta("c", "gone"))

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        assert method == "DELETE"
        if path.startswith(self.refused):
            raise Answered("words", status=403)
        self.deleted.append(path)
        return b"{}"


def meta(name: str, job: str, **fields: Any) -> Meta:
    return Meta(name=name, labels={"pman.job": job}, creation_timestamp=MADE, **fields)


@pytest.mark.parametrize(
    ("thing", "age_s", "expected"),
    [
        (meta("c", "gone"), 61.0, True),
        (meta("c", "gone"), 59.0, False),
        (meta("c", "there"), 61.0, False),
        (meta("c", "gone", deletion_timestamp=MADE), 61.0, False),
        (
            msgspec.convert(
                {"labels": {"pman.job": "gone"}, "ownerReferences": [{"kind": "Job"}]}, Meta
            ),
            61.0,
            False,
        ),
    ],
)
def test_orphans_are_old_and_nobodys(thing: Meta, age_s: float, expected: bool) -> None:
    server: Any = Server()
    server.time = MADE + timedelta(seconds=age_s)
    assert is_orphan(server, thing, {"there"}, GRACE_S) is expected


@pytest.mark.parametrize("refused", ["/pods", "/claims", "/maps"])
def test_what_the_server_does_not_let_go_keeps_nothing_else(refused: str) -> None:
    server: Any = Server(refused)
    left = Leftovers([Claim(metadata=meta("c", "gone"))], [ConfigMap(metadata=meta("t", "gone"))])
    sweep(server, left, [KubePod(metadata=meta("p", "gone"))], {"there"}, GRACE_S)
    everything = {"/pods/p", "/claims/c", "/maps/t"}
    assert set(server.deleted) == {path for path in everything if not path.startswith(refused)}
