"""A fresh harness for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from action_harness import Harness, harness


@pytest.fixture
def pman(tmp_path: Path) -> Iterator[Harness]:
    with harness(tmp_path) as made:
        yield made
