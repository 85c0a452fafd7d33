"""Every recorded exchange of 2.2's host mode, replayed in order against a fresh daemon.

`OVERRULED` is the whole list of differences: which exchange, which line of the design says so, and
what is to be seen instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import golden_replay as golden
import pytest
from daemon_process import DaemonProcess, Reply, wait_until
from golden_replay import Overrule, error_like

ORDER = golden.names("host")

#: The daemon of the first group was ended by `quit`, and so was that of the second.
SECOND_DAEMON = "host-200-run-second-subjob-long"
THIRD_DAEMON = "host-211-get-nonexistent-path-leaks-last-job"


HONEST_CODES = "row 2: always 200 -> honest codes; Replies: status false and error"
NOT_THREADED = "Replies: run without threaded answers true, with states and return codes"
EPOCH_SECONDS = "row 8.2: records also carry UTC epoch seconds"
DELETES = "row 15 and DEFECTS 53: delete says what became of it"
UNKNOWN_JOB = "row 5: GET of an unknown job is 404, GET false; paths are data"
ORDER_STAYS = "DEFECTS 64: the order of jobs stays as it was"

OVERRULED: dict[str, Overrule] = {
    "host-021-status-immediately-after-run": Overrule(
        "row 9.2: the record is there when run is answered, notstarted until it starts",
        values={
            "$.d_ret.l_status": lambda v: v in (["notstarted"], ["started"]),
            "$.d_ret.0.start.startTrigger": lambda v: v in ([], [True]),
        },
    ),
    "host-030-run-not-threaded": Overrule(
        NOT_THREADED,
        values={
            "$.status": True,
            "$.d_ret": lambda v: (
                v["l_status"] == ["finishedSuccessfully"] and v["0.end"]["returncode"] == [0]
            ),
        },
    ),
    "host-032-run-threaded-false": Overrule(
        NOT_THREADED,
        values={
            "$.status": True,
            "$.d_ret": lambda v: v["l_status"] == ["finishedSuccessfully"],
        },
    ),
    "host-040-status-second-subjob-fails": Overrule(
        "row 9.1: finishedSuccessfully only if every part returned 0",
        values={"$.d_ret.l_status": ["finishedWithError"]},
    ),
    "host-057-status-unbalanced-quote": Overrule(
        "row 8.1: unbalanced quotes are FAILED at once with the shell's message",
        values={
            "$.d_ret.l_status": ["finishedWithError"],
            "$.d_ret.0.start.startTrigger": [True],
            "$.d_ret.0.end.returncode": [2],
        },
    ),
    "host-059-run-missing-jid": Overrule(
        "row 4.2: what can be refused at once is refused",
        400,
        {"$.status": False, "$.error": error_like(field="jid")},
    ),
    "host-080-get-job": Overrule(EPOCH_SECONDS, ignore=("$.GET.J0.record",)),
    "host-081-get-job-trailing-slash": Overrule(EPOCH_SECONDS, ignore=("$.GET.J0.record",)),
    "host-089-get-index-0": Overrule(EPOCH_SECONDS, ignore=("$.GET.J0.record",)),
    "host-111-get-action-job": Overrule(EPOCH_SECONDS, ignore=("$.d_ret.J1.record",)),
    "host-103-get-parent-dots": Overrule(
        UNKNOWN_JOB,
        404,
        {"$.status": False, "$.GET": False, "$.error": error_like(type="UnknownJob")},
    ),
    "host-123-delete": Overrule(
        DELETES,
        values={
            "$.status": True,
            "$.d_ret": {
                "action": "Delete Job",
                "job_id": "job-1",
                "status": "Job deleted successfully",
            },
        },
    ),
    "host-124-delete-threaded": Overrule(
        DELETES + " (it is gone already)",
        404,
        {"$.status": False, "$.d_ret": lambda v: v["status"] == "Not Found"},
    ),
    "host-133-PUT-other-action": Overrule(
        HONEST_CODES, 400, {"$.error": error_like(field="action")}
    ),
    "host-134-PUT-quit": Overrule(
        HONEST_CODES + "; DEFECTS 53: PUT quit said true and did not quit",
        400,
        {"$.status": False, "$.error": error_like(field="action")},
    ),
    "host-135-PUT-empty-body": Overrule(HONEST_CODES, 400, {"$.error": error_like(field="body")}),
    "host-136-POST-empty-body": Overrule(HONEST_CODES, 400, {"$.error": error_like(field="body")}),
    "host-137-POST-no-body-no-length": Overrule(
        HONEST_CODES, 400, {"$.error": error_like(field="body")}
    ),
    "host-138-POST-json-followed-by-newline": Overrule(
        "row 3: body by framing, any layout",
        values={
            "$.status": True,
            "$.action": "hello",
            "$.client_json_payload": lambda v: v.endswith("}\n"),
            "$.client_json_len": lambda v: v > 0,
            "$.payloadsize": lambda v: v > 0,
            "$.meta": {"askAbout": "timestamp"},
            "$.d_ret": lambda v: v["name"] == "pman",
        },
    ),
    "host-139-HEAD": Overrule("row 2: HEAD has no body", body=False),
    "host-141-DELETE": Overrule(
        "row 3: the rest is 405", 405, {"$.error": error_like(type="MethodNotAllowed")}
    ),
    "host-142-DELETE-with-body": Overrule(
        "row 3: the rest is 405", 405, {"$.error": error_like(type="MethodNotAllowed")}
    ),
    "host-143-lowercase-verb": Overrule(
        "row 3: the rest is 405; row 1: what is no request is answered by the front",
        405,
        {"$.error": error_like(type="MethodNotAllowed")},
        ignore=("$.receivedByServer", "$.client_json_payload", "$.client_json_len", "$.RESTheader"),
    ),
    "host-145-echo-raw-utf8-body": Overrule(
        "row 2: UTF-8 in the text breaks the reply -> correct JSON and lengths",
        values={"$.d_ret": lambda v: v["echoBack"] == {"msg": "héllo UTF-8"}},
        ignore=("$",),
    ),
    "host-151-get-root-after-PUT-key-value": Overrule(
        "row 6: PUT save with key and value exports the subset, changes nothing",
        values={"$.GET": lambda v: len(v) == 15},
    ),
    "host-152-DBctl-load": Overrule(
        ORDER_STAYS, values={"$.d_ret": {f"J{n}": {} for n in range(16)}}
    ),
    "host-154-get-root-after-load": Overrule(
        ORDER_STAYS, values={"$.GET": {f"J{n}": {} for n in range(16)}}
    ),
    "host-155-DBctl-load-no-such-dir": Overrule(
        "row 4.7: load of nothing is 404",
        404,
        {"$.status": False, "$.error": error_like(field="dbpath")},
        ignore=("$.d_ret",),
    ),
    "host-201-status-while-second-subjob-runs": Overrule(
        "row 9.1: started until the last part has ended",
        values={"$.d_ret.l_status": ["started"]},
    ),
    "host-204-status-when-all-done": Overrule(
        "row 9.1: finishedSuccessfully only if every part returned 0",
        values={"$.d_ret.l_status": ["finishedWithError"]},
    ),
    "host-206-search-cd-then-pwd": Overrule(
        "row 8.1 keeps the rule; what pwd prints is where the daemon was started",
        values={
            f"$.d_ret.0.J1.end.{epoch}.endInfo.1.stdout": lambda v: v.endswith("/second\n")
            for epoch in (1, 2, 3)
        },
    ),
    "host-211-get-nonexistent-path-leaks-last-job": Overrule(
        UNKNOWN_JOB,
        404,
        {"$.status": False, "$.GET": False, "$.error": error_like(type="UnknownJob")},
    ),
}


class Replay:
    """Two daemons in a row, and the names of jobs on both sides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon = DaemonProcess(folder / "first", "--listeners", "12").start()
        self.ours: list[str] = []
        self.exports = folder / "exports"
        self.exports.mkdir()
        listing = golden.load("host-070-get-root")["raw_response"]
        self.first_recorded = sorted(set(golden.JOB_NAME.findall(listing)))

    def use_another_daemon(self, folder: str) -> None:
        self.daemon.kill()
        self.daemon = DaemonProcess(self.folder / folder, "--listeners", "12").start()
        self.ours = []

    def recorded_jobs(self, name: str) -> list[str]:
        if name < SECOND_DAEMON:
            return self.first_recorded
        found: set[str] = set()
        for other in ORDER[ORDER.index(SECOND_DAEMON) :]:
            found |= set(golden.JOB_NAME.findall(json.dumps(golden.load(other))))
        return sorted(found)

    def our_jobs(self) -> list[str]:
        """Return our job names in order; names that have been seen stay known."""
        listing = self.daemon.request("GET", "/api/v1/").json()["GET"]
        self.ours = sorted({*self.ours, *listing}) if self.ours else sorted(listing)
        return self.ours

    def send(self, name: str) -> Reply:
        exchange = golden.load(name)
        request = exchange["request"]
        ours = self.our_jobs()
        for theirs, our in zip(self.recorded_jobs(name), ours, strict=False):
            request["path"] = request["path"].replace(theirs, our)
            if request["body"]:
                request["body"] = request["body"].replace(theirs, our)
        body = request["body"]
        if body:
            body = body.replace('"/tmp/', f'"{self.exports}/')
        with self.daemon.connect() as connection:
            connection.send(golden.request_bytes(exchange, body))
            return connection.read_reply(is_head=request["method"] == "HEAD")

    def normal(self, text: str, names: list[str]) -> Any:
        for n, job in enumerate(names):
            text = text.replace(job, f"J{n}")
        return json.loads(text.replace(str(self.exports), "/tmp"))


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    started = Replay(tmp_path_factory.mktemp("golden"))
    yield started
    started.daemon.kill()


