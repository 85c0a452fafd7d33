"""How many parts a host job has, before the shepherd knows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobdb_builders import make_job

from pman.backends.base import BackendContext
from pman.backends.host import HostBackend
from pman.config import Settings
from pman.job.record import Part
from pman.output import OutputFiles


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[HostBackend]:
    """A backend that is never started."""
    made = HostBackend(
        BackendContext(
            settings=Settings(db_path=tmp_path),
            instance="test",
            state_path=tmp_path / "state",
            output=OutputFiles(tmp_path / "output", 1 << 20),
        )
    )
    yield made
    made._link.close()


@pytest.mark.parametrize(
    ("meta", "count"),
    [
        ({"cmd": "true; false; true"}, 3),
        ({"cmd": "true; false", "compound": False}, 1),
        ({"argv": ["echo", "a;b"]}, 1),
        ({"cmd": "cat; cat", "stdin": "x"}, 1),
        ({"cmd": "true; true", "timeout": "soon"}, 2),
    ],
)
def test_parts_are_counted_by_the_spec(
    backend: HostBackend, meta: dict[str, Any], count: int
) -> None:
    meta = {"auid": "", "jid": "a", **meta}
    job = make_job(cmd=meta.get("cmd", "echo 'a;b'"), meta=json.dumps(meta))
    assert backend.part_count(job) == count


def test_parts_that_there_are_count(backend: HostBackend) -> None:
    assert backend.part_count(make_job("true", parts=[Part("a"), Part("b")])) == 2
