"""Daemons that a module's cheap tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess
from engines import need_swarm
from swarm_daemon import Swarm, swarm_below


@pytest.fixture(scope="module")
def shared_daemon(new_shared_daemon: NewDaemon) -> DaemonProcess:
    """One daemon for the module, for tests that leave other tests' jobs alone."""
    return new_shared_daemon(name="four")


@pytest.fixture(scope="module")
def one_listener(new_shared_daemon: NewDaemon) -> DaemonProcess:
    """One daemon for the module with a single listener: whoever loses it loses them all."""
    return new_shared_daemon("--listeners", "1", name="one")


@pytest.fixture
def swarm(tmp_path: Path, new_daemon: NewDaemon) -> Iterator[Swarm]:
    """Starts daemons with a Docker Swarm behind them, and looks that no service is left."""
    need_swarm()
    with swarm_below(tmp_path, new_daemon) as made:
        yield made


@pytest.fixture(scope="module")
def shared_swarm(
    tmp_path_factory: pytest.TempPathFactory, new_shared_daemon: NewDaemon
) -> Iterator[Swarm]:
    """As `swarm`, for daemons that last as long as the module's tests."""
    need_swarm()
    with swarm_below(tmp_path_factory.mktemp("swarm"), new_shared_daemon) as made:
        yield made
