"""What was acknowledged is kept and runs exactly once: killed daemons, full and locked disks."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, Reply, wait_until
from gate import Gate
from leftovers import end_shepherds, shepherds
from probes import assert_refused, job_names, run_pman

pytestmark = pytest.mark.slow

SUBMITTERS = 16


class Burst:
    """Threads that submit jobs until the daemon is gone or `stop`, and note what was answered.

    Each job appends a line to a file of its own: the lines say how often it ran.
    """

    def __init__(self, daemon: DaemonProcess, folder: Path, prefix: str) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.sent: list[str] = []
        self._is_over = threading.Event()
        self._daemon = daemon
        self._folder = folder
        self._prefix = prefix
        self._threads = [
            threading.Thread(target=self._submit, args=(n,)) for n in range(SUBMITTERS)
        ]

    def __enter__(self) -> Burst:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Wait for the last answers."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _submit(self, thread: int) -> None:
        with contextlib.suppress(OSError):  # the daemon is dead
            for n in itertools.count():
                if self._is_over.is_set():
                    return
                jid = f"{self._prefix}-{thread}-{n}"
                self.sent.append(jid)
                reply = self._daemon.run(f"echo ran >> {self._folder / jid}", jid, auid="burst")
                (self.acknowledged if reply.json()["status"] else self.refused).append(jid)

    def times_run(self, jid: str) -> int:
        try:
            return len((self._folder / jid).read_text().splitlines())
        except FileNotFoundError:
            return 0


def words_by_jid(daemon: DaemonProcess) -> dict[str, str]:
    """Return the word of each job of the bursts, once all of them have ended."""

    def look() -> Any:
        reply = daemon.post("status", key="auid", value="burst").json()["d_ret"]
        words = reply["l_status"]
        unfinished[:] = [
            reply[f"{n}.end"]["jobRoot"] for n, word in enumerate(words) if "finished" not in word
        ]
        return None if unfinished else words

    unfinished: list[str] = []
    try:
        words = wait_until(look, "every job has ended")
    except AssertionError as exc:
        stuck = daemon.request("GET", f"/api/v1/{unfinished[0]}/record").body.decode()
        exc.add_note(f"{len(unfinished)} have not, the first is {stuck}\n{daemon.log_text()}")
        raise
    found = daemon.post("search", key="auid", value="burst", path="/jid").json()["d_ret"]
    jids = [next(iter(match.values()))["jid"] for match in found.values()]
    assert len(jids) == len(set(jids)) == len(words)
    return dict(zip(jids, words, strict=True))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_daemon_has_kept_what_it_acknowledged(
    new_daemon: NewDaemon, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    daemon = new_daemon()
    with Burst(daemon, tmp_path, "b") as burst:
        wait_until(lambda: len(burst.acknowledged) > 20, "jobs are acknowledged")
        time.sleep(chance.uniform(0, 0.7))
        daemon.kill()
    daemon.start()
    words = words_by_jid(daemon)
    assert set(burst.acknowledged) <= set(words)
    assert set(words.values()) == {"finishedSuccessfully"}
    assert {jid: burst.times_run(jid) for jid in words} == dict.fromkeys(words, 1)
    assert not any(burst.times_run(jid) for jid in set(burst.sent) - set(words))
    assert not burst.refused


def check_after_a_killed_shepherd(daemon: DaemonProcess, burst: Burst) -> None:
    words = words_by_jid(daemon)
    assert set(burst.acknowledged) <= set(words)
    for jid in burst.sent:
        if words.get(jid) == "finishedSuccessfully":
            assert burst.times_run(jid) == 1, jid
        else:  # refused, or how it ended can't be known
            assert burst.times_run(jid) <= 1, jid
    assert daemon.run("true", "next").json()["status"] is True
    assert daemon.wait_finished("next") == ["finishedSuccessfully"]


def kill_shepherds(daemon: DaemonProcess) -> None:
    for pid in shepherds(daemon.db_path):
        os.kill(pid, signal.SIGKILL)


def test_killed_shepherd_and_daemon_start_no_job_twice(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    daemon = new_daemon()
    with Burst(daemon, tmp_path, "s") as burst:
        wait_until(lambda: len(burst.acknowledged) > 50, "jobs are acknowledged")
        kill_shepherds(daemon)
        daemon.kill()
    daemon.start()
    check_after_a_killed_shepherd(daemon, burst)


def test_killed_shepherd_starts_no_job_twice(daemon: DaemonProcess, tmp_path: Path) -> None:
    with Burst(daemon, tmp_path, "s") as burst:
        for kills in range(1, 6):
            wait_until(lambda n=kills: len(burst.acknowledged) > 50 * n, "jobs are acknowledged")
            kill_shepherds(daemon)
        wait_until(lambda: len(burst.acknowledged) > 350, "jobs are acknowledged again")
    check_after_a_killed_shepherd(daemon, burst)
    # By the end of the last shepherd, what was still on its way has arrived.
    assert daemon.stop() == 0
    wait_until(lambda: not shepherds(daemon.db_path), "the shepherd has ended")
    assert {jid for jid in burst.sent if burst.times_run(jid) > 1} == set()


def test_empty_log_of_a_killed_shepherd_holds_nobody_up(daemon: DaemonProcess, gate: Gate) -> None:
    """A shepherd that is killed after it made the log of a job and before it wrote to it."""
    for jid in ("torn", "whole"):
        daemon.run(gate.passage, jid)
        wait_until(lambda jid=jid: daemon.words(jid) == ["started"], "the job runs")
    daemon.kill()
    end_shepherds(daemon.db_path)
    name = min(path.name for path in (daemon.db_path / "output").glob("*/*"))
    (log,) = (daemon.db_path / "backends" / "host" / "jobs").glob(f"{name}*")
    log.write_bytes(b"")
    daemon.start()
    assert daemon.wait_finished("torn") == ["finishedWithError"]
    assert daemon.wait_finished("whole") == ["finishedWithError"]
    assert daemon.run("true", "next").json()["status"] is True
    assert daemon.wait_finished("next") == ["finishedSuccessfully"]
    record = daemon.status("torn")["0.end"]["jobRoot"]
    assert daemon.request("GET", f"/api/v1/{record}").json()["GET"][record]["jid"] == "torn"


def test_killed_shepherd_is_replaced(daemon: DaemonProcess) -> None:
    daemon.run("true", "first")
    daemon.wait_finished("first")
    (pid,) = shepherds(daemon.db_path)
    kill_shepherds(daemon)

    def run_again() -> bool:
        return bool(daemon.run("true", "second").json()["status"])

    wait_until(run_again, "host jobs are taken again")
    assert daemon.wait_finished("second")
    wait_until(
        lambda: [other for other in shepherds(daemon.db_path) if other != pid],
        "there is a new shepherd",
    )
    assert daemon.run("exit 3", "third").json()["status"] is True
    assert daemon.wait_finished("third") == ["finishedWithError"]
    assert daemon.status("third")["0.end"]["returncode"] == [3]


def test_300_jobs_at_once(daemon: DaemonProcess, tmp_path: Path) -> None:
    def submit(n: int) -> Reply:
        return daemon.run(f"echo ran >> {tmp_path}/{n} && exit {n % 7}", f"j{n}", auid="burst")

    with ThreadPoolExecutor(32) as threads:
        replies = list(threads.map(submit, range(300)))
    assert all(reply.json()["status"] for reply in replies)
    words = words_by_jid(daemon)
    assert len(words) == 300
    status = daemon.post("status", key="auid", value="burst").json()["d_ret"]
    for index, (jid, word) in enumerate(words.items()):
        n = int(jid[1:])
        assert word == ("finishedWithError" if n % 7 else "finishedSuccessfully")
        assert status[f"{index}.end"]["returncode"] == [n % 7]
        assert (tmp_path / str(n)).read_text() == "ran\n"


# --- disks that take nothing ------------------------------------------------------------------

#: Beyond what an open journal may still take, bytes.
PADDING = "x" * 400_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The DBpath of the daemon named `pman`, on a disk of 16 MiB."""
    with mounted(tmp_path / "pman" / "db") as path:
        yield path


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """Another disk of 16 MiB."""
    with mounted(tmp_path / "other") as path:
        yield path


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[Path]:
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    assert os.statvfs(folder).f_bavail == 0
    return path


