"""Defects 33 to 54 of pman 2.2 that concern the host: one test a defect, the number in the name."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until
from gate import Gate
from leftovers import is_running
from probes import assert_refused, job_names, output_of


def codes(daemon: DaemonProcess, jid: str) -> list[int]:
    """Return the exit codes of the parts of the only job with that jid."""
    found: list[int] = daemon.status(jid)["0.end"]["returncode"]
    return found


def test_defect_33_overlapping_jobs_do_not_mix(
    one_listener: DaemonProcess, gate: Gate, tmp_path: Path
) -> None:
    jids = [f"overlap-{n}" for n in range(24)]

    def submit(n: int) -> bool:
        command = f"{gate.passage} && echo out-{n} && echo err-{n} >&2 && exit {n % 5}"
        return bool(one_listener.run(command, jids[n]).json()["status"])

    with ThreadPoolExecutor(24) as threads:
        assert all(threads.map(submit, range(24)))
    for jid in jids:
        wait_until(lambda jid=jid: one_listener.words(jid) == ["started"], f"{jid} runs")
    gate.open(24)
    for n, jid in enumerate(jids):
        word = "finishedWithError" if n % 5 else "finishedSuccessfully"
        assert one_listener.wait_finished(jid) == [word]
        assert codes(one_listener, jid) == [n % 5]
        assert output_of(one_listener, jid) == f"out-{n}\n"
        assert output_of(one_listener, jid, field="stderr") == f"err-{n}\n"


def test_defect_34_compound_job_runs_until_its_last_part_has_ended(
    shared_daemon: DaemonProcess, gate: Gate
) -> None:
    shared_daemon.run(f"true; {gate.passage}; true", "p34")
    wait_until(lambda: codes(shared_daemon, "p34") == [0], "the first part has ended")
    assert shared_daemon.words("p34") == ["started"]
    gate.open()
    assert shared_daemon.wait_finished("p34") == ["finishedSuccessfully"]
    assert codes(shared_daemon, "p34") == [0, 0, 0]


@pytest.mark.parametrize(
    ("cmd", "returned"),
    [("true; false", [0, 1]), ("false; true", [1, 0]), ("true; exit 3; true", [0, 3, 0])],
)
def test_defect_35_every_part_counts(
    shared_daemon: DaemonProcess, cmd: str, returned: list[int]
) -> None:
    jid = f"t35-{cmd}"
    shared_daemon.run(cmd, jid)
    assert shared_daemon.wait_finished(jid) == ["finishedWithError"]
    assert codes(shared_daemon, jid) == returned


@pytest.mark.slow
def test_defect_36_host_job_in_swarm_mode_has_words(new_daemon: NewDaemon, gate: Gate) -> None:
    daemon = new_daemon(container_env="swarm")
    daemon.run(gate.passage, "h")
    assert daemon.words("h") in (["notstarted"], ["started"])
    gate.open()
    assert daemon.wait_finished("h") == ["finishedSuccessfully"]
    reply = daemon.post("status", key="jid", value="h").json()
    assert reply["status"] is True
    assert reply["d_ret"]["l_logs"] is not None


@pytest.mark.parametrize("field", ["cmd", "auid", "jid"])
def test_defect_45_threaded_run_that_cannot_be_done_is_refused(
    shared_daemon: DaemonProcess, field: str
) -> None:
    meta = {"cmd": "true", "auid": "t", "jid": "j45", "threaded": True}
    before = job_names(shared_daemon)
    del meta[field]
    assert_refused(shared_daemon.post("run", **meta), 400, None, field)
    assert_refused(shared_daemon.post("run", threaded=True), 400)
    assert_refused(shared_daemon.post("nosuch", threaded=True), 400, "UnknownAction")
    assert job_names(shared_daemon) == before


@pytest.mark.parametrize(("cmd", "word"), [("true", "Successfully"), ("exit 4", "WithError")])
def test_defect_46_run_that_waits_says_what_became_of_it(
    shared_daemon: DaemonProcess, cmd: str, word: str
) -> None:
    reply = shared_daemon.post("run", cmd=cmd, auid="t", jid=f"n46-{cmd}").json()
    assert reply["status"] is True
    assert reply["d_ret"]["l_status"] == [f"finished{word}"]
    assert reply["d_ret"]["0.end"]["returncode"] == [0 if cmd == "true" else 4]


def test_defect_47_unbalanced_quote_fails(shared_daemon: DaemonProcess) -> None:
    shared_daemon.run("echo 'a", "u47")
    assert shared_daemon.wait_finished("u47") == ["finishedWithError"]
    assert "quote" in output_of(shared_daemon, "u47", field="stderr").lower()


def test_defect_48_output_that_is_not_utf8(shared_daemon: DaemonProcess) -> None:
    shared_daemon.run("printf '\\377ok'", "n48")
    assert shared_daemon.wait_finished("n48") == ["finishedSuccessfully"]
    assert output_of(shared_daemon, "n48") == "\ufffdok"


@pytest.mark.parametrize(
    ("cmd", "printed"),
    [
        ("echo 'a;b'", "a;b\n"),
        ('echo "a;b"', "a;b\n"),
        ("echo a\\;b", "a;b\n"),
        ("for i in 1 2; do echo $i; done", "1\n2\n"),
        ("if true; then echo yes; fi", "yes\n"),
    ],
)
def test_defect_49_only_whole_commands_are_split(
    shared_daemon: DaemonProcess, cmd: str, printed: str
) -> None:
    jid = f"q49-{cmd}"
    shared_daemon.run(cmd, jid)
    assert shared_daemon.wait_finished(jid) == ["finishedSuccessfully"]
    assert codes(shared_daemon, jid) == [0]
    assert output_of(shared_daemon, jid) == printed


def test_defect_50_numeric_auid(shared_daemon: DaemonProcess) -> None:
    assert shared_daemon.run("true", "i50", auid=5).json()["status"] is True
    assert shared_daemon.wait_finished("i50") == ["finishedSuccessfully"]
    found = shared_daemon.post("search", key="auid", value="5").json()
    assert found["status"] is True


def test_defect_51_the_word_utf8_in_a_request(shared_daemon: DaemonProcess) -> None:
    for method, body in (("GET", None), ("POST", '{"payload":{"action":"hello","meta":{}}}')):
        headers = {"Accept-Charset": "UTF-8", "X": "UTF-8 UTF-8"}
        reply = shared_daemon.request(method, "/api/v1/", body, headers)
        envelope = reply.json()  # of as many bytes as Content-Length says
        assert "Accept-Charset: UTF-8\r" in envelope["receivedByServer"]
        assert reply.header("Access-Control-Allow-Origin") is None
    meta = {"askAbout": "echoBack", "echoBack": "UTF-8 é"}
    assert shared_daemon.post("hello", **meta).json()["d_ret"]["echoBack"]["msg"] == "UTF-8 é"


def test_defect_52_search_for_what_is_not_there(shared_daemon: DaemonProcess) -> None:
    shared_daemon.run("true", "s52")
    shared_daemon.wait_finished("s52")
    for action in ("search", "status", "done"):
        reply = shared_daemon.post(action, key="x", value=False).json()
        assert reply["status"] is False
        assert "0" not in reply["d_ret"]
        assert "0.end" not in reply["d_ret"]
    found = {"key": "jid", "value": "s52", "job": "0", "field": "cmd"}
    assert shared_daemon.post("search", **found).json()["status"] is True
    assert_refused(shared_daemon.post("search", **found, when="x"), 400, None, "when")


def test_defect_53_honest_codes(daemon: DaemonProcess) -> None:
    head = daemon.request("HEAD", "/api/v1/")
    assert head.status == 200
    with daemon.connect() as connection:  # nothing follows the head of the reply
        connection.send(
            b"HEAD /api/v1/ HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        connection.read_reply(is_head=True)
        assert connection.read_reply().json()["RESTverb"] == "GET"
    assert_refused(daemon.request("DELETE", "/api/v1/"), 405, "MethodNotAllowed")
    put_quit = '{"payload":{"action":"quit","meta":{}}}'
    assert_refused(daemon.request("PUT", "/api/v1/cmd", put_quit), 400, None, "action")
    assert daemon.is_alive()
    unknown = daemon.post("delete", value="nosuch")
    assert unknown.status == 404
    assert unknown.json()["d_ret"]["status"] == "Not Found"
    daemon.run("true", "d")
    daemon.wait_finished("d")
    deleted = daemon.post("delete", value="d").json()
    assert deleted["status"] is True
    assert deleted["d_ret"]["job_id"] == "d"
    assert job_names(daemon) == []


@pytest.mark.slow
@pytest.mark.parametrize("trap", ["", "trap '' TERM && "])
def test_defect_54_delete_ends_the_whole_group(
    new_daemon: NewDaemon, tmp_path: Path, trap: str
) -> None:
    daemon = new_daemon("--killGrace", "0.5")
    pids = tmp_path / "pids"
    # The children are told by the shell, whose own id comes last.
    command = (
        f"{trap}{{ sleep 600 & echo $! >> {pids}.new; sleep 600 & echo $! >> {pids}.new; "
        f"echo $$ >> {pids}.new; mv {pids}.new {pids}; wait; }}"
    )
    daemon.run(command, "o")
    wait_until(pids.exists, "the job runs")
    processes = [int(line) for line in pids.read_text().split()]
    assert len(processes) == 3
    assert all(is_running(pid) for pid in processes)
    reply = daemon.post("delete", key="jid", value="o")
    assert reply.status == 200
    assert reply.json()["d_ret"]["status"] == "Job deleted successfully"
    wait_until(lambda: not any(is_running(pid) for pid in processes), "all of it has ended")
    assert job_names(daemon) == []
    assert not any((daemon.db_path / "output").rglob("*.stdout"))


def test_replies_of_the_module_are_json(shared_daemon: DaemonProcess) -> None:
    listing = shared_daemon.request("GET", "/api/v1/")
    assert listing.body == json.dumps(listing.json(), indent=4).encode()
