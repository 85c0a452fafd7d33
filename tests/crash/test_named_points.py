"""kill -9 at each point where what is on disk and what runs could differ.

The process that comes to the point kills itself; see `site/sitecustomize.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_load import SITE, History, Load, records, wait_all_ended
from daemon_factory import NewDaemon
from daemon_process import wait_until

pytestmark = pytest.mark.slow

COMMIT = "pman.jobdb.database:Database.apply"
CLAIM = "pman.shepherd.joblog:JobLogs.claim"
LOG = "pman.shepherd.joblog:JobLogs.append"
SPAWN = "pman.shepherd.process:spawn"
PART = "pman.shepherd.herd:Herd._start_part"
SETTLED = "pman.shepherd.herd:Herd.settled"
TREE = "pman.jobdb.snapshot:SnapshotFolder.write"
TREE_FILE = "pman.jobdb.snapshot:write_private"

BOTH = ("before", "after")
#: Points in the daemon, and in the shepherd.
IN_DAEMON = [
    *(f"{COMMIT}:{when}:{n}" for when in BOTH for n in (1, 2, 5)),
    *(f"{TREE}:{when}:{n}" for when in BOTH for n in (1, 4)),
    *(f"{TREE_FILE}:{when}:2" for when in BOTH),
]
IN_SHEPHERD = [
    *(f"{point}:{when}:3" for point in (CLAIM, SPAWN, PART, SETTLED) for when in BOTH),
    *(f"{LOG}:{when}:{n}" for when in BOTH for n in (1, 2, 3, 4)),
]


@pytest.mark.parametrize("point", [*IN_DAEMON, *IN_SHEPHERD])
def test_killed_at(point: str, new_daemon: NewDaemon, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    folder = tmp_path / "ran"
    folder.mkdir()
    history = History(folder, 1)
    environment = {"PYTHONPATH": str(SITE), "CRASH_AT": point, "CRASH_TOKEN": str(token)}
    daemon = new_daemon("--DBsavePeriod", "1", environment=environment)
    is_in_shepherd = point in IN_SHEPHERD
    with Load(daemon, history) as load:
        wait_until(lambda: not token.exists(), "the point is reached")
        if is_in_shepherd:
            history.shepherd_kills = 1
            enough = load.acknowledged + 10
            wait_until(lambda: load.acknowledged > enough, "jobs are taken again")
        else:
            assert daemon.process is not None
            daemon.process.wait(30)
    history.look(records(daemon.db_path))
    if not is_in_shepherd:
        daemon.start()
    counts = history.check(wait_all_ended(daemon))
    assert counts.get("LOST", 0) <= is_in_shepherd
    assert daemon.stop() == 0
    assert not list((daemon.db_path / "jobs").rglob(".*")), "half-written files of the tree"
