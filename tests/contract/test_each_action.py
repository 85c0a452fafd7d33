"""What the actions beyond 2.2 promise, held on every backend alike, with real engines."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_until
from places import (
    DEADLINE_S,
    Place,
    ask,
    job_of,
    lines_of,
    wait_ended,
    wait_for,
    wait_running,
)

FLAGS = ("--callbackHosts", "127.0.0.1:*")


@pytest.fixture(scope="module")
def pman(place: Place) -> DaemonProcess:
    """A daemon that the tests of one backend share."""
    return place.start(*FLAGS, name=f"pman-{place.name}")


def stream(daemon: DaemonProcess, action: str, **meta: Any) -> bytes:
    """Return the whole body of a reply that is made while it is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=DEADLINE_S)
    document = {"payload": {"action": action, "meta": meta}}
    connection.request("POST", "/api/v1/cmd", json.dumps(document))
    with connection.getresponse() as response:
        assert response.status == 200
        return response.read()


def states_of(events: list[dict[str, Any]], jid: str) -> list[str]:
    return [each["state"] for each in events if each["jid"] == jid and each["kind"] == "state"]


# --- cancel, wait, list -----------------------------------------------------------------------


def test_cancel_ends_a_job_and_keeps_its_record(place: Place, pman: DaemonProcess) -> None:
    jid = place.run(pman, "sleep 300")
    wait_running(pman, jid)
    said = ask(pman, "cancel", jid=jid, grace=1)
    assert [job["jid"] for job in said["jobs"]] == [jid]
    (job,) = wait_ended(pman, jid)
    assert (job["state"], job["reason"]) == ("CANCELED", "canceled")
    revision = job_of(pman, jid)
    assert ask(pman, "cancel", jid=jid)["jobs"][0]["state"] == "CANCELED"
    assert job_of(pman, jid) == revision


