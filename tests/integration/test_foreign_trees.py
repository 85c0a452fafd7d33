"""Trees of others in a whole daemon: none takes it down, and what they bring stays."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import golden_replay as golden
import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess
from jobdb_builders import plant
from probes import job_names

pytestmark = pytest.mark.slow

#: Long before any limit on the age of jobs.
LONG_AGO = datetime.datetime(2020, 1, 2)


def old_tree(path: Path) -> list[str]:
    """Write a tree of 2.2 whose jobs ended long ago; return their names."""
    recorded = golden.load("db-001-layout-finished")["tree"]
    year = min(recorded)[:4]
    shift = f"{LONG_AGO.year}"
    aged = {
        shift + name[4:]: None if text is None else text.replace(f"{year}-", f"{shift}-")
        for name, text in recorded.items()
    }
    plant(aged, path)
    return sorted({name.partition("/")[0] for name in aged})


def export_of_two(daemon: DaemonProcess, path: Path) -> list[str]:
    for jid in ("bad", "good"):
        daemon.run("echo hi", jid, threaded=False)
    assert daemon.post("DBctl", do="save", dbpath=str(path)).status == 200
    return job_names(daemon)


@pytest.mark.parametrize("value", [1e300, float("nan")], ids=str)
def test_impossible_moments_do_not_end_a_daemon(
    new_daemon: NewDaemon, tmp_path: Path, value: float
) -> None:
    daemon = new_daemon("--DBsavePeriod", "0.1")
    tree = tmp_path / "tree"
    bad, good = export_of_two(daemon, tree)
    record = tree / bad / ".record"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"accepted_at": value}))
    assert daemon.post("DBctl", do="load", dbpath=str(tree)).status == 200
    assert daemon.post("DBctl", do="save").status == 200
    assert job_names(daemon) == [good]
    assert daemon.stop() == 0
    assert job_names(new_daemon()) == [good]


def test_jobs_of_long_ago_stay(new_daemon: NewDaemon, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    names = old_tree(tree)
    daemon = new_daemon("--keepDays", "30")
    assert daemon.post("DBctl", do="load", dbpath=str(tree)).status == 200
    daemon.run("true", "later", threaded=False)  # has the keeper look
    assert daemon.stop() == 0
    later = new_daemon("--keepDays", "30")
    later.run("true", "last", threaded=False)
    assert job_names(later)[:2] == names
