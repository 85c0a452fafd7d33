"""Fixtures for every kind of test: daemons that leave nothing behind, and gates for jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_factory import NewDaemon, daemons_below
from daemon_process import DaemonProcess
from gate import Gate
from hypothesis import settings

pytest_plugins = ("openshift_daemon", "places", "swarm_lab")

# The same examples in each run, so that a change that is green stays green. To look for new ones:
# HYPOTHESIS_PROFILE=default.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


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