def _wait_before(replay: Replay, name: str) -> None:
    """Bring the jobs to where they were when the exchange was recorded."""
    daemon = replay.daemon
    if name in ("host-021-status-immediately-after-run", "host-210-quit-saveDB"):
        return
    if "host-022" <= name < "host-025":
        wait_until(lambda: daemon.words("job-1") == ["started"], "job-1 runs")
    elif "host-201" <= name < "host-204":
        wait_until(
            lambda: daemon.status("prem")["0.end"]["returncode"] == [0], "the first part has ended"
        )
    else:
        for word in ("tester", "t"):
            wait_until(
                lambda word=word: all(
                    "finished" in w
                    for w in daemon.post("status", key="auid", value=word).json()["d_ret"][
                        "l_status"
                    ]
                ),
                "every job has ended",
            )


@pytest.mark.parametrize("name", ORDER)
def test_reply_is_like_the_recorded_one(replay: Replay, name: str) -> None:
    if name == SECOND_DAEMON:
        replay.use_another_daemon("second")
    elif name == THIRD_DAEMON:
        replay.use_another_daemon("third")
        replay.daemon.run("echo A", "k")  # whose data 2.2 gave away
    _wait_before(replay, name)
    reply = replay.send(name)
    overrule = OVERRULED.get(name, Overrule(""))
    assert reply.status == overrule.status, reply.body
    assert [n for n, _ in reply.headers[:2]] == ["Content-Length", "Content-Type"]
    assert reply.header("content-type") == "application/html"
    if not overrule.body:
        assert reply.body == b""
        return
    assert reply.body.isascii()
    exchange = golden.load(name)
    if "quit" in exchange["name"] and "PUT" not in exchange["name"]:
        assert replay.daemon.process is not None
        assert replay.daemon.process.wait(30) == 0
        ours = replay.normal(reply.body.decode(), [])
    else:
        ours = replay.normal(reply.body.decode(), replay.our_jobs())
    overrule.check_values(ours)
    if "$" in overrule.ignore:
        return
    text = exchange["raw_response"].split("\r\n\r\n", 1)[1]
    for n, job in enumerate(replay.recorded_jobs(name)):
        text = text.replace(job, f"J{n}")
    theirs = json.loads(text)
    golden.compare(
        _without_lengths(ours, theirs),
        theirs,
        ignore=frozenset({*overrule.ignore, *overrule.values}),
    )


def _without_lengths(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Take over recorded lengths where only the length of a replaced path made the difference."""
    if "/tmp/" not in json.dumps(theirs.get("client_json_payload", "")):
        return ours
    for key in ("client_json_len", "payloadsize"):
        ours[key] = theirs[key]
    lines = zip(ours["receivedByServer"], theirs["receivedByServer"], strict=True)
    ours["receivedByServer"] = [
        their if our.startswith("Content-Length: ") else our for our, their in lines
    ]
    return ours


def test_every_overruled_exchange_exists() -> None:
    assert set(OVERRULED) <= set(ORDER)
    assert all(overrule.line for overrule in OVERRULED.values())
