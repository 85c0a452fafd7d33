"""`run` in full on the real daemon and the host: the queue, tries, deadlines, and kill -9."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from crash.crash_load import records
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until
from gate import Gate

pytestmark = pytest.mark.slow


def record(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    """Return what memory says of the one job with this id, and of what it lacks, the disk."""
    found = daemon.post("search", key="jid", value=jid, path="/record").json()["d_ret"]
    (match,) = found.values()
    return {**records(daemon.db_path)[jid], **next(iter(match.values()))["record"]}


def printed(daemon: DaemonProcess, jid: str) -> str:
    """Return what the newest try of the one job with this id has printed."""
    found = record(daemon, jid)
    name = found["name"] + (f"_r{found['attempt']}" if found.get("attempt", 1) > 1 else "")
    path = daemon.db_path / "output" / name[:8] / name / "0.stdout"
    return path.read_text() if path.exists() else ""


def run(daemon: DaemonProcess, jid: str, **meta: Any) -> None:
    """Run a job by its `argv` or `cmd`."""
    reply = daemon.post("run", auid="tester", jid=jid, threaded=True, **meta)
    assert reply.status == 200, reply.body


def reason(daemon: DaemonProcess, jid: str) -> str:
    found: str = record(daemon, jid).get("reason", "")
    return found


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_held_jobs_run_once_each_over_kill_9(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon("--maxJobs", "3", "--maxJobsPerAuid", "2")
    trace = tmp_path / "trace"
    for n in range(60):
        daemon.run(f"echo {n} >> {trace}", f"job-{n}", auid=f"user-{n % 3}", priority=n % 2)
        if n % 20 == 19:
            daemon.kill()
            daemon.start()
    for many in (15, 30, 45):
        wait_until(lambda many=many: len(lines(trace)) >= many, "some have run")
        daemon.kill()
        daemon.start()
    for n in range(60):
        assert daemon.wait_finished(f"job-{n}") == ["finishedSuccessfully"]
    assert sorted(map(int, lines(trace))) == list(range(60))


def test_no_more_run_at_a_time_than_may(new_daemon: NewDaemon, gate: Gate) -> None:
    daemon = new_daemon("--maxJobs", "host=2")
    for n in range(5):
        daemon.run(gate.passage, f"job-{n}")
    words = [daemon.words(f"job-{n}") for n in range(5)]
    assert words == [["started"]] * 2 + [["notstarted"]] * 3
    assert reason(daemon, "job-4") == "limit"
    gate.open(5)
    for n in range(5):
        assert daemon.wait_finished(f"job-{n}") == ["finishedSuccessfully"]


def test_tries_over_kill_9(new_daemon: NewDaemon, tmp_path: Path) -> None:
    """Each of 20 jobs fails twice, and is tried three times, no more and no less."""
    daemon = new_daemon()
    for n in range(20):
        trace = tmp_path / f"trace-{n}"
        cmd = f'echo x >> {trace} && test "$(wc -l < {trace})" = 3'
        daemon.run(cmd, f"job-{n}", retries=4, backoff=0.2)
    for _ in range(3):
        before = sum(len(lines(tmp_path / f"trace-{n}")) for n in range(20))
        daemon.kill()
        daemon.start()
        wait_until(
            lambda before=before: (
                before >= 50 or sum(len(lines(tmp_path / f"trace-{n}")) for n in range(20)) > before
            ),
            "tries go on",
        )
    for n in range(20):
        assert daemon.wait_finished(f"job-{n}") == ["finishedSuccessfully"]
        assert len(lines(tmp_path / f"trace-{n}")) == 3
        assert record(daemon, f"job-{n}")["attempt"] == 3


def test_the_output_of_the_newest_try_is_shown(daemon: DaemonProcess, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    cmd = f"echo x >> {trace} && wc -l < {trace} && exit 7"
    daemon.run(cmd, "job", retries=1, backoff=0)
    assert daemon.wait_finished("job") == ["finishedWithError"]
    assert printed(daemon, "job").strip() == "2"
    (found,) = daemon.post("search", key="jid", value="job", path="/").json()["d_ret"].values()
    assert '"stdout": "2\\n"' in json.dumps(found)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_job_that_runs_too_long(new_daemon: NewDaemon, is_restarted: bool) -> None:
    daemon = new_daemon("--killGrace", "1")
    daemon.run("sleep 60", "job", timeout=1)
    if is_restarted:
        daemon.kill()
        daemon.start()
    assert daemon.wait_finished("job") == ["finishedWithError"]
    found = record(daemon, "job")
    assert (found["state"], found["reason"]) == ("FAILED", "deadline_exceeded")


def test_a_job_that_waits_too_long(new_daemon: NewDaemon, gate: Gate, tmp_path: Path) -> None:
    daemon = new_daemon("--maxJobs", "1")
    daemon.run(gate.passage, "first")
    daemon.run(f"touch {tmp_path}/never", "job", pendingTimeout=0.5)
    assert daemon.wait_finished("job") == ["finishedWithError"]
    assert reason(daemon, "job") == "pending_timeout"
    gate.open()
    daemon.wait_finished("first")
    assert not (tmp_path / "never").exists()


def test_chains(daemon: DaemonProcess, gate: Gate, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    daemon.run(f"{gate.passage}; echo 1 >> {trace}", "one")
    daemon.run(f"echo 2 >> {trace}", "two", after=["one"])
    daemon.run(f"echo 3 >> {trace}; exit 1", "three", after=["two", "one"])
    daemon.run(f"echo 4 >> {trace}", "four", after=["three"])
    assert reason(daemon, "two") == "after"
    daemon.kill()
    daemon.start()
    assert [daemon.words(jid) for jid in ("two", "three")] == [["notstarted"]] * 2
    gate.open()
    assert daemon.wait_finished("four") == ["finishedWithError"]
    assert lines(trace) == ["1", "2", "3"]
    assert record(daemon, "four")["reason"] == "dependency_failed"
    assert "'three'" in record(daemon, "four")["message"]


def test_argv_env_cwd_and_stdin(daemon: DaemonProcess, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    script = 'printf "%s|" "$0" "$1" "$A" "$PWD"; cat'
    argv = ["sh", "-c", script, "a  b", "c;'d"]
    stdin = "é" * 200_000
    run(daemon, "job", argv=argv, env={"A": "x\ny", "N": 1.5}, cwd=str(folder), stdin=stdin)
    assert daemon.wait_finished("job") == ["finishedSuccessfully"]
    assert printed(daemon, "job") == f"a  b|c;'d|x\ny|{folder}|{stdin}"
    name = record(daemon, "job")["name"]
    names = [path.name for path in (daemon.db_path / "output" / name[:8] / name).iterdir()]
    assert names == ["0.stdout"]


def test_what_a_command_line_reads_is_read_by_all_of_it(daemon: DaemonProcess) -> None:
    run(daemon, "job", cmd="read a; echo $a; cat", stdin="1\n2\n")
    assert daemon.wait_finished("job") == ["finishedSuccessfully"]
    assert printed(daemon, "job") == "1\n2\n"


def test_parts_of_a_command_line_share_env_and_cwd(daemon: DaemonProcess, tmp_path: Path) -> None:
    run(daemon, "job", cmd=f"cd / && echo $A > {tmp_path}/1; pwd > {tmp_path}/2", env={"A": "x"},
        cwd=str(tmp_path))  # fmt: skip
    assert daemon.wait_finished("job") == ["finishedSuccessfully"]
    assert (tmp_path / "1").read_text() == "x\n"
    assert (tmp_path / "2").read_text() == f"{tmp_path}\n"


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"argv": ["/bin/true"], "cwd": "/is/not/there"}, "working directory '/is/not/there'"),
        ({"cmd": "true", "cwd": "/etc/passwd"}, "Not a directory"),
        ({"argv": ["no-such-program"]}, "no program 'no-such-program' in PATH"),
        ({"argv": ["true"], "env": {"PATH": "/is/not/there"}}, "no program 'true' in PATH"),
    ],
)
def test_what_cannot_be_started_says_why(
    shared_daemon: DaemonProcess, meta: dict[str, Any], words: str
) -> None:
    jid = str(meta)
    run(shared_daemon, jid, **meta)
    assert shared_daemon.wait_finished(jid) == ["finishedWithError"]
    assert words in record(shared_daemon, jid)["message"]
    run(shared_daemon, "next", cmd="pwd")  # nothing of it is left in the shepherd
    shared_daemon.wait_finished("next")
    found = shared_daemon.post("delete", value="next")
    assert found.status == 200


def test_dry_run_keeps_nothing(daemon: DaemonProcess) -> None:
    reply = daemon.post(
        "run", cmd="cd /; pwd", auid="", jid="j", dryRun=True, env={"A": 1}, cwd="/tmp"
    )
    found = reply.json()["d_ret"]
    assert found["backend"] == "host"
    assert found["dryRun"]["parts"] == ["cd /", " pwd"]
    assert (found["dryRun"]["cwd"], found["dryRun"]["env"]) == ("/tmp", {"A": "1"})
    assert daemon.post("status", key="jid", value="j").json()["status"] is False


def test_cancel_with_a_signal(daemon: DaemonProcess, gate: Gate, tmp_path: Path) -> None:
    note = tmp_path / "note"
    daemon.run(f"trap 'echo got > {note}; exit 3' INT; echo up; {gate.passage}", "job",
               compound=False)  # fmt: skip
    wait_until(lambda: printed(daemon, "job") == "up\n", "the trap is set")
    reply = daemon.post("cancel", jid="job", signal="int", wait=True)
    (job,) = reply.json()["d_ret"]["jobs"]
    assert (job["jid"], job["state"]) == ("job", "CANCELED")
    assert note.read_text() == "got\n"
    again = daemon.post("cancel", job=job["job"], signal=signal.SIGINT)
    assert again.json()["d_ret"]["jobs"] == [job]
    assert daemon.post("cancel", jid="nobody").status == 404


def test_a_cancel_of_a_try_in_between(daemon: DaemonProcess) -> None:
    daemon.run("exit 1", "job", retries=5, backoff=60)
    wait_until(lambda: reason(daemon, "job") == "retry", "it waits for its next try")
    reply = daemon.post("cancel", jid="job")
    assert [job["state"] for job in reply.json()["d_ret"]["jobs"]] == ["CANCELED"]
    assert daemon.wait_finished("job") == ["finishedWithError"]