def test_a_second_cancel_ends_a_job_sooner(place: Place) -> None:
    """Given a job that does not listen and has an hour, when it is canceled with no time at all."""
    pman = place.start("--killGrace", "600", name=f"twice-{place.name}")
    jid = place.run(pman, "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    wait_until(lambda: ask(pman, "logs", jid=jid, stream="stdout")["records"], "its word")
    ask(pman, "cancel", jid=jid, grace=3600)
    assert ask(pman, "wait", jid=jid, timeout=3)["isDone"] is False
    ask(pman, "cancel", jid=jid, grace=0)
    (job,) = wait_ended(pman, jid)
    assert (job["state"], job["reason"]) == ("CANCELED", "canceled")
    (record,) = ask(pman, "logs", jid=jid, stream="stdout")["records"]
    assert record["text"] == "deaf\n"


def test_a_cancel_keeps_its_grace_when_pman_is_killed(place: Place) -> None:
    """The next daemon waits as long as was asked for, and no --killGrace; a second cancel counts.

    A pod never has more than the --killGrace of its beginning, whoever asks.
    """
    pman = place.start("--killGrace", "600", name=f"killed-{place.name}")
    jid = place.run(pman, "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    wait_until(lambda: ask(pman, "logs", jid=jid, stream="stdout")["records"], "its word")
    ask(pman, "cancel", jid=jid, grace=3600)
    pman.kill()
    pman = place.start("--killGrace", "0.1", name=f"killed-{place.name}")
    assert ask(pman, "wait", jid=jid, timeout=4)["isDone"] is False
    assert job_of(pman, jid)["reason"] == "canceling"
    ask(pman, "cancel", jid=jid, grace=0)
    (job,) = wait_ended(pman, jid)
    assert (job["state"], job["reason"]) == ("CANCELED", "canceled")


def test_wait_for_any_and_for_all(place: Place, pman: DaemonProcess) -> None:
    gate = place.gate()
    slow = place.run(pman, gate.passage)
    fast = place.run(pman, "exit 3")
    said = ask(pman, "wait", jid=[slow, fast], mode="any", timeout=DEADLINE_S)
    assert said["isDone"] is True
    assert {job["jid"]: job["exitCode"] for job in said["jobs"]}[fast] == 3
    assert ask(pman, "wait", jid=[slow, fast], timeout=0)["isDone"] is False
    gate.open()
    assert [job["state"] for job in wait_ended(pman, slow, fast)] == ["COMPLETED", "FAILED"]


def test_list_finds_jobs_by_label_state_and_prefix(place: Place, pman: DaemonProcess) -> None:
    mark = uuid.uuid4().hex[:8]
    jids = [
        place.run(pman, f"exit {code}", jid=f"{mark}-{code}", labels={"mark": mark})
        for code in (0, 1)
    ]
    wait_ended(pman, *jids)
    by_label = ask(pman, "list", label={"mark": mark})["jobs"]
    assert [job["jid"] for job in by_label] == jids[::-1]
    assert [job["backend"] for job in by_label] == [place.name] * 2
    failed = ask(pman, "list", jidPrefix=mark, state="FAILED")["jobs"]
    assert [(job["jid"], job["exitCode"]) for job in failed] == [(jids[1], 1)]
    page = ask(pman, "list", jidPrefix=mark, limit=1)
    rest = ask(pman, "list", jidPrefix=mark, limit=1, cursor=page["next"])
    assert [page["jobs"][0]["jid"], rest["jobs"][0]["jid"]] == jids[::-1]


# --- logs -------------------------------------------------------------------------------------


def test_logs_of_an_ended_job_by_offset_and_tail(place: Place, pman: DaemonProcess) -> None:
    jid = place.run(pman, "for n in 1 2 3 4 5; do echo line $n; done")
    wait_ended(pman, jid)
    whole = "".join(f"line {n}\n" for n in range(1, 6))
    (record,) = ask(pman, "logs", jid=jid, stream="stdout")["records"]
    assert (record["text"], record["offset"], record["next"]) == (whole, 0, len(whole))
    (record,) = ask(pman, "logs", jid=jid, stream="stdout", part=0, offset=7)["records"]
    assert record["text"] == whole[7:]
    (record,) = ask(pman, "logs", jid=jid, stream="stdout", tailLines=2)["records"]
    assert (record["text"], record["offset"]) == (whole[-14:], len(whole) - 14)


def test_both_streams_and_one_of_them(place: Place, pman: DaemonProcess) -> None:
    """Given a backend that can't tell stderr, it is refused: none is not what was printed."""
    jid = place.run(pman, "echo out; echo err >&2")
    wait_ended(pman, jid)
    said = {
        stream: "".join(
            record["text"]
            for record in ask(pman, "logs", jid=jid, stream=stream)["records"]
            if record["stream"] == stream
        )
        for stream in ("stdout", "stderr")
        if (stream, place.name) != ("stderr", "openshift")
    }
    both = ask(pman, "logs", jid=jid, stream="both")["records"]
    texts = sorted(line for record in both for line in record["text"].splitlines())
    assert texts == ["err", "out"]
    if place.name != "openshift":
        assert said == {"stdout": "out\n", "stderr": "err\n"}
        return
    assert sorted(said["stdout"].splitlines()) == ["err", "out"]
    for more in ({}, {"tailLines": 1}, {"follow": True}, {"raw": True, "part": 0}):
        reply = pman.post("logs", jid=jid, stream="stderr", **more)
        error = reply.json()["error"]
        assert (reply.status, error["field"]) == (400, "stream")
        assert "stream is 'stderr', expected 'both' or 'stdout'" in error["message"]


@pytest.mark.parametrize("how", ["document", "raw", "follow"])
def test_the_tail_of_a_job_that_runs_and_that_nobody_has_read(
    place: Place, pman: DaemonProcess, how: str
) -> None:
    gate = place.gate()
    said = f"{place.share}/said-{uuid.uuid4().hex[:8]}"
    script = f"i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; echo > {said}"
    jid = place.run(pman, f"{script}; {gate.passage}")
    wait_running(pman, jid)
    path = place.folder / said.rpartition("/")[2]
    wait_until(path.exists, "all lines", DEADLINE_S)
    wanted = {"jid": jid, "stream": "stdout", "tailLines": 2}
    last = "line 998\nline 999\n"
    if how == "document":
        (record,) = ask(pman, "logs", **wanted)["records"]
        assert record["text"] == last
        (record,) = ask(pman, "logs", jid=jid, stream="stdout", tailBytes=4)["records"]
        assert record["text"] == "999\n"
        gate.open()
    elif how == "raw":
        assert stream(pman, "logs", part=0, raw=True, **wanted).decode() == last
        gate.open()
    else:
        gate.open()
        *records, end = lines_of(stream(pman, "logs", follow=True, **wanted))
        assert "".join(each["text"] for each in records) == last
        assert end["end"] is True
    wait_ended(pman, jid)


def test_a_log_is_followed_to_its_end(place: Place, pman: DaemonProcess) -> None:
    """What is there, what comes while it is followed, and the end; each byte once."""
    gate = place.gate()
    jid = place.run(pman, f"echo first; {gate.passage}; echo second; exit 4")
    wait_running(pman, jid)
    bodies: list[bytes] = []
    follower = threading.Thread(
        target=lambda: bodies.append(stream(pman, "logs", jid=jid, stream="stdout", follow=True))
    )
    follower.start()

    def has_first() -> bool:
        records = ask(pman, "logs", jid=jid, stream="stdout")["records"]
        return "".join(each["text"] for each in records) == "first\n"

    wait_until(has_first, "what it has printed so far", DEADLINE_S)
    gate.open()
    follower.join(DEADLINE_S)
    *records, end = lines_of(bodies[0])
    assert "".join(each["text"] for each in records) == "first\nsecond\n"
    assert (end["end"], end["state"], end["exitCode"]) == (True, "FAILED", 4)


def test_a_reader_that_resumes_by_its_cursor_gets_each_byte_once(
    place: Place, pman: DaemonProcess
) -> None:
    gate = place.gate()
    jid = place.run(pman, f"echo before; {gate.passage}; echo after")
    wait_running(pman, jid)
    texts: list[str] = []

    def read(cursor: str | None) -> str:
        more = {} if cursor is None else {"cursor": cursor}
        said = ask(pman, "logs", jid=jid, stream="stdout", **more)
        texts.extend(each["text"] for each in said["records"])
        return str(said["cursor"])

    cursor = wait_until(lambda: (here := read(None)) if not texts else here, "output", DEADLINE_S)
    gate.open()
    wait_ended(pman, jid)
    read(cursor)
    assert "".join(texts) == "before\nafter\n"


# --- events -----------------------------------------------------------------------------------


def test_events_tell_each_change_once_and_in_order(place: Place, pman: DaemonProcess) -> None:
    start = ask(pman, "events")["next"]
    jid = place.run(pman, "exit 5")
    wait_ended(pman, jid)
    seen: list[dict[str, Any]] = []
    since = start

    def has_end() -> bool:
        nonlocal since
        said = ask(pman, "events", since=since, jid=jid, wait=5)
        seen.extend(said["events"])
        since = said["next"]
        return bool(seen) and seen[-1]["state"] == "FAILED"

    wait_until(has_end, "the event of the end", DEADLINE_S)
    states = states_of(seen, jid)
    assert states[0] == "NEW"
    assert states[-1] == "FAILED"
    assert states == sorted(states, key=["NEW", "QUEUED", "RUNNING", "FAILED"].index)
    assert len(set(states)) == len(states)
    numbers = [each["seq"] for each in seen]
    assert numbers == sorted(set(numbers))
    assert seen[-1]["exitCode"] == 5
    again = ask(pman, "events", since=start, jid=jid)["events"]
    assert again == seen


# --- run in full ------------------------------------------------------------------------------


def test_environment_and_working_directory(place: Place, pman: DaemonProcess) -> None:
    jid = place.run(pman, 'echo "$WORD in $PWD"', env={"WORD": "a; b"}, cwd="/tmp")
    wait_ended(pman, jid)
    (record,) = ask(pman, "logs", jid=jid, stream="stdout")["records"]
    assert record["text"] == "a; b in /tmp\n"


def test_arguments_are_passed_as_they_are(place: Place, pman: DaemonProcess) -> None:
    words = ["printf", "<%s>", "a b", "$HOME", "'", ";", ""]
    jid = place.run(pman, "", argv=words)
    (job,) = wait_ended(pman, jid)
    assert job["state"] == "COMPLETED", job
    (record,) = ask(pman, "logs", jid=jid, stream="stdout")["records"]
    assert record["text"] == "<a b><$HOME><'><;><>"


def test_stdin_or_a_refusal_that_names_it(place: Place, pman: DaemonProcess) -> None:
    reply = place.try_to_run(pman, "cat", jid="stdin", stdin="hello\n")
    if place.name == "host":
        wait_ended(pman, "stdin")
        (record,) = ask(pman, "logs", jid="stdin", stream="stdout")["records"]
        assert record["text"] == "hello\n"
    else:
        assert (reply.status, reply.json()["error"]["field"]) == (400, "stdin")
        assert ask(pman, "list", jid="stdin")["jobs"] == []


def test_a_job_that_runs_too_long(place: Place, pman: DaemonProcess) -> None:
    jid = place.run(pman, "sleep 300", timeout=1)
    (job,) = wait_ended(pman, jid)
    assert (job["state"], job["reason"]) == ("FAILED", "deadline_exceeded")
    assert job["endedAt"] - job["startedAt"] >= 1


def test_a_job_that_fails_is_tried_again(place: Place, pman: DaemonProcess) -> None:
    mark = uuid.uuid4().hex[:8]
    count = f"{place.share}/tries-{mark}"
    script = f'echo x >> {count}; echo "try $(wc -l < {count})"; [ "$(wc -l < {count})" -ge 3 ]'
    jid = place.run(pman, script, retries=5, backoff=0.1)
    (job,) = wait_ended(pman, jid)
    assert (job["state"], job["attempt"], job["exitCode"]) == ("COMPLETED", 3, 0)
    texts = [
        ask(pman, "logs", jid=jid, stream="stdout", attempt=n)["records"][0]["text"].split()
        for n in (1, 2, 3)
    ]
    assert texts == [["try", "1"], ["try", "2"], ["try", "3"]]


def test_a_job_that_goes_on_failing_ends(place: Place, pman: DaemonProcess) -> None:
    jid = place.run(pman, "exit 6", retries=1, backoff=0.1)
    (job,) = wait_ended(pman, jid)
    assert (job["state"], job["attempt"], job["exitCode"]) == ("FAILED", 2, 6)


def test_a_job_waits_for_others(place: Place, pman: DaemonProcess) -> None:
    gate = place.gate()
    first = place.run(pman, gate.passage)
    second = place.run(pman, "true", after=[first])
    third = place.run(pman, "true", after=[second, first])
    job = job_of(pman, second)
    assert (job["state"], job["hold"]) == ("QUEUED", "after")
    gate.open()
    jobs = wait_ended(pman, first, second, third)
    assert [job["state"] for job in jobs] == ["COMPLETED"] * 3
    assert jobs[0]["endedAt"] <= jobs[1]["startedAt"]
    assert jobs[1]["endedAt"] <= jobs[2]["startedAt"]


def test_a_job_that_waits_for_one_that_fails_fails(place: Place, pman: DaemonProcess) -> None:
    first = place.run(pman, "exit 1")
    second = place.run(pman, "true", after=[first])
    (job,) = wait_ended(pman, second)
    assert (job["state"], job["reason"]) == ("FAILED", "dependency_failed")
    assert first in job["message"]
    assert job["startedAt"] is None


def test_a_dry_run_makes_nothing(place: Place, pman: DaemonProcess) -> None:
    reply = place.try_to_run(pman, "true", jid="dry", dryRun=True)
    assert reply.status == 200
    said = reply.json()["d_ret"]
    assert said["backend"] == place.name
    assert said["dryRun"]
    assert ask(pman, "list", jid="dry")["jobs"] == []


def test_jobs_over_the_limit_wait_and_the_urgent_go_first(place: Place) -> None:
    pman = place.start("--maxJobs", "1", name=f"limited-{place.name}")
    gate = place.gate()
    first = place.run(pman, gate.passage)
    later = place.run(pman, "true")
    urgent = place.run(pman, "true", priority=5)
    job = job_of(pman, later)
    assert (job["state"], job["hold"], job["status"]) == ("QUEUED", "limit", "notstarted")
    gate.open()
    jobs = wait_ended(pman, first, urgent, later)
    assert [job["state"] for job in jobs] == ["COMPLETED"] * 3
    assert jobs[0]["endedAt"] <= jobs[1]["startedAt"]
    assert jobs[1]["endedAt"] <= jobs[2]["startedAt"]


def test_a_job_that_waits_too_long_for_its_start_fails(place: Place) -> None:
    pman = place.start("--maxJobs", "1", name=f"pending-{place.name}")
    gate = place.gate()
    first = place.run(pman, gate.passage)
    second = place.run(pman, "true", pendingTimeout=0.5)
    (job,) = wait_ended(pman, second)
    assert (job["state"], job["reason"]) == ("FAILED", "pending_timeout")
    gate.open()
    wait_ended(pman, first)


# --- progress and callbacks -------------------------------------------------------------------


def test_progress_is_shown_while_a_job_runs(place: Place, pman: DaemonProcess) -> None:
    gate = place.gate()
    jid = place.run(
        pman, f"echo ::progress 0.25 a quarter; {gate.passage}; echo ::progress 1 all done"
    )
    job = wait_for(pman, jid, lambda job: job["progress"] is not None, "it says how far it is")
    assert (job["state"], job["progress"], job["progressText"]) == ("RUNNING", 0.25, "a quarter")
    gate.open()
    (job,) = wait_ended(pman, jid)
    assert (job["progress"], job["progressText"]) == (1.0, "all done")
    events = ask(pman, "events", jid=jid, fromStart=True, kind="progress", wait=10)["events"]
    assert events[0]["progress"] == 0.25


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what it gets."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.headers["webhook-id"], json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[http.server.HTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.got = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_end_is_called_back(place: Place, pman: DaemonProcess, receiver: Any) -> None:
    url = f"http://127.0.0.1:{receiver.server_address[1]}/done"
    jid = place.run(pman, "exit 2", callback=url)
    wait_until(lambda: receiver.got, "the callback", DEADLINE_S)
    ((_, said),) = receiver.got
    assert said["type"] == "job.ended"
    assert (said["data"]["jid"], said["data"]["state"], said["data"]["exitCode"]) == (
        jid,
        "FAILED",
        2,
    )
