"""A disk that is full under load, and a shepherd that is killed on it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_load import History, Load, kill, wait_all_ended
from daemon_factory import NewDaemon
from daemon_process import wait_until
from gate import Gate
from leftovers import herd

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The DBpath of the daemon named `pman`, on a disk of 8 MiB."""
    path = tmp_path / "pman" / "db"
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk is not permitted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(folder: Path) -> Path:
    """Leave no block free; others may still take what is in blocks that they have."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    assert os.statvfs(folder).f_bavail == 0
    return path


def test_full_under_load_and_killed(
    small_disk: Path, new_daemon: NewDaemon, gate: Gate, tmp_path: Path
) -> None:
    folder = tmp_path / "ran"
    folder.mkdir()
    history = History(folder, 1)
    daemon = new_daemon("--DBsavePeriod", "1")
    daemon.run(f"{gate.passage} && exit 6", "waits")
    daemon.run(f"{gate.passage} && exit 7", "waits too")
    with Load(daemon, history) as load:
        wait_until(lambda: load.acknowledged > 10, "jobs are acknowledged")
        filling = fill(small_disk)
        wait_until(lambda: load.refused > 3, "jobs are refused")
        kill([herd(daemon.db_path)[1] or 0])
        history.shepherd_kills = 1
        history.expect_losses(daemon.db_path)  # their logs may lack what the disk did not take
        refused = load.refused
        wait_until(lambda: load.refused > refused, "jobs are refused, and the daemon lives")
        filling.unlink()
        enough = load.acknowledged + 10
        wait_until(lambda: load.acknowledged > enough, "jobs are taken again")
    gate.open(2)
    daemon.process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]
    daemon.process.wait()  # type: ignore[union-attr]
    daemon.start()
    found = wait_all_ended(daemon)
    assert [found[jid]["exit_code"] for jid in ("waits", "waits too")] == [6, 7]
    history.check(found)
