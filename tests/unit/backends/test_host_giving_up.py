"""`HostBackend` when the shepherd does not answer: what is ended, and what is started later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from recorder import Recorder, make_job

from pman.backends import host
from pman.backends.base import BackendContext
from pman.backends.host import HostBackend
from pman.config import Settings
from pman.errors import BackendUnavailable
from pman.job.record import ENDINGS, Job
from pman.job.state import JobState
from pman.output import OutputFiles
from pman.shepherd.protocol import (
    Cancel,
    Command,
    JobRecord,
    Refused,
    Settled,
    Snapshot,
    Start,
    Welcome,
)


class FakeLink:
    """Keeps what is sent; while it `is_busy` posts are kept as well."""

    def __init__(self) -> None:
        self.failure: BackendUnavailable | None = None
        self.is_busy = False
        self.sent: list[Command] = []
        self.posts: list[Command | Callable[[], None]] = []

    def post(self, what: Command | Callable[[], None]) -> None:
        self.posts.append(what)
        if not self.is_busy:
            self.do_posts()

    def do_posts(self) -> None:
        posts, self.posts = self.posts, []
        for post in posts:
            if callable(post):
                post()
            else:
                self.send(post)

    def send(self, command: Command) -> None:
        self.sent.append(command)

    def close(self) -> None:
        """Nothing is open."""

    def kinds(self) -> list[type]:
        return [type(command) for command in self.sent]


class Rig:
    def __init__(self, folder: Path) -> None:
        self.recorder = Recorder()
        self.backend = HostBackend(
            BackendContext(
                settings=Settings(db_path=folder),
                instance="test",
                state_path=folder / "state",
                output=OutputFiles(folder / "output", 1 << 20),
            )
        )
        self.backend._link.close()
        self.link = FakeLink()
        self.backend._link = self.link  # type: ignore[assignment]
        self.backend._observe = self.recorder.observe

    def job(self, *, is_released: bool) -> Job:
        job = make_job("true")
        job.hold = "released" if is_released else ""
        self.recorder.add(job)
        return job

    def claim(self, job: Job) -> None:
        """Have the shepherd say that it has a job."""
        self.backend.on_event(Snapshot(JobRecord(name=job.name, folder="", boot="", parts=[])))


def failures(rig: Rig) -> dict[tuple[str, str], int]:
    return {which: count for which, count in rig.backend.errors.counts() if count}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(host, "SUBMIT_TIMEOUT_S", 0.01)
    return Rig(tmp_path)


def test_a_new_job_that_is_not_taken_in_time_is_ended(rig: Rig) -> None:
    with pytest.raises(BackendUnavailable, match="in time"):
        rig.backend.submit(rig.job(is_released=False))
    assert rig.link.kinds() == [Start, Cancel]
    assert failures(rig) == {("submit", "unanswered"): 1}


def test_a_job_that_is_refused_is_counted(rig: Rig) -> None:
    job = rig.job(is_released=True)
    rig.backend.submit(job)
    before = failures(rig)
    rig.backend.on_event(Refused(job.name, "the folder can't be made"))
    rig.recorder.wait(job, JobState.FAILED)
    assert failures(rig) == {**before, ("submit", "refused"): 1}


def test_a_released_job_that_was_sent_is_not_ended(rig: Rig) -> None:
    job = rig.job(is_released=True)
    rig.backend.submit(job)
    assert rig.link.kinds() == [Start]
    rig.backend.on_failure(BackendUnavailable("gone"))
    assert rig.link.kinds() == [Start]
    rig.backend.on_welcome(Welcome(1, []))  # another shepherd, which does not know it
    assert rig.link.kinds() == [Start, Start]
    rig.claim(job)
    assert rig.backend._entries[job.name].confirmed.is_set()
    rig.backend.on_welcome(Welcome(1, [JobRecord(name=job.name, folder="", boot="", parts=[])]))
    assert rig.link.kinds() == [Start, Start]


def test_a_released_job_that_was_not_sent_is_not_taken(rig: Rig) -> None:
    job = rig.job(is_released=True)
    rig.link.is_busy = True
    with pytest.raises(BackendUnavailable, match="in time"):
        rig.backend.submit(job)
    assert not rig.backend._entries
    rig.link.do_posts()
    assert rig.link.sent == []
    rig.link.failure = BackendUnavailable("gone")
    with pytest.raises(BackendUnavailable, match="gone"):
        rig.backend.submit(job)
    rig.link.failure = None
    rig.link.is_busy = False
    rig.link.do_posts()
    rig.backend.submit(job)
    assert rig.link.kinds() == [Start]


def test_a_released_job_that_is_refused_late_has_failed(rig: Rig) -> None:
    job = rig.job(is_released=True)
    rig.backend.submit(job)
    rig.backend.on_event(Refused(job.name, "the disk is full"))
    assert (job.state, job.reason) == (JobState.FAILED, "submit_failed")
    assert job.message == "the disk is full"


def test_a_job_of_a_former_daemon_waits_for_a_shepherd(rig: Rig) -> None:
    job = rig.job(is_released=False)
    rig.backend.reconcile([job])
    rig.backend.on_failure(BackendUnavailable("gone"))
    rig.backend.on_welcome(Welcome(1, []))
    assert rig.link.kinds() == [Start, Start]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("is_released", [False, True])
def test_a_job_of_a_former_daemon_that_is_to_end_is_not_started(
    rig: Rig, ending: str, is_released: bool
) -> None:
    job = rig.job(is_released=is_released)
    job.reason = ending
    on_disk = msgspec.structs.replace(job)
    rig.link.is_busy = True
    rig.backend.reconcile([on_disk])
    rig.backend.cancel_after_restart(on_disk, 1.0)  # as the queue does
    rig.backend.on_welcome(Welcome(1, []))
    rig.link.is_busy = False
    rig.link.do_posts()
    assert (job.state, job.reason) == (JobState.CANCELED, "canceled")
    assert rig.link.sent == []
    assert not rig.backend._entries


def test_a_new_job_of_a_former_daemon_that_was_started_is_ended_by_the_shepherd(rig: Rig) -> None:
    job = rig.job(is_released=False)
    job.reason = "canceling"
    rig.backend.on_welcome(Welcome(1, [JobRecord(name=job.name, folder="", boot="", parts=[])]))
    rig.backend.reconcile([job])
    rig.backend.cancel_after_restart(job, 1.0)
    assert rig.link.kinds() == [Cancel]
    assert not job.state.is_final


def test_an_end_that_the_next_shepherd_does_not_know_as_settled_is_settled_again(rig: Rig) -> None:
    rig.backend.reconcile([])
    ended = JobRecord(name="gone", folder="", boot="", parts=[], is_ended=True)
    runs = JobRecord(name="runs", folder="", boot="", parts=[])
    for _ in range(2):
        rig.link.sent = []
        rig.backend.on_welcome(Welcome(2, [ended, runs]))
        assert rig.link.sent == [Settled("gone")]


def test_what_a_shepherd_knows_is_kept_until_it_is_known_what_is_asked_for(rig: Rig) -> None:
    ended = JobRecord(name="ended", folder="", boot="", parts=[], is_ended=True)
    rig.backend.on_welcome(Welcome(1, [ended]))
    assert rig.link.sent == []
    rig.backend.reconcile([])
    assert rig.link.sent == [Settled("ended")]


def test_a_cancel_after_a_start_that_is_not_answered_follows_it(rig: Rig) -> None:
    job = rig.job(is_released=True)
    rig.backend.submit(job)
    rig.backend.cancel(job, 1.0)
    assert rig.link.kinds() == [Start, Cancel]
    assert job.state is JobState.NEW


def test_withdrawn_jobs_are_not_remembered_without_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "MAX_WITHDRAWN", 2)
    jobs = [rig.job(is_released=True) for _ in range(3)]
    for job in jobs:
        rig.backend.cancel(job, 1.0)
        assert job.state is JobState.CANCELED
    assert list(rig.backend._withdrawn) == [job.name for job in jobs[1:]]
    rig.backend.submit(jobs[2])
    assert rig.link.sent == []
    assert list(rig.backend._withdrawn) == [jobs[1].name]
