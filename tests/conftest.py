"""Fixtures for every kind of test: daemons that leave nothing behind, and gates for jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_factory import NewDaemon, daemons_below
from daemon_process import DaemonProcess
from gate import Gate


@pytest.fixture
def new_daemon(tmp_path: Path) -> Iterator[NewDaemon]:
    """Starts daemons that end with the test."""
    with daemons_below(tmp_path) as new:
        yield new


@pytest.fixture
def daemon(new_daemon: NewDaemon) -> DaemonProcess:
    """A fresh daemon for one test."""
    return new_daemon()


@pytest.fixture(scope="module")
def new_shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDaemon]:
    """Starts daemons that last as long as the module's tests."""
    with daemons_below(tmp_path_factory.mktemp("shared")) as new:
        yield new


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate that host jobs wait at."""
    made = Gate(tmp_path / "gate")
    yield made
    made.close()
