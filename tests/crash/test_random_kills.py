"""kill -9 of daemon, shepherd and guard at random moments, under load.

PMAN_CRASH_ROUNDS says how many times (3), PMAN_CRASH_SEED which (1).
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from crash_load import History, Load, kill, records, wait_all_ended
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until
from leftovers import herd

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("PMAN_CRASH_ROUNDS", "3"))
SEED = int(os.environ.get("PMAN_CRASH_SEED", "1"))

VICTIMS = (
    {"daemon"},
    {"shepherd"},
    {"daemon", "shepherd"},
    {"guard"},
    {"guard", "shepherd"},
    {"daemon", "guard", "shepherd"},
)
#: Longest time under load before something is killed, seconds.
LOAD_S = 0.8


def strike(daemon: DaemonProcess, history: History, victims: set[str]) -> None:
    """Kill processes; note what can't be known from now on."""
    guard, shepherd = herd(daemon.db_path)
    pids = {"daemon": daemon.pid, "guard": guard, "shepherd": shepherd}
    struck = [pid for name, pid in pids.items() if name in victims and pid is not None]
    kill(struck)
    if "daemon" in victims:
        daemon.kill()
    if "shepherd" in victims:
        history.shepherd_kills += 1
        if guard is None or "guard" in victims:
            history.expect_losses(daemon.db_path)


def test_whatever_is_killed_each_job_runs_once_and_its_record_is_true(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    folder = tmp_path / "ran"
    folder.mkdir()
    history = History(folder, SEED)
    daemon = new_daemon()
    for number in range(ROUNDS):
        victims = chance.choice(VICTIMS) if number >= len(VICTIMS) else VICTIMS[number]
        with Load(daemon, history) as load:
            wait_until(lambda load=load: load.acknowledged > 3, "jobs are acknowledged")
            time.sleep(chance.uniform(0, LOAD_S))
            strike(daemon, history, victims)
            if "daemon" not in victims:
                count = load.acknowledged
                enough = count + chance.randint(1, 20)
                wait_until(
                    lambda load=load, n=enough: load.acknowledged > n, "jobs are taken again"
                )
        history.look(records(daemon.db_path))
        if "daemon" in victims:
            daemon.start()
    counts = history.check(wait_all_ended(daemon))
    print(f"\n{ROUNDS} rounds, {len(history.jobs)} jobs sent, {counts}")
    assert counts.get("COMPLETED", 0) + counts.get("FAILED", 0) > 10
