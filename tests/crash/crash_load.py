"""Jobs under load, and what must be true of them whatever was killed.

Every part of a job appends its number to the job's file and ends with a code of its own: file and
record together say what was run, how often, and whether the record tells the truth.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from daemon_process import DaemonProcess, wait_until
from marked import wait_gone

SITE = Path(__file__).parent / "site"
SUBMITTERS = 4
#: A job whose shepherd was killed at this very moment may have run, and nobody can know how.
LIMBO = "its shepherd was killed when it started a part"
FINAL = ("COMPLETED", "FAILED", "CANCELED", "LOST")
#: What a record on disk leaves out.
DEFAULTS = {"state": "NEW", "parts": [], "exit_code": None, "signal": None, "message": ""}


class Expected(msgspec.Struct):
    """What a job was told to do, and what the daemon answered."""

    codes: list[int]
    path: Path
    answer: bool | None = None

    def ran(self) -> list[int]:
        """Return the numbers of the parts that were run, in order."""
        with contextlib.suppress(FileNotFoundError):
            return [int(line) for line in self.path.read_text().splitlines()]
        return []


class History:
    """All jobs of one test, over every round."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.jobs: dict[str, Expected] = {}
        self.finals: dict[str, tuple[str, list[int | None]]] = {}
        #: Jobs that were not over when the last one who could know their codes was killed.
        self.may_be_lost: set[str] = set()
        self.shepherd_kills = 0
        self._folder = folder
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def command(self) -> tuple[str, str]:
        """Make up a job; return its id and its command."""
        with self._lock:
            jid = f"job{len(self.jobs)}"
            codes = [self._chance.choice((0, 0, 3, 41)) for _ in range(self._chance.randint(1, 3))]
            pauses = [self._chance.choice((0, 0, 0.02, 0.2)) for _ in codes]
            path = self._folder / jid
            self.jobs[jid] = Expected(codes, path)
        parts = [
            f"(echo {n} >> {path}; sleep {pause}; exit {code})"
            for n, (code, pause) in enumerate(zip(codes, pauses, strict=True))
        ]
        return jid, "; ".join(parts)

    def answered(self, jid: str, answer: bool) -> None:
        self.jobs[jid].answer = answer

    def expect_losses(self, db_path: Path) -> None:
        """Allow the jobs to be lost that are not over yet."""
        known = records(db_path)
        with self._lock:
            self.may_be_lost |= {
                jid for jid in self.jobs if jid not in known or known[jid]["state"] not in FINAL
            }

    def look(self, found: dict[str, dict[str, Any]]) -> None:
        """Check what must be true at any moment: nothing leaves a final state or is missing."""
        for jid, (state, codes) in self.finals.items():
            assert jid in found, f"{jid} is missing"
            now = (found[jid]["state"], returncodes(found[jid]))
            assert now == (state, codes), f"{jid} was {state} {codes}, and is {now}"
        for jid, job in found.items():
            if job["state"] in FINAL:
                self.finals[jid] = (job["state"], returncodes(job))
        missing = [jid for jid, job in self.jobs.items() if job.answer and jid not in found]
        assert not missing, f"acknowledged, and not there: {missing}"

    def check(self, found: dict[str, dict[str, Any]]) -> dict[str, int]:
        """Check what must be true once all have ended; return how many ended how."""
        self.look(found)
        counts: dict[str, int] = {}
        limbo = 0
        for jid, job in self.jobs.items():
            ran = job.ran()
            assert ran == list(range(len(ran))), f"{jid} ran {ran}"
            if jid not in found:
                assert not ran, f"{jid} ran, and there is no record of it"
                continue
            record = found[jid]
            counts[record["state"]] = counts.get(record["state"], 0) + 1
            if record["reason"] == "submit_failed":
                assert job.answer is not True
            elif record["state"] == "LOST":
                limbo += record["message"] == LIMBO
                is_allowed = jid in self.may_be_lost or record["message"] == LIMBO
                assert is_allowed, f"{jid} is lost: {record['message']}"
                assert "no record" not in record["message"]
                codes = [code for code in returncodes(record) if code is not None]
                assert codes == job.codes[: len(codes)]
            else:
                assert returncodes(record) == job.codes, f"{jid}: {record}"
                assert len(ran) == len(job.codes), f"{jid} ran {ran}: {record}"
                failed = [code for code in job.codes if code]
                assert record["exit_code"] == (failed[-1] if failed else 0)
        assert limbo <= self.shepherd_kills
        return counts


class Load:
    """Threads that submit jobs of a history until told to stop or the daemon is gone."""

    def __init__(self, daemon: DaemonProcess, history: History) -> None:
        self.acknowledged = 0
        self.refused = 0
        self._daemon = daemon
        self._history = history
        self._is_over = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(SUBMITTERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the daemon is dead
            while not self._is_over.is_set():
                jid, cmd = self._history.command()
                answer = self._daemon.run(cmd, jid, auid="crash").json()["status"]
                self._history.answered(jid, answer)
                self.acknowledged += answer
                self.refused += not answer


def returncodes(record: dict[str, Any]) -> list[int | None]:
    return [part.get("returncode") for part in record.get("parts", [])]


def records(db_path: Path) -> dict[str, dict[str, Any]]:
    """Return what the job DB on disk says, by job id."""
    with contextlib.closing(sqlite3.connect(f"file:{db_path}/pman.db?mode=ro", uri=True)) as file:
        rows = [
            {**DEFAULTS, **json.loads(record)}
            for (record,) in file.execute("SELECT record FROM jobs ORDER BY seq")
        ]
    found = {row["jid"]: row for row in rows}
    assert len(found) == len(rows), "a job is there twice"
    return found


def wait_all_ended(daemon: DaemonProcess) -> dict[str, dict[str, Any]]:
    """Return the records of all jobs once each has ended."""

    def look() -> dict[str, dict[str, Any]] | None:
        found = records(daemon.db_path)
        left = [jid for jid, job in found.items() if job["state"] not in FINAL]
        return None if left else {"": {}, **found}

    try:
        found: dict[str, dict[str, Any]] = wait_until(look, "every job has ended")
    except AssertionError as exc:
        left = [job for job in records(daemon.db_path).values() if job["state"] not in FINAL]
        logs = (daemon.db_path / "backends" / "host" / "shepherd.log").read_text()[-2000:]
        exc.add_note(f"{len(left)} have not: {left[:2]}\n{daemon.log_text()[-2000:]}\n{logs}")
        raise
    del found[""]
    return found


def kill(pids: Iterable[int]) -> None:
    """Kill processes, all before any has time to see another's end."""
    pids = list(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        assert wait_gone(pid)
