"""The clock is set back by an hour between two runs of the daemon."""

from __future__ import annotations

import pytest
from crash_load import SITE, records, returncodes
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until
from gate import Gate
from leftovers import end_shepherds
from probes import job_names

pytestmark = pytest.mark.slow

BACK = {"PYTHONPATH": str(SITE), "CRASH_CLOCK": "-3600"}


def order(daemon: DaemonProcess) -> list[str]:
    """Return the ids of all jobs in the order that replies show them in."""
    by_name = {job["name"]: jid for jid, job in records(daemon.db_path).items()}
    return [by_name[name] for name in job_names(daemon)]


def codes(daemon: DaemonProcess) -> dict[str, list[int | None]]:
    return {jid: returncodes(job) for jid, job in records(daemon.db_path).items()}


@pytest.mark.parametrize("is_shepherd_new", [False, True])
def test_order_and_states_stay(new_daemon: NewDaemon, gate: Gate, is_shepherd_new: bool) -> None:
    first = new_daemon("--DBsavePeriod", "1")
    first.run("exit 3", "a")
    assert first.wait_finished("a") == ["finishedWithError"]
    if not is_shepherd_new:
        first.run(f"{gate.passage} && exit 4; exit 0", "b")
        wait_until(lambda: first.words("b") == ["started"], "it runs")
    assert first.stop() == 0
    if is_shepherd_new:
        end_shepherds(first.db_path)
    expected = ["a"] if is_shepherd_new else ["a", "b"]

    second = new_daemon("--DBsavePeriod", "1", environment=BACK)
    assert order(second) == expected
    for jid, code in (("c", 0), ("d", 5)):
        second.run(f"exit {code}", jid)
        second.wait_finished(jid)
    gate.open()
    if not is_shepherd_new:
        assert second.wait_finished("b") == ["finishedWithError"]
    assert order(second) == [*expected, "c", "d"]
    second.kill()

    third = new_daemon()
    assert order(third) == [*expected, "c", "d"]
    for jid in (*expected, "c", "d"):
        third.wait_finished(jid)
    expected_codes = {"a": [3], "c": [0], "d": [5], **({} if is_shepherd_new else {"b": [4, 0]})}
    wait_until(lambda: codes(third) == expected_codes, "the disk has what replies say")
    found = records(third.db_path)
    assert found["c"]["accepted_at"] < found["a"]["accepted_at"]
    assert third.run("true", "e").json()["status"] is True
    assert third.wait_finished("e") == ["finishedSuccessfully"]
    assert order(third)[-1] == "e"
