"""A `pman.db` that is cut short or full of noise: said, kept, and rebuilt from the tree."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_load import records
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until
from gate import Gate

pytestmark = pytest.mark.slow

JOBS = 40


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_a_page_and_a_half(path: Path) -> None:
    os.truncate(path, 6000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def all_noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def noise_behind_the_head(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + random.Random(2).randbytes(len(raw) - 4096))


def text(path: Path) -> None:
    path.write_text("this is no data base\n")


@pytest.mark.parametrize(
    "damage",
    [cut_in_half, cut_to_a_page_and_a_half, empty, all_noise, noise_behind_the_head, text],
)
def test_damaged(
    damage: Callable[[Path], None], new_daemon: NewDaemon, gate: Gate, tmp_path: Path
) -> None:
    daemon = new_daemon("--DBsavePeriod", "1")
    for n in range(JOBS):
        daemon.run(f"exit {n % 5}", f"job{n}")
    daemon.run(f"{gate.passage} && exit 9", "runs")
    for n in range(JOBS):
        daemon.wait_finished(f"job{n}")
    wait_until(lambda: daemon.words("runs") == ["started"], "it runs")
    assert daemon.stop() == 0
    before = records(daemon.db_path)
    path = daemon.db_path / "pman.db"
    damage(path)
    raw = path.read_bytes()

    at = len(daemon.log_text())
    daemon.start()
    assert "it is rebuilt from the snapshot" in daemon.log_text()[at:]
    (kept,) = daemon.db_path.glob("pman.db.damaged-*[0-9]")
    # An empty file is a new data base to SQLite, which writes a head into it.
    assert kept.read_bytes() == raw or damage is empty
    assert str(kept.name) in daemon.log_text()[at:]
    check_rebuilt(daemon, before)
    gate.open()
    assert daemon.wait_finished("runs") == ["finishedWithError"]
    assert daemon.status("runs")["0.end"]["returncode"] == [9]
    assert daemon.run("true", "new").json()["status"] is True
    assert daemon.wait_finished("new") == ["finishedSuccessfully"]


def check_rebuilt(daemon: DaemonProcess, before: dict[str, dict[str, object]]) -> None:
    after = records(daemon.db_path)
    assert list(after) == list(before)
    for jid, job in before.items():
        if jid != "runs":
            assert (after[jid]["state"], after[jid]["parts"]) == (job["state"], job["parts"])
