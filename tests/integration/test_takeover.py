"""A new daemon takes over what the one before left: running jobs, ended ones, older shepherds."""

from __future__ import annotations

import concurrent.futures
import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until
from fake_shepherd import FakeShepherd
from gate import Gate
from leftovers import end_shepherds, herd_pids, shepherds
from marked import wait_gone

from pman.output import OutputFiles
from pman.shepherd.protocol import VERSION

pytestmark = pytest.mark.slow


def record(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    """Return the `record` leaf of the one job with this id."""
    found = daemon.post("search", key="jid", value=jid, path="/record").json()["d_ret"]
    (match,) = found.values()
    leaf: dict[str, Any] = next(iter(match.values()))["record"]
    return leaf


def codes(daemon: DaemonProcess, jid: str) -> list[int]:
    found: list[int] = daemon.status(jid)["0.end"]["returncode"]
    return found


def stop(daemon: DaemonProcess, how: str) -> None:
    if how == "SIGTERM":
        assert daemon.stop() == 0
    else:
        daemon.kill()


def printed(daemon: DaemonProcess, jid: str, part: int) -> str:
    """Return what a part of the one job with this id has printed."""
    root = daemon.status(jid)["0.start"]["jobRoot"]
    return (daemon.db_path / "output" / root[:8] / root / f"{part}.stdout").read_text()


class Bell:
    """A FIFO that jobs write to when they have come to an end that nobody else sees."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)

    def wait(self) -> None:
        assert select.select([self._fd], [], [], 30.0)[0], "no job rang"
        assert os.read(self._fd, 1) == b"\n"

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Bell]:
    made = Bell(tmp_path / "bell")
    yield made
    made.close()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_jobs_that_run_and_jobs_that_ended_meanwhile(
    daemon: DaemonProcess, gate: Gate, bell: Bell, how: str, tmp_path: Path
) -> None:
    """In the middle of a compound command; with true codes and the whole output."""
    wait, ring = gate.passage, f"echo > {tmp_path}/bell"
    daemon.run(f"echo one; {wait}; echo two; exit 7; {ring}; {wait}; exit 3", "long")
    daemon.run(f"{wait}; printf out; exit 5; {ring}", "short")
    wait_until(lambda: daemon.words("short") == ["started"], "both run")
    if how == "SIGTERM":
        assert daemon.stop() == 0
    else:
        daemon.kill()

    gate.open(2)
    bell.wait()
    bell.wait()
    daemon.start()
    assert daemon.wait_finished("short") == ["finishedWithError"]
    assert codes(daemon, "short") == [0, 0, 5, 0]
    assert printed(daemon, "short", 1) == "out"
    assert daemon.words("long") == ["started"]
    gate.open()
    assert daemon.wait_finished("long") == ["finishedWithError"]
    assert codes(daemon, "long") == [0, 0, 0, 7, 0, 0, 3]
    assert (printed(daemon, "long", 0), printed(daemon, "long", 2)) == ("one\n", "two\n")
    assert record(daemon, "long")["exit_code"] == 3


def test_guard_daemon_and_jobs_outlive_a_killed_shepherd(
    daemon: DaemonProcess, gate: Gate, bell: Bell, tmp_path: Path
) -> None:
    """Daemon and shepherd are killed; the job goes on with its parts before a daemon is back."""
    daemon.run(f"{gate.passage} && exit 6; exit 4; echo > {tmp_path}/bell; exit 5", "job")
    wait_until(lambda: daemon.words("job") == ["started"], "it runs")
    daemon.kill()
    _, shepherd = herd_pids(daemon.db_path)
    os.kill(shepherd, signal.SIGKILL)
    assert wait_gone(shepherd)
    gate.open()
    bell.wait()
    daemon.start()
    assert daemon.wait_finished("job") == ["finishedWithError"]
    assert codes(daemon, "job") == [6, 4, 0, 5]


def test_after_a_reboot_running_jobs_are_lost_with_that_reason(
    daemon: DaemonProcess, gate: Gate
) -> None:
    daemon.run(f"{gate.passage}; touch {daemon.folder}/never", "job")
    wait_until(lambda: daemon.words("job") == ["started"], "it runs")
    daemon.kill()
    end_shepherds(daemon.db_path)
    (log,) = (daemon.db_path / "backends" / "host" / "jobs").iterdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    log.write_text(log.read_text().replace(boot, "an-earlier-boot"))
    daemon.start()
    assert daemon.wait_finished("job") == ["finishedWithError"]
    assert record(daemon, "job")["state"] == "LOST"
    assert "restarted" in record(daemon, "job")["message"]
    assert not (daemon.folder / "never").exists()


# --- the end of the daemon ----------------------------------------------------------------------


def test_kill_jobs_on_exit(new_daemon: NewDaemon, gate: Gate) -> None:
    daemon = new_daemon("--killJobsOnExit", "--killGrace", "0.5")
    daemon.run(f"{gate.passage}; touch {daemon.folder}/never", "tame")
    stubborn = daemon.folder / "stubborn"
    daemon.run(f"trap '' TERM; touch {stubborn}; {gate.passage}", "stubborn", compound=False)
    for jid in ("tame", "stubborn"):
        wait_until(lambda jid=jid: daemon.words(jid) == ["started"], "it runs")
    wait_until(stubborn.exists, "it takes no SIGTERM any more")
    assert daemon.stop() == 0
    wait_until(lambda: not shepherds(daemon.db_path), "the shepherd has ended")
    daemon.start()
    for jid in ("tame", "stubborn"):
        assert daemon.words(jid) == ["finishedWithError"]
        assert record(daemon, jid)["state"] == "CANCELED"
    assert record(daemon, "stubborn")["signal"] == signal.SIGKILL
    assert not (daemon.folder / "never").exists()


# --- shepherds of other versions ----------------------------------------------------------------


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_shepherd_of_another_version_finishes_its_jobs(
    new_daemon: NewDaemon, gate: Gate, version: int
) -> None:
    """New jobs go to a second shepherd; both are served until the other has no more."""
    daemon = new_daemon()
    for jid in ("ends", "canceled"):
        daemon.run(gate.passage, jid)
        wait_until(lambda jid=jid: daemon.words(jid) == ["started"], "it runs")
    daemon.kill()
    end_shepherds(daemon.db_path)
    state_path = daemon.db_path / "backends" / "host"
    jobs = [old_job(log) for log in sorted((state_path / "jobs").iterdir())]
    old = FakeShepherd(state_path, version, jobs)
    try:
        serve_both(daemon, old, [job["name"] for job in jobs])
    finally:
        old.close()


def old_job(log: Path) -> dict[str, Any]:
    """Return what a shepherd says of a running job; its log is gone then, as it has its own."""
    first, second, *_ = map(json.loads, log.read_text().splitlines())
    log.unlink()
    return {**first, "parts": [second["part"]]}


def serve_both(daemon: DaemonProcess, old: FakeShepherd, names: list[str]) -> None:
    daemon.start()
    assert daemon.run("exit 4", "new").json()["status"] is True
    assert daemon.wait_finished("new") == ["finishedWithError"]
    assert codes(daemon, "new") == [4]
    assert [daemon.words(jid) for jid in ("ends", "canceled")] == [["started"], ["started"]]
    assert herd_pids(daemon.db_path / "backends" / "host" / "2")
    assert not [command for command in old.taken if command["op"] == "start"]

    part = {"cmd": "x", "pid": 1, "started_at": 1.0, "ended_at": 2.0, "returncode": 7}
    ends, canceled = names
    old.say({"op": "update", "name": ends, "part": part, "is_ended": True})
    assert daemon.wait_finished("ends") == ["finishedWithError"]
    assert codes(daemon, "ends") == [7]
    old.wait_for("settled", ends)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        deleted = pool.submit(daemon.post, "delete", key="jid", value="canceled")
        old.wait_for("cancel", canceled)
        old.say({"op": "update", "name": canceled, "is_ended": True, "is_canceled": True})
        assert deleted.result().json()["status"] is True
    old.wait_for("settled", canceled)
    daemon.wait_for_log("older shepherd .* has no more jobs")
    assert daemon.run("exit 5", "last").json()["status"] is True
    assert daemon.wait_finished("last") == ["finishedWithError"]


# --- output that is too much ---------------------------------------------------------------------

CAP = 1 << 20


def test_output_past_the_cap_loses_its_middle(new_daemon: NewDaemon, gate: Gate) -> None:
    """While the job runs and after its end; the job goes on and notices nothing."""
    daemon = new_daemon("--maxOutput", "1MiB")
    size = 8 << 20
    noise = f"echo first; yes | head -c {size}; echo last; {gate.passage}"
    daemon.run(noise, "job", compound=False)
    path = stream_path(daemon, "job", "stdout")
    whole = len("first\n") + size + len("last\n")
    wait_until(
        lambda: path.exists() and path.stat().st_size == whole and used_bytes(path) < 1.2 * CAP,
        "the middle is dropped",
    )
    assert daemon.words("job") == ["started"]
    check_shown(daemon, path, whole)
    gate.open()
    assert daemon.wait_finished("job") == ["finishedSuccessfully"]
    check_shown(daemon, path, whole)
    assert used_bytes(path) < 1.2 * CAP
    shown = daemon.request("GET", f"/api/v1/{path.parent.name}").body.decode()
    assert f"[pman: {whole - CAP} bytes dropped here]" in shown
    assert daemon.post("delete", key="jid", value="job").json()["status"] is True
    assert not path.parent.exists()


def check_shown(daemon: DaemonProcess, path: Path, whole: int) -> None:
    root = daemon.db_path / "output"
    everything = OutputFiles(root, 4 * CAP).read_text(path.parent.name, 0, "stdout")
    marker = f"[pman: {whole - CAP} bytes dropped here]\n"
    assert everything.startswith("first\ny\n")
    assert everything.endswith("\ny\nlast\n")
    assert marker in everything
    assert len(everything) - len(marker) in (CAP, CAP + 1)  # a line that was cut is ended
    assert "\0" not in everything
    end = OutputFiles(root, 1000).read_text(path.parent.name, 0, "stdout")
    assert end.startswith(f"[pman: {whole - 1000} bytes before this are not shown]\n")
    assert end.endswith("\ny\nlast\n")


def stream_path(daemon: DaemonProcess, jid: str, stream: str) -> Path:
    """Return the file of a stream of the first part of the one job with this id."""
    root = daemon.status(jid)["0.start"]["jobRoot"]
    return daemon.db_path / "output" / root[:8] / root / f"0.{stream}"


def used_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_output_of_a_quick_job_is_cut_at_its_end(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--maxOutput", "64k")
    daemon.run("yes | head -c 4000000 >&2", "job")
    assert daemon.wait_finished("job") == ["finishedSuccessfully"]
    path = stream_path(daemon, "job", "stderr")
    assert path.stat().st_size == 4_000_000
    assert used_bytes(path) <= 3 * 64 * 1024
