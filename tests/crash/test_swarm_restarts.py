"""kill -9 of pman, and stops of the engine, while services run.

PMAN_CRASH_ROUNDS says how many times pman is killed under load (3), PMAN_CRASH_SEED when (1).
"""

from __future__ import annotations

import os
import random
import shlex
import threading
from typing import Any

import msgspec
import pytest
from daemon_process import DaemonProcess, wait_until
from swarm_daemon import Swarm, record_of, services_of
from swarm_lab import LabEngine

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("PMAN_CRASH_ROUNDS", "3"))
SEED = int(os.environ.get("PMAN_CRASH_SEED", "1"))

#: Services that run at the same time, and what each prints over its life.
SERVICES, LINES = 20, 200

#: Longest time that all of it may take on a busy machine, seconds.
DEADLINE_S = 90.0


class Talker(msgspec.Struct):
    """A job that prints its lines over `pauses` tenths of a second and ends with `code`."""

    word: str
    pauses: int
    code: int

    @property
    def cmd(self) -> str:
        """Say in the share that it has begun and ended; print to both streams."""
        script = (
            f"echo began >>/share/{self.word}; i=0; while [ $i -lt {LINES} ]; do"
            f" if [ $((i % 50)) = 49 ]; then echo {self.word} $i >&2; else echo {self.word} $i; fi;"
            f" [ $((i * {self.pauses} / {LINES})) = $(((i + 1) * {self.pauses} / {LINES})) ]"
            f" || sleep 0.1; i=$((i+1)); done; echo ended >>/share/{self.word}; exit {self.code}"
        )
        return f"sh -c {shlex.quote(script)}"

    @property
    def text(self) -> str:
        """Return its whole log: stdout, then stderr."""
        lines = [(number % 50 == 49, f"{self.word} {number}\n") for number in range(LINES)]
        return "".join(line for _, line in sorted(lines, key=lambda line: line[0]))


def talkers() -> list[Talker]:
    """Return jobs of many lengths, up to some four seconds, every third of which fails."""
    return [
        Talker(f"talker{number}", 2 * number, number if number % 3 == 0 else 0)
        for number in range(1, SERVICES + 1)
    ]


def marks(swarm: Swarm, word: str) -> dict[str, int]:
    """Return how often each job has left a mark in the share, {job: times}."""
    found = {path.name: path.read_text().split().count(word) for path in swarm.share.iterdir()}
    return {name: times for name, times in found.items() if times}


def wait_marks(swarm: Swarm, word: str, count: int) -> None:
    wait_until(lambda: len(marks(swarm, word)) >= count, f"{count} jobs that {word}", DEADLINE_S)


def wait_ends(daemon: DaemonProcess, swarm: Swarm, words: list[str]) -> None:
    for word in words:
        wait_until(
            lambda word=word: record_of(daemon, swarm.jid(word))["ended_at"] is not None,
            f"the end of {word}",
            DEADLINE_S,
        )


def log_of(daemon: DaemonProcess, jid: str) -> str:
    (text,) = daemon.status(jid)["l_logs"]
    return text  # type: ignore[no-any-return]


def check_told(daemon: DaemonProcess, swarm: Swarm, jobs: list[Talker]) -> None:
    """Look for the true state, code and whole log of each job, and for no service."""
    wait_ends(daemon, swarm, [job.word for job in jobs])
    for job in jobs:
        jid = swarm.jid(job.word)
        record = record_of(daemon, jid)
        expected = ("COMPLETED", 0) if job.code == 0 else ("FAILED", job.code)
        assert (record["state"], record["exit_code"]) == expected, record
        assert log_of(daemon, jid) == job.text, job.word
    assert marks(swarm, "began") == marks(swarm, "ended") == {job.word: 1 for job in jobs}
    wait_until(lambda: not services_of(daemon), "no service is left", DEADLINE_S)


@pytest.fixture
def daemon(lab_swarm: Swarm) -> DaemonProcess:
    lab_swarm.share.chmod(0o777)
    return lab_swarm.start()


def submit_all(daemon: DaemonProcess, swarm: Swarm, jobs: list[Talker]) -> None:
    for job in jobs:
        assert swarm.run(daemon, job.cmd, job.word).status == 200


