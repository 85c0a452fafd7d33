"""Host jobs for real: many, killed, compound, and what is left when the shepherd is killed."""

from __future__ import annotations

import os
import select
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from leftovers import herd_pids
from marked import end_marked, marked, wait_gone
from recorder import DEADLINE_S, Recorder, make_job

from pman.backends.base import BackendContext
from pman.backends.host import HostBackend
from pman.config import Settings
from pman.errors import BackendUnavailable, RequestError, SubmitFailed
from pman.job.record import Job
from pman.job.spec import spec_from_meta
from pman.job.state import JobState
from pman.output import OutputFiles
from pman.shepherd import client
from pman.shepherd.protocol import Event

pytestmark = pytest.mark.slow


class Host:
    """A folder with a shepherd, and the backend objects that talk to it."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder = folder
        self.mark = mark
        self.state_path = folder / "state"
        self.recorder = Recorder()
        self.output = OutputFiles(folder / "output", 1 << 20)
        self._open: list[HostBackend] = []

    def backend(self) -> HostBackend:
        """Return a started backend object."""
        made = HostBackend(
            BackendContext(
                settings=Settings(db_path=self.folder),
                instance="test",
                state_path=self.state_path,
                output=self.output,
            )
        )
        made.start(self.recorder.observe)
        self._open.append(made)
        return made

    def run(self, backend: HostBackend, cmd: str, **meta: object) -> Job:
        """Submit a command."""
        job = make_job(cmd, **meta)
        self.recorder.add(job)
        backend.submit(job)
        return job

    def text(self, job: Job, part: int = 0, stream: str = "stdout") -> str:
        return self.output.read_text(job.name, part, stream)

    def shepherd(self) -> int:
        """Return the process id of the shepherd."""
        return herd_pids(self.state_path)[1]

    def close(self) -> None:
        for backend in self._open:
            backend.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host of one's own; afterwards no process of it is left."""
    mark = f"test-{uuid.uuid4()}"
    monkeypatch.setenv("TEST_MARK", mark)
    made = Host(tmp_path, mark)
    yield made
    made.close()
    end_marked(mark)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """A named pipe that jobs write to: returns one line, once there is one."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)

    def line() -> str:
        assert select.select([fd], [], [], DEADLINE_S)[0], "no job wrote to the pipe"
        return os.read(fd, 100).decode().strip()

    yield line
    os.close(fd)


def test_300_jobs_at_once_run_once_each_with_their_own_code(host: Host) -> None:
    backend = host.backend()
    trace = host.folder / "trace"
    jobs = [make_job(f"echo {n} >> {trace}; echo out{n}; exit {n % 200}") for n in range(300)]
    host.recorder.add(*jobs)
    threads = [
        threading.Thread(target=lambda share: [backend.submit(job) for job in share], args=(part,))
        for part in (jobs[n::10] for n in range(10))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    host.recorder.wait_all(jobs)
    assert [job.exit_code for job in jobs] == [n % 200 for n in range(300)]
    assert [host.text(job, 1) for job in jobs] == [f"out{n}\n" for n in range(300)]
    assert sorted(map(int, trace.read_text().split())) == list(range(300))


def test_output_that_is_not_utf8(host: Host) -> None:
    """Defect 48."""
    job = host.run(host.backend(), "printf '\\377ok'")
    host.recorder.wait(job, JobState.COMPLETED)
    assert host.text(job) == "\N{REPLACEMENT CHARACTER}ok"


def test_unbalanced_quote_fails_with_the_words_of_the_shell(host: Host) -> None:
    """Defect 47."""
    job = host.run(host.backend(), "echo 'a; b")
    host.recorder.wait(job, JobState.FAILED)
    assert job.exit_code == 2
    assert len(job.parts) == 1
    assert "nterminated" in host.text(job, 0, "stderr")


def test_a_compound_job_runs_until_its_last_part(host: Host) -> None:
    """Defects 34 and 35; a failing part does not stop the others."""
    job = host.run(host.backend(), "false; sleep 0.3; exit 4; true")
    host.recorder.wait_parts_ended(job, 1)
    assert job.state is JobState.RUNNING
    host.recorder.wait(job)
    assert [part.returncode for part in job.parts] == [1, 0, 4, 0]
    assert (job.state, job.exit_code) == (JobState.FAILED, 4)
    assert job.message == "part 3 of 4 ended with exit code 4"
    assert len({part.pid for part in job.parts}) == 4


def test_not_split_when_asked_not_to(host: Host) -> None:
    job = host.run(host.backend(), "cd /; pwd", compound=False)
    host.recorder.wait(job, JobState.COMPLETED)
    assert len(job.parts) == 1
    assert host.text(job) == "/\n"


def test_folder_environment_and_files_of_a_job(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMAN_TOKENPATH", "/secret")
    monkeypatch.setenv("SOME_WORD", "b\udcffc")
    monkeypatch.chdir(host.folder)
    job = host.run(host.backend(), 'pwd; env; cat; ls -l /proc/self/fd | grep -c "^l"; umask')
    host.recorder.wait(job, JobState.COMPLETED)
    assert host.text(job, 0) == f"{host.folder}\n"
    assert "PMAN_TOKENPATH" not in host.text(job, 1)
    assert "SOME_WORD=b\N{REPLACEMENT CHARACTER}c\n" in host.text(job, 1)
    assert host.text(job, 3) == "4\n"  # 0, 1, 2 and the folder that ls reads
    stdout = host.output.path(job.name, 0, "stdout")
    assert stdout.stat().st_mode & 0o777 == 0o600
    assert stdout.parent.stat().st_mode & 0o777 == 0o700
    assert stdout.parent.parent.stat().st_mode & 0o777 == 0o700
    assert not host.output.path(job.name, 0, "stderr").exists()


def test_jobs_are_not_told_to_ignore_signals(host: Host) -> None:
    """Python ignores SIGPIPE; a job that inherited that would not end with its reader."""
    job = host.run(host.backend(), "grep -E 'Sig(Ign|Blk)' /proc/self/status")
    host.recorder.wait(job, JobState.COMPLETED)
    masks = [int(line.split()[1], 16) for line in host.text(job).splitlines()]
    assert len(masks) == 2
    # glibc leaves the two signals that it keeps to itself, 32 and 33, ignored.
    assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]


def test_cancel_kills_the_whole_process_group(
    host: Host, fifo: Callable[[], str], tmp_path: Path
) -> None:
    """Defect 54: a grandchild that ignores SIGTERM is killed as well."""
    backend = host.backend()
    stubborn = f"(trap '' TERM; sh -c 'echo $$ > {tmp_path}/fifo; sleep 60'; sleep 60) & wait"
    job = host.run(backend, stubborn)
    grandchild = int(fifo())
    assert os.getpgid(grandchild) == job.parts[0].pid != os.getpgrp()
    assert os.getsid(grandchild) == job.parts[0].pid
    backend.cancel(job, 0.2)
    host.recorder.wait(job, JobState.CANCELED)
    assert wait_gone(grandchild)
    assert job.signal == signal.SIGTERM


def test_cancel_starts_no_further_part(host: Host) -> None:
    backend = host.backend()
    job = host.run(backend, f"sleep 60; touch {host.folder}/never")
    host.recorder.wait(job, JobState.RUNNING)
    backend.cancel(job, 10.0)
    host.recorder.wait(job, JobState.CANCELED)
    assert not (host.folder / "never").exists()
    assert job.parts[1].pid is None


def test_cancel_lets_a_job_tidy_up(host: Host, fifo: Callable[[], str]) -> None:
    backend = host.backend()
    tidy = f"trap 'echo tidied; exit 3' TERM; echo > {host.folder}/fifo; sleep 60 & wait"
    job = host.run(backend, tidy, compound=False)
    fifo()
    backend.cancel(job, 20.0)
    host.recorder.wait(job, JobState.CANCELED)
    assert host.text(job) == "tidied\n"
    assert job.exit_code == 3


def test_children_left_behind_run_on_and_do_not_hold_the_job(
    host: Host, fifo: Callable[[], str]
) -> None:
    job = host.run(host.backend(), f"sh -c 'echo $$ > {host.folder}/fifo; sleep 60' & true")
    left_behind = int(fifo())
    host.recorder.wait(job, JobState.COMPLETED)
    os.kill(left_behind, signal.SIGKILL)
    assert wait_gone(left_behind)


def failures(backend: HostBackend) -> dict[tuple[str, str], int]:
    return {which: count for which, count in backend.errors.counts() if count}


def test_the_shepherd_is_killed(host: Host, fifo: Callable[[], str]) -> None:
    """A running job is followed to its end, with its code and further parts; new jobs run."""
    backend = host.backend()
    ended = host.run(backend, "exit 5")
    host.recorder.wait(ended)
    wait = f"sh -c 'echo > {host.folder}/fifo; sleep 60; exit 3'; echo second; exit 9"
    running = host.run(backend, wait)
    fifo()
    first = host.shepherd()
    os.kill(first, signal.SIGKILL)
    assert wait_gone(first)

    after = host.run(backend, "exit 6")
    host.recorder.wait(after)
    assert (after.exit_code, ended.exit_code) == (6, 5)
    assert running.state is JobState.RUNNING
    assert host.shepherd() != first
    assert failures(backend) == {("watch", "unavailable"): 1}

    assert running.parts[0].pid is not None
    os.killpg(running.parts[0].pid, signal.SIGKILL)
    host.recorder.wait(running)
    assert [part.returncode for part in running.parts] == [-9, 0, 9]
    assert (running.state, running.exit_code) == (JobState.FAILED, 9)
    assert host.text(running, 1) == "second\n"


def test_guard_and_shepherd_are_killed(host: Host, fifo: Callable[[], str]) -> None:
    """Nobody can know the code then: the job is followed, LOST at its end, and goes no further."""
    backend = host.backend()
    running = host.run(
        backend, f"sh -c 'echo > {host.folder}/fifo; sleep 60'; touch {host.folder}/never"
    )
    fifo()
    for pid in herd_pids(host.state_path):
        os.kill(pid, signal.SIGKILL)
        assert wait_gone(pid)
    host.recorder.wait(host.run(backend, "true"))
    assert running.state is JobState.RUNNING
    assert running.parts[0].pid is not None
    os.killpg(running.parts[0].pid, signal.SIGKILL)
    host.recorder.wait(running)
    assert (running.state, running.reason) == (JobState.LOST, "lost")
    assert "exit code can't be known" in running.message
    assert not (host.folder / "never").exists()


def test_only_the_guard_is_killed(host: Host, fifo: Callable[[], str]) -> None:
    backend = host.backend()
    job = host.run(backend, f"sh -c 'echo > {host.folder}/fifo; sleep 60'; exit 4")
    fifo()
    guard, shepherd = herd_pids(host.state_path)
    os.kill(guard, signal.SIGKILL)
    assert wait_gone(guard)
    host.recorder.wait(host.run(backend, "true"))
    assert job.parts[0].pid is not None
    os.killpg(job.parts[0].pid, signal.SIGKILL)
    host.recorder.wait(job)
    assert (job.state, job.exit_code) == (JobState.FAILED, 4)
    assert not wait_gone(shepherd, 0)


def test_a_job_that_ends_while_there_is_no_shepherd_keeps_its_code(
    host: Host, fifo: Callable[[], str]
) -> None:
    """Neither daemon nor shepherd see it end; the next of both know how, and go on with it."""
    backend = host.backend()
    job = host.run(backend, f"sh -c 'echo $$ > {host.folder}/fifo; sleep 60'; exit 8")
    shell = int(fifo())
    guard, shepherd = herd_pids(host.state_path)
    backend.close()
    os.kill(guard, signal.SIGSTOP)  # so that no shepherd is started again yet
    os.kill(shepherd, signal.SIGKILL)
    assert wait_gone(shepherd)
    os.kill(shell, signal.SIGTERM)
    assert wait_gone(shell)
    os.kill(guard, signal.SIGCONT)
    host.backend().reconcile([job])
    host.recorder.wait(job)
    assert [part.returncode for part in job.parts] == [128 + 15, 8]


def test_a_job_of_a_killed_shepherd_can_be_canceled(host: Host) -> None:
    backend = host.backend()
    job = host.run(backend, "sleep 60")
    host.recorder.wait(job, JobState.RUNNING)
    os.kill(host.shepherd(), signal.SIGKILL)
    host.recorder.wait(host.run(backend, "true"))
    backend.cancel(job, 10.0)
    host.recorder.wait(job, JobState.CANCELED)


def test_killed_with_daemon_and_jobs(host: Host) -> None:
    """Everything was killed at once: the next daemon says what is known, and runs nothing twice."""
    backend = host.backend()
    done = make_job("exit 5")
    running = make_job(f"echo >> {host.folder}/count; exec sleep 60", compound=False)
    backend.submit(running)
    backend.submit(done)
    watched = host.run(backend, "true")
    host.recorder.wait(watched)
    backend.close()
    end_marked(host.mark)

    host.recorder.add(done, running)
    host.backend().reconcile([done, running])
    host.recorder.wait(done)
    host.recorder.wait(running)
    assert (done.state, done.exit_code) == (JobState.FAILED, 5)
    assert running.state is JobState.LOST
    assert running.message
    assert (host.folder / "count").read_text() == "\n"


def test_a_job_from_before_a_reboot_is_lost(host: Host) -> None:
    backend = host.backend()
    job = host.run(backend, "sleep 60")
    host.recorder.wait(job, JobState.RUNNING)
    backend.close()
    end_marked(host.mark)
    log = host.state_path / "jobs" / f"{job.name}.jsonl"
    boot = job.handle["boot"] if job.handle else ""
    log.write_text(log.read_text().replace(boot, "another boot"))

    host.backend().reconcile([job])
    host.recorder.wait(job, JobState.LOST)
    assert "restarted" in job.message


def test_the_shepherd_ends_without_daemon_and_jobs(host: Host) -> None:
    backend = host.backend()
    host.recorder.wait(host.run(backend, "true"))
    guard, shepherd = herd_pids(host.state_path)
    assert os.getsid(shepherd) == guard != os.getsid(0)  # a session of their own
    backend.close()
    assert wait_gone(shepherd)
    assert wait_gone(guard)
    assert marked(host.mark) == []


def test_the_shepherd_stays_while_a_job_runs(host: Host, fifo: Callable[[], str]) -> None:
    backend = host.backend()
    wait = f"sh -c 'echo > {host.folder}/fifo; sleep 2.5; exit 8'"
    job = host.run(backend, wait)
    fifo()
    shepherd = host.shepherd()
    backend.close()
    assert not wait_gone(shepherd, 2.3)
    host.backend().reconcile([job])
    host.recorder.wait(job)
    assert job.exit_code == 8


def test_the_shepherd_is_small(host: Host, fifo: Callable[[], str]) -> None:
    """Under 25 MB, of which the guard's are shared, and under 2 MB more a job; in fact 20 KB."""
    backend = host.backend()
    host.recorder.wait(host.run(backend, "true"))
    guard, shepherd = herd_pids(host.state_path)
    before = rss_kb(shepherd)
    assert before < 25_000
    assert rss_kb(guard) < 25_000
    jobs = [host.run(backend, f"cat {host.folder}/fifo") for _ in range(200)]
    for job in jobs:
        host.recorder.wait(job, JobState.RUNNING)
    assert rss_kb(shepherd) - before < 10_000


