"""`ProgressWatcher`: what running jobs print, and what they have said last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobdb_builders import MemoryJournal, make_job

from pman.job.observation import Observation
from pman.job.record import Job, Part
from pman.job.state import JobState
from pman.jobdb.store import JobStore
from pman.output import LIVE_SUFFIX, OutputFiles
from pman.services.progress import TAIL_BYTES, ProgressWatcher


class Talkative:
    """A backend that knows what its jobs have printed."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def recent_output(self, job: Job) -> str | None:
        return self.texts.get(job.name)


class Setup:
    def __init__(self, folder: Path) -> None:
        self.journal = MemoryJournal()
        self.store = JobStore(self.journal)
        self.output = OutputFiles(folder, 1 << 20)
        self.backend = Talkative()
        backends: Any = {"swarm": self.backend}
        self.watcher = ProgressWatcher(self.store, backends, self.output)

    def job(self, **fields: Any) -> Job:
        job = make_job(state=JobState.RUNNING, **fields)
        self.store.load([job])
        return job

    def prints(self, job: Job, text: str, part: int = 0, suffix: str = "") -> None:
        path = self.output.path(job.run_name, part, "stdout")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + suffix).open("a") as file:
            file.write(text)

    def said(self, job: Job) -> tuple[float | None, str]:
        self.watcher.look()
        now = self.store.get(job.name)
        assert now is not None
        return now.progress, now.progress_text


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def part(at: float | None) -> Part:
    return Part("true", started_at=at)


def test_a_job_that_prints_nothing_says_nothing(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)])
    assert setup.said(job) == (None, "")
    setup.prints(job, "hello\n")
    assert setup.said(job) == (None, "")


def test_each_look_takes_what_was_said_last(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)])
    setup.prints(job, "::progress 0.1 one\n::progress 0.2 two\n")
    assert setup.said(job) == (0.2, "two")
    setup.prints(job, "nothing of it\n")
    assert setup.said(job) == (0.2, "two")
    setup.prints(job, "::progress 0.1 back\n")
    assert setup.said(job) == (0.1, "back")


def test_only_the_end_of_much_output_is_read(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)])
    setup.prints(job, "::progress 0.1\n" + "x" * TAIL_BYTES + "\n")
    assert setup.said(job) == (None, "")
    setup.prints(job, "::progress 0.3\n")
    assert setup.said(job) == (0.3, "")


def test_an_unchanged_file_is_not_read_again(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)])
    setup.prints(job, "::progress 0.1\n")
    setup.said(job)
    setup.store.observe(Observation(name=job.name, progress=0.9))
    assert setup.said(job) == (0.9, "")


def test_the_part_that_runs_is_asked(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0), part(2.0), part(None)])
    setup.prints(job, "::progress 1\n", part=0)
    setup.prints(job, "::progress 0.5\n", part=1)
    assert setup.said(job) == (0.5, "")


def test_what_a_container_prints_live_is_read_from_its_file(setup: Setup) -> None:
    job = setup.job(backend="swarm")
    setup.prints(job, "::progress 0.5 live\n", suffix=LIVE_SUFFIX)
    assert setup.said(job) == (0.5, "live")


def test_a_container_that_nobody_follows_is_asked_for_by_its_backend(setup: Setup) -> None:
    job = setup.job(backend="swarm")
    assert setup.said(job) == (None, "")
    setup.backend.texts[job.name] = "::progress 25% asked\n"
    assert setup.said(job) == (0.25, "asked")
    cut = "::progress 0.5 of a longer line, perhaps\n"
    setup.backend.texts[job.name] = cut + "x" * TAIL_BYTES
    assert setup.said(job) == (0.25, "asked")


def test_a_later_try_is_read_where_it_prints(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)], attempt=2)
    setup.prints(job, "::progress 0.5\n")
    assert setup.output.path(f"{job.name}_r2", 0, "stdout").exists()
    assert setup.said(job) == (0.5, "")


@pytest.mark.parametrize("ends_as", ["next try", "held", "completed"])
def test_what_a_try_has_said_is_no_progress_of_what_follows(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, ends_as: str
) -> None:
    job = setup.job(parts=[part(1.0)])
    setup.prints(job, "::progress 0.9 nearly\n")
    read = setup.watcher._read

    def next_try(job: Job) -> Job:
        state = JobState.RUNNING if ends_as == "next try" else JobState.QUEUED
        return msgspec.structs.replace(job, attempt=2, state=state)

    def read_and_end(job: Job) -> Any:
        seen = read(job)
        if ends_as == "completed":
            setup.store.observe(Observation(name=job.name, state=JobState.COMPLETED))
        else:
            setup.store.change(job.name, next_try)
        return seen

    monkeypatch.setattr(setup.watcher, "_read", read_and_end)
    assert setup.said(job) == (None, "")


def test_a_job_may_not_want_to_be_read(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)], wants_progress=False)
    setup.prints(job, "::progress 0.5\n")
    assert setup.said(job) == (None, "")


def test_no_look_parses_what_the_client_sent(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)], meta='{"progress": no JSON')
    setup.prints(job, "::progress 0.5\n")
    assert setup.said(job) == (0.5, "")


def test_the_report_of_the_end_says_what_was_said_last(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)])
    setup.prints(job, "::progress 1 all done\n")
    observe = setup.watcher.with_last(setup.store.observe)
    observe(Observation(name=job.name, state=JobState.COMPLETED, parts=[part(1.0)]))
    now = setup.store.get(job.name)
    assert now is not None
    assert (now.state, now.progress, now.progress_text) == (JobState.COMPLETED, 1.0, "all done")


def test_the_report_of_the_end_of_a_later_try_is_read_there(setup: Setup) -> None:
    job = setup.job(attempt=2)
    setup.prints(job, "::progress 0.7\n")
    seen = Observation(name=job.run_name, state=JobState.FAILED)
    setup.watcher.with_last(lambda _: None)(seen)
    assert seen.progress == 0.7


def test_what_is_no_file_is_not_read(setup: Setup, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("::progress 0.5 of another\n")
    for make in (lambda path: path.symlink_to(secret), os.mkfifo, lambda path: path.mkdir()):
        job = setup.job(parts=[part(1.0)])
        path = setup.output.path(job.name, 0, "stdout")
        path.parent.mkdir(parents=True)
        make(path)
        assert setup.said(job) == (None, "")


def test_a_job_without_output_ends_as_before(setup: Setup) -> None:
    job = setup.job()
    seen = Observation(name=job.name, state=JobState.FAILED)
    setup.watcher.with_last(lambda _: None)(seen)
    assert (seen.progress, seen.progress_text) == (None, None)


def test_an_end_that_is_told_again_is_not_read_again(setup: Setup) -> None:
    job = setup.job(parts=[part(1.0)])
    setup.prints(job, "::progress 1\n")
    setup.store.observe(Observation(name=job.name, state=JobState.COMPLETED))
    seen = Observation(name=job.name, state=JobState.COMPLETED)
    setup.watcher.with_last(lambda _: None)(seen)
    assert seen.progress is None
