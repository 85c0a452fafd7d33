"""`DBctl` where the disk, a backend or a client's tree is not as it should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from action_harness import NOW, Harness

from pman.errors import BackendUnavailable
from pman.job.record import Job


@pytest.fixture
def stubborn(pman: Harness, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ids of jobs that the backend or the disk will not let go of."""
    held: set[str] = set()
    real = pman.backend.remove

    def remove(job: Job) -> None:
        if job.jid in held and job.jid.startswith("disk"):
            raise OSError(5, "Input/output error")
        if job.jid in held:
            raise BackendUnavailable("the engine is away")
        real(job)

    monkeypatch.setattr(pman.backend, "remove", remove)
    return held


@pytest.mark.parametrize("do", ["clear", "load"])
def test_what_one_job_has_left_does_not_keep_that_of_others(
    pman: Harness, tmp_path: Path, stubborn: set[str], caplog: pytest.LogCaptureFixture, do: str
) -> None:
    target = tmp_path / "empty"
    pman.post("DBctl", {"do": "save", "dbpath": str(target)})
    for jid in ("disk-1", "a", "engine-2", "b"):
        pman.run(f"echo {jid}", jid=jid)
    jobs = pman.store.jobs()
    stubborn |= {"disk-1", "engine-2"}
    meta = {"do": do} if do == "clear" else {"do": do, "dbpath": str(target)}
    reply = pman.post("DBctl", meta)
    assert (reply.code, reply.json["status"]) == (500, False)
    assert "2 of them" in reply.error["message"]
    assert pman.store.count == 0
    left = [job.jid for job in jobs if pman.context.output.folder(job.name).exists()]
    assert left == ["disk-1", "engine-2"]
    assert "Input/output error" in caplog.text
    assert "the engine is away" in caplog.text
    assert list((pman.context.settings.db_path / "jobs").rglob("*.json")) == []


@pytest.mark.parametrize("inner", ["output/20261123", "jobs", "backends/x", "d_msg.json", "..", ""])
@pytest.mark.parametrize("do", ["save", "clear"])
def test_the_job_db_is_no_target(pman: Harness, tmp_path: Path, do: str, inner: str) -> None:
    pman.run("echo hi")
    (job,) = pman.store.jobs()
    link = tmp_path / "link"
    link.symlink_to(pman.context.settings.db_path)
    target = tmp_path if inner == ".." else link / inner if inner else link
    reply = pman.post("DBctl", {"do": do, "dbpath": str(target)})
    assert (reply.code, reply.error["field"]) == (409, "dbpath")
    assert pman.store.jobs() == [job]
    assert pman.context.output.read_text(job.name, 0, "stdout")


def test_a_loaded_job_is_dated(pman: Harness, tmp_path: Path) -> None:
    target = tmp_path / "export"
    pman.run("echo hi")
    pman.post("DBctl", {"do": "save", "dbpath": str(target)})
    pman.post("DBctl", {"do": "load", "dbpath": str(target)})
    assert [job.imported_at for job in pman.store.jobs()] == [NOW]


def test_a_loaded_job_can_be_shown(pman: Harness, tmp_path: Path) -> None:
    target = tmp_path / "export"
    pman.run("echo hi")
    pman.post("DBctl", {"do": "save", "dbpath": str(target)})
    (name,) = (job.name for job in pman.store.jobs())
    rewrite(target / name / ".record", cmd="\ud800", jid="\udfff", extra={"\ud800": ["\ud800"]})
    assert pman.post("DBctl", {"do": "load", "dbpath": str(target)}).code == 200
    reply = pman.send("GET", f"/api/v1/{name}")
    assert (reply.code, reply.json["GET"][name]["cmd"]) == (200, "?")
    assert pman.post("DBctl", {"do": "save"}).code == 200


def rewrite(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