def rss_kb(pid: int, field: str = "VmRSS:") -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def test_a_folder_that_others_may_write_to_is_refused(host: Host) -> None:
    host.state_path.mkdir()
    host.state_path.chmod(0o777)
    backend = host.backend()
    job = make_job("true")
    with pytest.raises(BackendUnavailable, match="others may write"):
        backend.submit(job)
    with pytest.raises(BackendUnavailable, match="others may write"):
        backend.check(spec_from_meta({"cmd": "true", "auid": "", "jid": ""}))
    with pytest.raises(BackendUnavailable):
        backend.cancel(job, 1.0)


def test_a_long_state_path_gets_its_socket_elsewhere(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = host.folder / "run"
    runtime.mkdir()
    if len(str(runtime)) > 60:
        runtime = Path("/tmp")  # where the test's own folder is too deep
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    host.state_path = host.folder / ("long" * 30)
    job = host.run(host.backend(), "true")
    host.recorder.wait(job, JobState.COMPLETED)
    socket = Path((host.state_path / "shepherd.endpoint").read_text())
    assert socket.is_socket()
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert socket.parent.parent == runtime
    if runtime == Path("/tmp"):
        socket.unlink()
        socket.parent.rmdir()


def test_output_that_cannot_be_written_refuses_the_job(host: Host) -> None:
    (host.folder / "output").write_text("a file where a folder must be")
    with pytest.raises(SubmitFailed, match="can't be claimed"):
        host.run(host.backend(), "true")


def test_text_that_is_no_text_is_refused(host: Host) -> None:
    with pytest.raises(RequestError) as caught:
        host.backend().check(spec_from_meta({"cmd": "echo \ud800", "auid": "", "jid": ""}))
    assert caught.value.field == "cmd"


def test_a_fault_of_ours_in_the_talk_with_the_shepherd_costs_no_job(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "RETRY_S", 0.05)
    whole = HostBackend.on_event
    faults = iter([False, True])  # the job is taken, and then it ends

    def once_at_fault(self: HostBackend, event: Event) -> None:
        if next(faults, False):
            raise ZeroDivisionError("inside")
        whole(self, event)

    monkeypatch.setattr(HostBackend, "on_event", once_at_fault)
    backend = host.backend()
    job = host.run(backend, "exit 5")
    host.recorder.wait(job)
    assert (job.state, job.exit_code) == (JobState.FAILED, 5)
    assert "ZeroDivisionError: inside" in caplog.text
    assert failures(backend) == {("watch", "failed"): 1}
