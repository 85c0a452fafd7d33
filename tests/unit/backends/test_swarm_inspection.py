"""What the engine is asked of containers, and what it can't say."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pman.backends._swarm.client import EngineClient
from pman.backends._swarm.facts import Facts
from pman.backends._swarm.inspection import Inspector
from pman.backends._swarm.problems import Failed, Missing, Refused
from pman.errors import BackendUnavailable

TASK = {
    "ID": "t1",
    "NodeID": "near",
    "Status": {"State": "failed", "ContainerStatus": {"ContainerID": "c1", "ExitCode": 137}},
}


class Broken:
    """Stands for a client that has an error for all."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def get(self, _path: str) -> Any:
        raise self.error


def inspected(error: Exception) -> Facts:
    """Return what is known after a look at `TASK`."""
    facts = Facts()
    inspector = Inspector(cast(EngineClient, Broken(error)), facts)
    inspector.node_id = "near"
    inspector.inspect([TASK])
    return facts


@pytest.mark.parametrize(
    "error",
    [
        Missing(404, "no such container"),
        Refused(409, "it is being removed"),
        Failed("the docker engine failed: RWLayer of container c1 is unexpectedly nil"),
    ],
)
def test_one_container_that_is_broken_hides_no_other(error: Exception) -> None:
    assert inspected(error).get("t1").is_oom is False


def test_an_engine_that_is_away_says_nothing_of_a_container() -> None:
    with pytest.raises(BackendUnavailable):
        inspected(BackendUnavailable("no answer"))
