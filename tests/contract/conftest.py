"""Runs the suite on every backend that has a kit."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kits import KITS, Kit
from marked import end_marked


@pytest.fixture(params=sorted(KITS))
def kit(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kit]:
    """Each backend in turn; afterwards no process of it is left."""
    mark = f"test-{uuid.uuid4()}"
    monkeypatch.setenv("TEST_MARK", mark)
    made = KITS[request.param](tmp_path)
    yield made
    made.close()
    end_marked(mark)