# --- pman is killed -------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["began", "ended"])
def test_each_job_ends_with_its_true_end_when_pman_is_killed(
    daemon: DaemonProcess, lab_swarm: Swarm, word: str
) -> None:
    """Given 20 services, when pman is killed, and comes back once all of them have done `word`."""
    jobs = talkers()
    submit_all(daemon, lab_swarm, jobs)
    wait_marks(lab_swarm, "began", SERVICES // 2)
    daemon.kill()
    wait_marks(lab_swarm, word, SERVICES)
    daemon.start()
    check_told(daemon, lab_swarm, jobs)


class Submitter:
    """Submits small jobs, one after the other, until pman is gone.

    Attributes:
        sent, acknowledged: Names of the jobs.
    """

    def __init__(self, daemon: DaemonProcess, swarm: Swarm, prefix: str) -> None:
        self.sent: list[str] = []
        self.acknowledged: list[str] = []
        self._daemon = daemon
        self._swarm = swarm
        self._prefix = prefix
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while True:
            word = f"{self._prefix}-{len(self.sent)}"
            cmd = f"sh -c 'echo began >>/share/{word}; echo {word}; exit {len(self.sent) % 2}'"
            try:
                reply = self._swarm.run(self._daemon, cmd, word)
            except OSError:  # it was killed
                self.sent.append(word)
                return
            if reply.status == 200:  # else it has just started, and the job must not run
                self.sent.append(word)
                self.acknowledged.append(word)


def test_each_job_that_was_taken_runs_once_whenever_pman_is_killed(lab_swarm: Swarm) -> None:
    """One that was not may have run; its service is removed as soon as it may be."""
    lab_swarm.share.chmod(0o777)
    daemon = lab_swarm.start("--orphanGrace", "1")
    chance = random.Random(SEED)
    sent: list[str] = []
    acknowledged: list[str] = []
    for number in range(3 * ROUNDS):
        submitter = Submitter(daemon, lab_swarm, f"round{number}")
        wait_until(lambda submitter=submitter: submitter.acknowledged, "a job is taken")
        threading.Event().wait(chance.uniform(0.0, 0.15))
        daemon.kill()
        submitter.join()
        sent += submitter.sent
        acknowledged += submitter.acknowledged
        daemon.start()
    wait_ends(daemon, lab_swarm, acknowledged)
    wait_until(lambda: not services_of(daemon), "no service is left", DEADLINE_S)
    ran = marks(lab_swarm, "began")
    assert set(acknowledged) <= set(ran) <= set(sent)
    assert set(ran.values()) == {1}
    for word in acknowledged:
        record = record_of(daemon, lab_swarm.jid(word))
        code = int(word.rpartition("-")[2]) % 2
        assert (record["state"], record["exit_code"]) == (("COMPLETED", "FAILED")[code], code)
        assert log_of(daemon, lab_swarm.jid(word)) == f"{word}\n"


# --- the engine is stopped ------------------------------------------------------------------

#: Waits until it is told to end, which it says a moment later, and ends with a code of its own.
PATIENT = (
    'sh -c \'trap "sleep 1; echo told; echo ended >>/share/{0}; exit 5" TERM;'
    " echo began >>/share/{0}; i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done;"
    " while true; do sleep 0.1; done'"
)
LOG = "".join(f"line {number}\n" for number in range(100)) + "told\n"


def run_patient(daemon: DaemonProcess, swarm: Swarm, count: int) -> list[str]:
    """Start jobs that end only when they are told to."""
    words = [f"patient{number}" for number in range(count)]
    for word in words:
        assert swarm.run(daemon, PATIENT.format(word), word).status == 200
    for word in words:  # an engine that is killed while it starts a container fails it later
        wait_until(
            lambda word=word: daemon.words(swarm.jid(word)) == ["started"],
            f"the start of {word}",
            DEADLINE_S,
        )
    wait_marks(swarm, "began", count)
    return words


def ends_of(daemon: DaemonProcess, swarm: Swarm, words: list[str]) -> list[dict[str, Any]]:
    """Return the records of jobs that have ended, with their logs."""
    wait_ends(daemon, swarm, words)
    jids = [swarm.jid(word) for word in words]
    return [{**record_of(daemon, jid), "log": log_of(daemon, jid)} for jid in jids]


@pytest.mark.parametrize("is_pman_killed", [False, True])
def test_each_job_ends_with_its_true_end_when_the_engine_is_killed(
    daemon: DaemonProcess, lab_swarm: Swarm, lab: LabEngine, is_pman_killed: bool
) -> None:
    """The engine ends the containers that it finds when it is back."""
    words = run_patient(daemon, lab_swarm, 5)
    lab.kill()
    if is_pman_killed:
        daemon.kill()
        daemon.start()
    lab.start()
    for end in ends_of(daemon, lab_swarm, words):
        assert (end["state"], end["exit_code"], end["reason"]) == ("FAILED", 5, "error"), end
        assert end["log"] == LOG
    assert marks(lab_swarm, "ended") == dict.fromkeys(words, 1)


@pytest.mark.parametrize("is_pman_killed", [False, True])
def test_each_job_ends_with_its_true_end_when_the_engine_is_stopped(
    daemon: DaemonProcess, lab_swarm: Swarm, lab: LabEngine, is_pman_killed: bool
) -> None:
    """The engine takes the containers along, output and all."""
    words = run_patient(daemon, lab_swarm, SERVICES)
    lab.stop()
    if is_pman_killed:
        daemon.kill()
        daemon.start()
    lab.start()
    for end in ends_of(daemon, lab_swarm, words):
        assert (end["state"], end["exit_code"], end["log"]) == ("FAILED", 5, LOG), end
    assert marks(lab_swarm, "ended") == dict.fromkeys(words, 1)


def test_jobs_run_on_while_the_engine_is_frozen(
    daemon: DaemonProcess, lab_swarm: Swarm, lab: LabEngine
) -> None:
    jobs = talkers()[-5:]
    submit_all(daemon, lab_swarm, jobs)
    wait_marks(lab_swarm, "began", len(jobs))
    lab.freeze()
    wait_marks(lab_swarm, "ended", len(jobs))
    lab.thaw()
    check_told(daemon, lab_swarm, jobs)
