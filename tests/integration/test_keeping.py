"""Finished jobs beyond the limits are forgotten by a whole daemon; those that run are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until

pytestmark = pytest.mark.slow


def kept(daemon: DaemonProcess) -> list[str]:
    """Return the ids of the jobs there are, in order; one may go between two requests."""
    names = daemon.request("GET", "/api/v1/").json()["GET"]
    found = [(name, daemon.request("GET", f"/api/v1/{name}/jid").json()["GET"]) for name in names]
    return [shown[name]["jid"] for name, shown in found if shown]


def files(daemon: DaemonProcess, folder: str) -> list[Path]:
    return [path for path in (daemon.db_path / folder).glob("*/*") if path.name[0] != "."]


def run_to_the_end(daemon: DaemonProcess, *jids: str, prints: int = 10) -> None:
    for jid in jids:
        daemon.run(f"head -c {prints} /dev/zero", jid, threaded=False)


def test_the_newest_jobs_are_kept(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--keepJobs", "2", "--DBsavePeriod", "0.1")
    daemon.run("sleep 600", "runs")
    run_to_the_end(daemon, "a", "b", "c", "d")
    wait_until(lambda: kept(daemon) == ["runs", "c", "d"], "two finished jobs are left")
    wait_until(lambda: len(files(daemon, "output")) == 3, "output of all that is left")
    wait_until(lambda: len(files(daemon, "jobs")) == 3, "snapshot of all that is left")
    assert daemon.status("a")["l_status"] == []
    assert daemon.words("runs") == ["started"]


def test_output_is_kept_up_to_a_size(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--keepBytes", "2500")
    run_to_the_end(daemon, "a", "b", "c", "d", prints=1000)
    wait_until(lambda: kept(daemon) == ["c", "d"], "jobs that printed 2,000 bytes are left")


def test_a_start_with_lower_limits_forgets_what_is_too_much(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    run_to_the_end(daemon, *"abcde")
    daemon.stop()
    later = new_daemon("--keepJobs", "1")
    wait_until(lambda: kept(later) == ["e"], "the newest job is left")
    wait_until(lambda: len(files(later, "output")) == 1, "its output is left")
    later.stop()
    assert kept(new_daemon()) == ["e"]


def test_jobs_are_forgotten_by_age(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--keepDays", "0.00001")  # some 0.9 s
    run_to_the_end(daemon, "a")
    run_to_the_end(daemon, "b")
    wait_until(lambda: run_to_the_end(daemon, "c") or "a" not in kept(daemon), "the end of a")
