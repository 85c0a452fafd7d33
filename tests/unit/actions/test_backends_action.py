"""`backends`: where jobs can run."""

from __future__ import annotations

from pathlib import Path

from action_harness import Harness, harness


def test_running_and_waiting_jobs_are_counted(pman: Harness) -> None:
    pman.run("wait", "a")
    pman.run("true", "b")
    answer = pman.post("backends", {}).json
    assert answer["status"] is True
    assert answer["d_ret"] == {
        "backends": [{"name": "host", "state": "ok", "running": 1, "waiting": 0, "limits": {}}]
    }


def test_limits_are_shown(tmp_path: Path) -> None:
    with harness(tmp_path, max_jobs=(("", 5), ("host", 7)), max_jobs_per_auid=2) as pman:
        shown = pman.post("backends", {}).json["d_ret"]["backends"][0]
        assert shown["limits"] == {"jobs": 7, "jobsPerAuid": 2}


def test_a_limit_for_all_backends_is_that_of_each(tmp_path: Path) -> None:
    with harness(tmp_path, max_jobs=(("", 5),)) as pman:
        assert pman.post("backends", {}).json["d_ret"]["backends"][0]["limits"] == {"jobs": 5}
