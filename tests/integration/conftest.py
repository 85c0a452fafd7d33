"""Daemons that a module's cheap tests share."""

from __future__ import annotations

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess


@pytest.fixture(scope="module")
def shared_daemon(new_shared_daemon: NewDaemon) -> DaemonProcess:
    """One daemon for the module, for tests that leave other tests' jobs alone."""
    return new_shared_daemon(name="four")


@pytest.fixture(scope="module")
def one_listener(new_shared_daemon: NewDaemon) -> DaemonProcess:
    """One daemon for the module with a single listener: whoever loses it loses them all."""
    return new_shared_daemon("--listeners", "1", name="one")
