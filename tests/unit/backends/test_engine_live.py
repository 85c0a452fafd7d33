"""Output of running containers: in live files as it comes, at the offsets of the final files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_process import wait_until
from engine_harness import Rig

from pman.backends._engine import lives as module
from pman.backends._engine.halt import Halt
from pman.backends._engine.livefiles import LiveFolder, Tail, settle
from pman.backends._engine.port import Phase, View
from pman.errors import BackendUnavailable
from pman.job.record import Job, Worker
from pman.job.state import JobState
from pman.output import read_gap, write_gap

MakeRig = Callable[..., Rig]


def live(rig: Rig, job: Job, worker: int = 0, stream: str = "stdout") -> Path:
    return rig.output.folder(job.name) / f"{worker}.{stream}.live"


def wait_live(rig: Rig, job: Job, raw: bytes, worker: int = 0, stream: str = "stdout") -> None:
    path = live(rig, job, worker, stream)
    wait_until(lambda: path.exists() and path.read_bytes() == raw, f"{raw!r} in {path.name}")


def names(rig: Rig, job: Job) -> list[str]:
    return sorted(path.name for path in rig.output.folder(job.name).iterdir())


def follows(rig: Rig) -> int:
    return [method for method, _ in rig.world.calls].count("follow")


# --- one job --------------------------------------------------------------------------------


def test_a_live_file_grows_and_gives_way_to_the_final_one(rig: Rig) -> None:
    job = rig.running()
    rig.world.say(job.name, b"before\n")
    rig.backend.follow(job)
    wait_live(rig, job, b"before\n")
    rig.backend.follow(job)  # once more is no more
    rig.world.say(job.name, b"oops\n", stream="stderr")
    rig.world.say(job.name, b"after\n")
    wait_live(rig, job, b"before\nafter\n")
    wait_live(rig, job, b"oops\n", stream="stderr")
    assert follows(rig) == 1
    rig.world.end(job.name)
    rig.recorder.wait(job)
    assert names(rig, job) == ["0.stderr", "0.stdout"]
    assert (rig.text(job), rig.text(job, "stderr")) == ("before\nafter\n", "oops\n")


def test_nobody_asked_for_it(rig: Rig) -> None:
    job = rig.running()
    rig.world.say(job.name, b"out")
    rig.world.event(job.name)
    rig.marked()
    assert follows(rig) == 0
    assert not rig.output.folder(job.name).exists()


def test_a_job_is_followed_from_its_start(rig: Rig) -> None:
    job = rig.submitted()
    rig.backend.follow(job)
    rig.marked()
    assert follows(rig) == 0
    rig.world.run(job.name)
    rig.world.say(job.name, b"out")
    wait_live(rig, job, b"out")


def test_a_job_that_has_ended_is_not_followed(rig: Rig) -> None:
    job = rig.ended()
    rig.backend.follow(job)
    rig.marked()
    assert follows(rig) == 0


def test_workers_have_files_of_their_own(rig: Rig) -> None:
    job = rig.running(number_of_workers=2)
    rig.backend.follow(job)
    rig.world.say(job.name, b"zero", worker=0)
    rig.world.say(job.name, b"one", worker=1)
    wait_live(rig, job, b"zero", worker=0)
    wait_live(rig, job, b"one", worker=1)


def test_a_connection_that_breaks_is_made_again(rig: Rig) -> None:
    job = rig.running()
    rig.backend.follow(job)
    rig.world.say(job.name, b"one ")
    wait_live(rig, job, b"one ")
    rig.world.fail("follow", BackendUnavailable("away"), BackendUnavailable("away"))
    rig.world.cut(job.name)
    rig.world.say(job.name, b"two")
    wait_live(rig, job, b"one two")
    rig.world.wait_call("follow", job.name, 2)


def test_a_new_daemon_goes_on_with_what_a_former_one_has_left(rig: Rig) -> None:
    job = rig.running()
    rig.backend.follow(job)
    rig.world.say(job.name, b"one ")
    wait_live(rig, job, b"one ")
    rig.backend.close()
    rig.world.say(job.name, b"two")
    backend = rig.opened()
    backend.reconcile([job])
    backend.follow(job)
    wait_live(rig, job, b"one two")
    rig.world.end(job.name)
    rig.recorder.wait(job)
    assert names(rig, job) == ["0.stdout"]


def test_what_a_former_daemon_has_left_goes_unfollowed_too(rig: Rig) -> None:
    job = rig.running()
    rig.backend.follow(job)
    rig.world.say(job.name, b"out")
    wait_live(rig, job, b"out")
    rig.backend.close()
    rig.opened().reconcile([job])
    rig.world.end(job.name)
    rig.recorder.wait(job)
    assert names(rig, job) == ["0.stdout"]


def test_a_job_is_followed_while_it_is_stopped(rig: Rig) -> None:
    job = rig.running()
    rig.backend.follow(job)
    rig.world.say(job.name, b"one ")
    wait_live(rig, job, b"one ")
    entered, gate = rig.world.hold("stop")
    rig.backend.cancel(job, 5.0)
    assert entered.wait(30.0)
    rig.world.say(job.name, b"bye")
    wait_live(rig, job, b"one bye")
    gate.set()
    rig.recorder.wait(job)
    assert (names(rig, job), rig.text(job)) == (["0.stdout"], "one bye")


def test_what_was_followed_is_left_of_a_job_that_is_gone(rig: Rig) -> None:
    job = rig.running()
    rig.backend.follow(job)
    rig.world.say(job.name, b"out")
    wait_live(rig, job, b"out")
    rig.world.drop(job.name)
    rig.recorder.wait(job, JobState.LOST)
    wait_until(lambda: names(rig, job) == ["0.stdout"], "the final file")
    assert rig.text(job) == "out"


def test_a_stream_past_the_cap_is_followed_no_more(make_rig: MakeRig) -> None:
    rig = make_rig(max_output_bytes=10)
    job = rig.running()
    rig.backend.follow(job)
    rig.world.say(job.name, b"12345678")
    rig.world.say(job.name, b"90abc")
    wait_live(rig, job, b"1234567890")
    rig.world.end(job.name)
    rig.recorder.wait(job)
    assert names(rig, job) == ["0.stdout", "0.stdout.gap"]


def test_a_disk_that_is_full_ends_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LiveFolder, "put", full)
    job = rig.running()
    rig.backend.follow(job)
    rig.world.say(job.name, b"out")
    wait_until(lambda: "No space left" in caplog.text, "the warning")
    rig.world.end(job.name)
    rig.recorder.wait(job)
    assert rig.text(job) == "out"


def test_a_later_try_is_known_by_its_own_name(rig: Rig) -> None:
    first = rig.job()
    later = first.run_name + "_r2"
    first.name = later  # as the queue hands it on
    rig.recorder.jobs[later] = first
    rig.backend.submit(first)
    rig.recorder.wait(first, JobState.QUEUED)
    rig.world.run(later)
    rig.world.say(later, b"again")
    whole = rig.job()
    whole.name, whole.attempt = later.removesuffix("_r2"), 2  # as the job DB has it
    rig.backend.follow(whole)
    wait_live(rig, first, b"again")
    assert rig.backend.recent_output(whole) == "again"
    rig.world.end(later)
    rig.recorder.wait(first)
    whole.state = JobState.COMPLETED
    whole.workers = first.workers
    assert rig.backend.logs(whole) == ["again"]


def test_a_worker_that_ends_before_the_others_is_read_to_its_end(rig: Rig) -> None:
    job = rig.running(number_of_workers=2)
    rig.backend.follow(job)
    rig.world.say(job.name, b"one ", worker=1)
    wait_live(rig, job, b"one ", worker=1)
    thing = rig.thing(job)
    thing.output.append((1, "stdout", b"two"))  # who follows is not told
    rig.world.change(job.name, ended={1})
    wait_live(rig, job, b"one two", worker=1)
    wait_until(lambda: len(_threads()) == 1, "the end of one thread")


# --- catching up ----------------------------------------------------------------------------


def caught_up(rig: Rig, job: Job) -> threading.Event:
    """Return what is set once the files have what a job has printed by now."""
    told = threading.Event()
    assert rig.backend.catch_up(job, told.set)
    return told


def test_who_catches_up_waits_until_the_file_has_all(rig: Rig) -> None:
    job = rig.running()
    for n in range(100):
        rig.world.say(job.name, b"line %d\n" % n)
    came, free = rig.world.hold("follow")
    told = caught_up(rig, job)
    assert came.wait(30)
    assert not told.is_set()
    assert not live(rig, job).exists()
    free.set()
    assert told.wait(30)
    assert live(rig, job).read_bytes() == b"".join(b"line %d\n" % n for n in range(100))
    rig.world.say(job.name, b"more")
    wait_until(lambda: live(rig, job).read_bytes().endswith(b"more"), "it is followed")


def test_who_catches_up_beside_another_is_not_told_too_early(rig: Rig) -> None:
    """Given one who follows and whose file has a part of the log only."""
    job = rig.running()
    rig.world.say(job.name, b"one ")
    rig.backend.follow(job)
    wait_live(rig, job, b"one ")
    came, free = rig.world.hold("follow")
    rig.thing(job).output.append((0, "stdout", b"two"))  # which nobody has been told
    told = caught_up(rig, job)
    assert came.wait(30)
    assert not told.is_set()
    free.set()
    assert told.wait(30)
    assert live(rig, job).read_bytes() == b"one two"


def test_to_catch_up_again_costs_nothing(rig: Rig) -> None:
    job = rig.running()
    rig.world.say(job.name, b"out")
    assert caught_up(rig, job).wait(30)
    rig.world.wait(lambda: job.name in rig.world.waiting)
    before = follows(rig)
    assert caught_up(rig, job).wait(30)
    assert follows(rig) == before


def test_to_catch_up_after_a_cut_reads_anew(rig: Rig) -> None:
    job = rig.running()
    rig.world.say(job.name, b"one ")
    assert caught_up(rig, job).wait(30)
    rig.world.wait(lambda: job.name in rig.world.waiting)
    rig.world.fail("follow", BackendUnavailable("away"))
    rig.world.cut(job.name)
    rig.world.say(job.name, b"two")
    rig.world.wait(lambda: not rig.world.faults["follow"])
    assert caught_up(rig, job).wait(30)
    assert live(rig, job).read_bytes() == b"one two"


def test_to_catch_up_is_tried_until_the_engine_gives_it(rig: Rig) -> None:
    job = rig.running()
    rig.world.say(job.name, b"out")
    rig.world.fail("follow", *[BackendUnavailable("away")] * 3)
    assert caught_up(rig, job).wait(30)
    assert live(rig, job).read_bytes() == b"out"


def test_who_catches_up_waits_for_all_workers(rig: Rig) -> None:
    job = rig.running(number_of_workers=3)
    for n in range(3):
        rig.world.say(job.name, b"of %d" % n, worker=n)
    assert caught_up(rig, job).wait(30)
    assert [live(rig, job, n).read_bytes() for n in range(3)] == [b"of 0", b"of 1", b"of 2"]


def test_who_catches_up_is_told_of_the_end(rig: Rig) -> None:
    job = rig.running()
    rig.world.say(job.name, b"out")
    came, free = rig.world.hold("follow")
    told = caught_up(rig, job)
    assert came.wait(30)
    rig.world.end(job.name)
    assert told.wait(30)
    assert rig.text(job) == "out"
    free.set()


def test_who_catches_up_with_a_job_that_was_not_seen_yet_waits_for_that(rig: Rig) -> None:
    job = rig.running()
    rig.world.say(job.name, b"out")
    rig.backend.close()
    came, free = rig.world.hold("look_all")
    rig.opened().reconcile([job])
    told = caught_up(rig, job)
    assert came.wait(30)
    assert not told.is_set()
    free.set()
    assert told.wait(30)
    assert live(rig, job).read_bytes() == b"out"


def test_there_is_nothing_to_catch_up_with(rig: Rig) -> None:
    ended, queued = rig.ended(), rig.submitted()
    assert not rig.backend.catch_up(ended, pytest.fail)
    assert not rig.backend.catch_up(queued, pytest.fail)


def test_who_catches_up_with_one_of_a_crowd(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FOLLOWED", 0)
    job = rig.running()
    for _ in range(2):
        rig.world.say(job.name, b"out ")
        assert caught_up(rig, job).wait(30)
    assert live(rig, job).read_bytes() == b"out out "


# --- many -----------------------------------------------------------------------------------


def test_more_than_can_be_followed_are_read_in_turn(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FOLLOWED", 1)
    jobs = [rig.running(jid=str(number)) for number in range(3)]
    for job in jobs:
        rig.backend.follow(job)
        rig.world.say(job.name, b"one ")
    for job in jobs:
        wait_live(rig, job, b"one ")
        rig.world.say(job.name, b"two")
    for job in jobs:
        wait_live(rig, job, b"one two")
    for job in jobs:
        rig.world.end(job.name)
        rig.recorder.wait(job)
        assert (names(rig, job), rig.text(job)) == (["0.stdout"], "one two")
    wait_until(lambda: not _threads(), "the end of the threads")


def _threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.endswith("-live")]


# --- what was printed last ------------------------------------------------------------------


def test_recent_output_is_peeked_at_or_read_from_live_files(rig: Rig) -> None:
    job = rig.running()
    rig.world.say(job.name, b"one ")
    assert rig.backend.recent_output(job) is None
    wait_until(lambda: rig.backend.recent_output(job) == "one ", "what was peeked at")
    rig.backend.follow(job)
    wait_live(rig, job, b"one ")
    rig.world.say(job.name, b"two")
    wait_live(rig, job, b"one two")
    assert rig.backend.recent_output(job) == "one two"
    rig.world.end(job.name)
    rig.recorder.wait(job)


def test_an_end_that_is_seen_before_the_first_byte_is_read_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Tail.begin
    begun: list[Tail] = []

    def ends_at_once(tail: Tail) -> None:
        begin(tail)
        if tail not in begun:
            begun.append(tail)
            tail.over()

    monkeypatch.setattr(Tail, "begin", ends_at_once)
    job = rig.running()
    rig.world.say(job.name, b"one\n")
    rig.backend.follow(job)
    wait_live(rig, job, b"one\n")


# --- the files ------------------------------------------------------------------------------


def tail_of(folder: Path, max_bytes: int = 0) -> Tail:
    view = View(job_name="j", handle={}, phase=Phase.RUNNING, workers=[Worker("w")])
    return Tail(LiveFolder(folder, max_bytes), view, 0)


@pytest.mark.parametrize("left", [b"", b"abc", b"ab\0", b"abcdef"])
def test_bytes_are_written_where_they_belong(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "0.stdout.live"
    path.write_bytes(left)
    tail = tail_of(tmp_path)
    for _ in range(2):
        tail.begin()
        for piece in (b"ab", b"cd", b"ef"):
            tail.write(0, "stdout", piece)
        tail.close()
    assert path.read_bytes() == b"abcdef"


def test_a_beginning_that_is_gone_ends_it(tmp_path: Path) -> None:
    tail = tail_of(tmp_path)
    tail.write(0, "stdout", b"abcdef")
    tail.begin()
    tail.write(0, "stdout", b"defghi")
    tail.close()
    assert tail.is_unwanted.is_set()
    assert tail.reading.is_set()
    assert (tmp_path / "0.stdout.live").read_bytes() == b"abcdef"


@pytest.mark.parametrize("pieces", [(b"defghi",), (b"abX", b"ghi"), (b"ab", b"c", b"ghi")])
def test_what_a_former_daemon_has_left_is_not_overwritten_with_something_else(
    tmp_path: Path, pieces: tuple[bytes, ...]
) -> None:
    path = tmp_path / "0.stdout.live"
    path.write_bytes(b"abcdef")
    tail = tail_of(tmp_path)
    tail.begin()
    for piece in pieces:
        tail.write(0, "stdout", piece)
    tail.close()
    assert tail.is_unwanted.is_set()
    assert path.read_bytes() == b"abcdef"


def test_nothing_is_made_once_the_folder_is_shut(tmp_path: Path) -> None:
    folder = LiveFolder(tmp_path / "day" / "job", 0)
    folder.shut()
    assert folder.open(0, "stdout") is None
    assert list(tmp_path.iterdir()) == []


def test_the_longer_of_two_files_is_kept(tmp_path: Path) -> None:
    for name, raw in {
        "0.stdout": b"whole",
        "0.stdout.live": b"who",
        "0.stderr.live": b"only",
        "1.stdout": b"sho",
        "1.stdout.live": b"short",
        "2.stdout": b"end",
        "2.stdout.live": b"lost the en",
    }.items():
        (tmp_path / name).write_bytes(raw)
    write_gap(str(tmp_path / "1.stdout").encode(), (1, 2))
    settle(tmp_path)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == {
        "0.stdout": b"whole",
        "0.stderr": b"only",
        "1.stdout": b"short",
        "2.stdout": b"end",
    }
    assert read_gap(str(tmp_path / "1.stdout").encode()) is None
    settle(tmp_path / "nowhere")


def test_a_halt_interrupts_what_goes_on_or_begins() -> None:
    calls: list[str] = []
    halt = Halt()
    with halt.interrupts(lambda: calls.append("first")):
        assert not halt.is_set()
    halt.set()
    assert calls == []
    with halt.interrupts(lambda: calls.append("at once")):
        halt.set()
    assert calls == ["at once", "at once"]
    assert halt.wait(0.0)
