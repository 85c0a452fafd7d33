"""Events for a caller that is bound to a user, beside a user who runs jobs and one who does not."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until
from token_file import bearer, write_tokens

Meta = dict[str, Any]


def post(daemon: DaemonProcess, token: str, action: str, **meta: Any) -> dict[str, Any]:
    reply = daemon.post(action, dict([bearer(token)]), **meta).json()
    found: dict[str, Any] = reply["d_ret"] if action == "events" else reply
    return found


def run(daemon: DaemonProcess, token: str, jid: str) -> None:
    post(daemon, token, "run", cmd="true", jid=jid, threaded=True)

    def is_told() -> bool:
        page = post(daemon, token, "events", jid=jid, fromStart=True, state=["COMPLETED"])
        return bool(page["events"])

    wait_until(is_told, "the end is told")


@pytest.fixture(params=[0, 4], ids=["alone", "beside bob"])
def bobs_jobs(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
def guarded(new_daemon: NewDaemon, tmp_path: Path) -> DaemonProcess:
    return new_daemon("--enableTokenAuth", "--tokenPath", str(write_tokens(tmp_path)))


def spelled(page: dict[str, Any], begin: int) -> dict[str, Any]:
    """Return a page with names for the numbers that the client knows."""
    names = {begin: "begin", page["firstSeq"]: "first"}
    for n, event in enumerate(page["events"]):
        names.setdefault(event["seq"], f"event {n}")
    return {
        "events": [(event["jid"], event["state"]) for event in page["events"]],
        "next": names.get(page["next"], "another"),
        "firstSeq": names[page["firstSeq"]],
        "gap": page["gap"],
    }


def test_pages_of_alice_are_the_same_with_and_without_bob(
    guarded: DaemonProcess, bobs_jobs: int
) -> None:
    begin = post(guarded, "alice", "events")["next"]
    metas: list[Meta] = [
        {"since": begin},
        {"since": begin, "wait": 0.2},
        {"since": begin, "jid": "b-0"},
        {"fromStart": True},
        {"since": 1},
        {"since": 2**52},
    ]
    bobs_page = post(guarded, "bob", "events", fromStart=True)
    before = [post(guarded, "alice", "events", **meta) for meta in metas]
    for n in range(bobs_jobs):
        run(guarded, "bob", f"b-{n}")
    assert [post(guarded, "alice", "events", **meta) for meta in metas] == before
    assert [page["next"] for page in before[:3]] == [begin] * 3
    run(guarded, "alice", "a")
    for n in range(bobs_jobs):
        run(guarded, "bob", f"b-late-{n}")
    shown = [spelled(post(guarded, "alice", "events", **meta), begin) for meta in metas]
    told = shown[0]["events"]
    last = f"event {len(told) - 1}"
    assert (told[0], told[-1]) == (("a", "NEW"), ("a", "COMPLETED"))
    assert {jid for jid, _ in told} == {"a"}
    all_of_it = {"events": told, "next": last, "firstSeq": "first", "gap": False}
    assert shown == [
        all_of_it,
        all_of_it,
        all_of_it | {"events": [], "next": "another"},  # her own last one, which is not shown
        all_of_it,
        all_of_it | {"gap": True},
        all_of_it | {"gap": True},
    ]
    assert {page["firstSeq"] for page in before} == {bobs_page["firstSeq"]}


def test_restart_and_kill_leave_it_so(guarded: DaemonProcess, bobs_jobs: int) -> None:
    run(guarded, "alice", "a")
    before = post(guarded, "alice", "events", fromStart=True)
    for n in range(bobs_jobs):
        run(guarded, "bob", f"b-{n}")
    guarded.kill()
    guarded.start()
    assert post(guarded, "alice", "events", fromStart=True) == before
    page = post(guarded, "alice", "events", since=before["next"])
    assert (page["events"], page["next"], page["gap"]) == ([], before["next"], False)


def read_stream(daemon: DaemonProcess, token: str, jid: str, **meta: Any) -> list[str]:
    """Return the lines that come up to the end of a job, without heartbeats."""
    document = {"payload": {"action": "events", "meta": {"follow": True, **meta}}}
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    try:
        connection.request("POST", "/api/v1/cmd", json.dumps(document), dict([bearer(token)]))
        reply = connection.getresponse()
        lines = []
        while not lines or f'"{jid}"' not in lines[-1] or "COMPLETED" not in lines[-1]:
            lines.append(reply.readline().decode().rstrip())
        return [line for line in lines if line not in ("", ":")]
    finally:
        connection.close()


def test_stream_of_alice_shows_nothing_of_bob(guarded: DaemonProcess, bobs_jobs: int) -> None:
    for n in range(bobs_jobs):
        run(guarded, "bob", f"b-{n}")
    run(guarded, "alice", "a")
    lines = read_stream(guarded, "alice", "a", fromStart=True)
    events = post(guarded, "alice", "events", fromStart=True)["events"]
    assert lines[0] == "retry: 1000"
    assert [line for line in lines if line.startswith("id")] == [f"id: {e['seq']}" for e in events]
    assert [json.loads(line[6:]) for line in lines if line.startswith("data")] == events
    assert len(lines) == 1 + 3 * len(events)