def assert_takes_no_job(daemon: DaemonProcess, mark: Path) -> None:
    before = job_names(daemon)
    reply = daemon.run(f"touch {mark}", "refused", padding=PADDING)
    assert_refused(reply, 503)
    assert daemon.is_alive()
    assert job_names(daemon) == before
    assert daemon.words("first") == ["finishedSuccessfully"]


def assert_takes_jobs_again(daemon: DaemonProcess, mark: Path) -> None:
    reply = daemon.run(f"touch {mark}.later", "later", padding=PADDING)
    assert reply.json()["status"] is True
    assert daemon.wait_finished("later") == ["finishedSuccessfully"]
    assert Path(f"{mark}.later").exists()
    # A job that was refused is never started, not even now.
    assert not mark.exists()
    names = job_names(daemon)
    daemon.kill()
    daemon.start()
    assert job_names(daemon) == names


def test_full_disk(small_disk: Path, new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon()
    assert daemon.db_path == small_disk
    daemon.run("true", "first")
    daemon.wait_finished("first")
    filling = fill(small_disk)
    assert_takes_no_job(daemon, tmp_path / "mark")
    filling.unlink()
    assert_takes_jobs_again(daemon, tmp_path / "mark")


def test_full_disk_of_an_export(daemon: DaemonProcess, other_disk: Path) -> None:
    daemon.run("true", "first")
    daemon.wait_finished("first")
    filling = fill(other_disk)
    export = str(other_disk / "export")
    assert_refused(daemon.post("DBctl", do="save", dbpath=export), 503, field="dbpath")
    assert os.listdir(other_disk) == [filling.name]
    filling.unlink()
    assert daemon.post("DBctl", do="save", dbpath=export).status == 200


def test_files_that_may_not_grow(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.run("true", "first")
    daemon.wait_finished("first")
    unlimited = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
    assert_takes_no_job(daemon, tmp_path / "mark")
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, unlimited)
    assert_takes_jobs_again(daemon, tmp_path / "mark")


def test_read_only_dbpath_ends_the_start(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = run_pman("--ip", "127.0.0.1", "--port", "0", "--DBpath", str(small_disk))
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert str(small_disk) in line


def test_second_daemon_on_one_dbpath_ends(daemon: DaemonProcess) -> None:
    daemon.run("true", "first")
    second = run_pman("--ip", "127.0.0.1", "--port", "0", "--DBpath", str(daemon.db_path))
    assert second.returncode == 1
    (line,) = second.stderr.strip().splitlines()
    assert str(daemon.pid) in line
    assert str(daemon.db_path) in line
    assert daemon.wait_finished("first") == ["finishedSuccessfully"]
