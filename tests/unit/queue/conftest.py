"""Queues of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from queue_harness import NewQueue, QueueHarness


@pytest.fixture
def new_queue(tmp_path: Path) -> Iterator[NewQueue]:
    """Make a queue with settings; closed at the end."""
    made: list[QueueHarness] = []

    def make(**settings: Any) -> QueueHarness:
        made.append(QueueHarness(tmp_path, **settings))
        return made[-1]

    yield make
    for queue in made:
        queue.close()
