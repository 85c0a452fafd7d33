"""Each action: what it needs, what it answers, what it refuses."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from action_harness import Harness, harness
from jobdb_builders import make_job

from pman.actions import ACTIONS
from pman.errors import JobConflict, SnapshotError
from pman.job.observation import Observation
from pman.job.record import Job, local_stamp
from pman.job.spec import JobSpec
from pman.job.state import JobState
from pman.services import writer as writer_module

NEEDS_KEY_AND_VALUE = ("status", "done", "info", "search")


def test_there_is_one_file_per_action() -> None:
    names = (
        "DBctl backends cancel delete done events fileiosetup get hello info list logs quit run"
        " search status wait"
    )
    assert ACTIONS.names() == sorted(names.split())


# --- hello ------------------------------------------------------------------------------------


def test_hello_tells_the_time_of_the_daemon(pman: Harness) -> None:
    from action_harness import NOW

    reply = pman.post("hello", {"askAbout": "timestamp"})
    assert reply.json["d_ret"]["timestamp"] == {"now": local_stamp(NOW)}


@pytest.mark.parametrize("text", ["", "héllo", None, 5, [], {"a": [1]}, True])
def test_hello_gives_back_any_value(pman: Harness, text: Any) -> None:
    reply = pman.post("hello", {"askAbout": "echoBack", "echoBack": text})
    assert (reply.code, reply.json["status"]) == (200, True)
    assert reply.json["d_ret"]["echoBack"] == {"msg": text}


def test_hello_shows_the_route_where_there_is_one(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://pman.example.org"
    assert "route" not in pman.post("hello", {"askAbout": "timestamp"}).json["d_ret"]
    monkeypatch.setattr(type(pman.backend), "route_url", url, raising=False)
    assert pman.post("hello", {"askAbout": "timestamp"}).json["d_ret"]["route"] == url


def test_hello_without_a_text_to_give_back_is_refused(pman: Harness) -> None:
    reply = pman.post("hello", {"askAbout": "echoBack"})
    assert (reply.code, reply.error["field"]) == (400, "echoBack")


@pytest.mark.parametrize("topic", ["weather", "", None, 5, [], {}])
def test_hello_about_something_else_is_false(pman: Harness, topic: Any) -> None:
    reply = pman.post("hello", {"askAbout": topic})
    assert (reply.code, reply.json["status"]) == (200, False)
    assert reply.json["d_ret"] == {"name": "pman", "version": "2.2.4"}


# --- run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["cmd", "auid", "jid"])
def test_run_names_what_is_missing(pman: Harness, key: str) -> None:
    meta = {"cmd": "true", "auid": "t", "jid": "j", "threaded": True}
    del meta[key]
    reply = pman.post("run", meta)
    assert (reply.code, reply.error["field"]) == (400, key)
    assert reply.json["status"] is False
    assert pman.store.count == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cmd", 5),
        ("cmd", None),
        ("cmd", ["true"]),
        ("cmd", "a\0b"),
        ("jid", None),
        ("jid", True),
        ("jid", ["j"]),
        ("auid", {}),
        ("container", "image"),
        ("container", []),
        ("compound", "no"),
        ("idempotent", 1),
    ],
)
def test_run_names_what_is_wrong(pman: Harness, key: str, value: Any) -> None:
    reply = pman.post("run", {"cmd": "true", "auid": "t", "jid": "j", key: value})
    assert (reply.code, reply.error["field"]) == (400, key)
    assert pman.store.count == 0


def test_run_without_threaded_waits_for_the_end(pman: Harness) -> None:
    reply = pman.run("exit 3", threaded=False)
    assert (reply.code, reply.json["status"]) == (200, True)
    assert reply.json["d_ret"]["l_status"] == ["finishedWithError"]
    assert reply.json["d_ret"]["0.end"]["returncode"] == [3]


def test_who_sees_containers_end_does_not_read_their_output(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[str] = []

    def logs(_job: Job) -> list[str]:
        readers.append(threading.current_thread().name)
        return ["text"]

    monkeypatch.setattr(pman.backend, "logs", logs)
    reply = pman.run("exit 3", threaded=False, container={"target": {"image": "x"}})
    assert reply.json["d_ret"]["l_logs"] == ["text"]
    assert [name.partition("_")[0] for name in readers] == ["errand"]


def test_run_threaded_answers_when_the_job_is_durable(pman: Harness) -> None:
    reply = pman.run("wait")
    assert (reply.code, reply.json["status"]) == (200, True)
    assert "d_ret" not in reply.json
    assert pman.store.count == 1


def test_numbers_are_kept_as_text(pman: Harness) -> None:
    pman.run("true", jid=77, auid=5)
    (job,) = pman.store.jobs()
    assert (job.jid, job.auid) == ("77", "5")


def test_the_same_jid_runs_again(pman: Harness) -> None:
    pman.run("true")
    pman.run("true")
    assert len(pman.store.find("jid", "job-1")) == 2


def test_an_idempotent_run_is_answered_with_the_first_job(pman: Harness) -> None:
    pman.run("exit 4", idempotent=True)
    reply = pman.run("exit 5", idempotent=True, threaded=False)
    assert pman.store.count == 1
    assert reply.json["d_ret"]["0.end"]["returncode"] == [4]


def test_an_idempotent_run_is_answered_with_the_first_job_whatever_can_be_run_now(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container job that runs has the name that the second would need."""

    def refuse(_spec: JobSpec) -> None:
        raise JobConflict("serviceName 'x' is taken", field="serviceName")

    pman.run("wait", idempotent=True)
    monkeypatch.setattr(pman.backend, "check", refuse)
    assert pman.run("wait", idempotent=True).code == 200
    assert pman.run("wait").code == 409
    assert pman.store.count == 1


def test_an_idempotent_run_that_another_has_overtaken_is_answered(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = pman.backend.check

    def overtaken(_spec: JobSpec) -> None:
        monkeypatch.setattr(pman.backend, "check", check)
        pman.run("wait", idempotent=True)
        raise JobConflict("serviceName 'x' is taken", field="serviceName")

    monkeypatch.setattr(pman.backend, "check", overtaken)
    assert pman.run("wait", idempotent=True).code == 200
    assert pman.store.count == 1


def test_a_job_that_the_backend_does_not_take_has_failed(pman: Harness) -> None:
    reply = pman.run("refuse")
    assert (reply.code, reply.error["type"]) == (502, "SubmitFailed")
    (job,) = pman.store.jobs()
    assert (job.state.value, job.reason) == ("FAILED", "submit_failed")


def test_a_job_that_conflicts_is_forgotten(pman: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_job: Job) -> None:
        raise JobConflict("serviceName 'x' is taken", field="serviceName")

    monkeypatch.setattr(pman.backend, "submit", refuse)
    reply = pman.run("true", jid="conflict")
    assert (reply.code, reply.error["type"]) == (409, "JobConflict")
    assert pman.store.count == 0


def test_a_container_job_without_a_backend_for_it_says_what_to_do(tmp_path: Path) -> None:
    with harness(tmp_path, container_env="swarm") as pman:
        reply = pman.run("true", container={"target": {"image": "x"}})
        assert (reply.code, reply.error["field"]) == (503, "container")
        assert "swarm" in reply.error["message"]
        assert pman.store.count == 0


def test_host_jobs_can_be_forbidden(tmp_path: Path) -> None:
    with harness(tmp_path, disable_host_jobs=True) as pman:
        reply = pman.run("true")
        assert (reply.code, reply.error["type"]) == (403, "Forbidden")


# --- selection --------------------------------------------------------------------------------


@pytest.mark.parametrize("action", NEEDS_KEY_AND_VALUE)
@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({}, "key"),
        ({"value": "x"}, "key"),
        ({"key": "jid"}, "value"),
        ({"key": 5, "value": 1}, "key"),
    ],
)
def test_key_and_value_are_needed(
    pman: Harness, action: str, meta: dict[str, Any], field: str
) -> None:
    reply = pman.post(action, meta)
    assert (reply.code, reply.error["field"]) == (400, field)


@pytest.mark.parametrize("value", ["other", 77, None, False, [], {}])
def test_no_match_is_an_answer(pman: Harness, value: Any) -> None:
    pman.run("true", jid="77")
    reply = pman.post("status", {"key": "jid", "value": value})
    assert (reply.code, reply.json["status"]) == (200, False)
    assert reply.json["d_ret"]["l_status"] == []


def test_there_is_one_word_per_match(pman: Harness) -> None:
    pman.run("true")
    pman.run("exit 2")
    pman.run("wait")
    reply = pman.post("status", {"key": "auid", "value": "t"})
    words = ["finishedSuccessfully", "finishedWithError", "started"]
    assert reply.json["d_ret"]["l_status"] == words


@pytest.mark.parametrize(
    ("meta", "found"),
    [
        ({}, {"jid": "job-1"}),
        ({"path": "/cmd"}, {"cmd": "echo hi"}),
        ({"path": "/cmd/"}, {"cmd": "echo hi"}),
        ({"path": "/no/such"}, {"no": {"such": False}}),
        ({"job": "0", "field": "stdout"}, {"end": {"0": {"endInfo": {"0": {"stdout": "hi\n"}}}}}),
        (
            {"job": 0, "field": "cmd", "when": "end"},
            {"end": {"0": {"endInfo": {"0": {"cmd": "echo hi"}}}}},
        ),
        ({"field": "stdout"}, {"jid": "job-1"}),
    ],
)
def test_search_looks_below_each_match(pman: Harness, meta: dict[str, Any], found: Any) -> None:
    pman.run("echo hi")
    reply = pman.post("search", {"key": "jid", "value": "job-1", **meta})
    (shown,) = reply.json["d_ret"]["0"].values()
    assert shown == found


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"path": "cmd"}, "path"),
        ({"path": 5}, "path"),
        ({"job": "0"}, "field"),
        ({"job": "0", "field": 5}, "field"),
        ({"job": "0", "field": "cmd", "when": "never"}, "when"),
    ],
)
def test_search_names_what_is_wrong(pman: Harness, meta: dict[str, Any], field: str) -> None:
    pman.run("true")
    reply = pman.post("search", {"key": "jid", "value": "job-1", **meta})
    assert (reply.code, reply.error["field"]) == (400, field)


# --- get --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "_0/jid", 5, None, ["/"]])
def test_get_needs_a_path_with_a_slash(pman: Harness, path: Any) -> None:
    reply = pman.post("get", {"path": path})
    assert (reply.code, reply.error["field"]) == (400, "path")


def test_get_of_an_unknown_job_is_404(pman: Harness) -> None:
    reply = pman.post("get", {"path": "/nosuchjob/jid"})
    assert (reply.code, reply.error["type"]) == (404, "UnknownJob")


# --- delete -----------------------------------------------------------------------------------


def test_delete_ends_and_forgets(pman: Harness) -> None:
    pman.run("wait")
    pman.run("echo hi")
    (_, ended) = pman.store.jobs()
    assert pman.context.output.folder(ended.name).is_dir()
    reply = pman.post("delete", {"value": "job-1"})
    assert (reply.code, reply.json["status"]) == (200, True)
    assert reply.json["d_ret"] == {
        "action": "Delete Job",
        "job_id": "job-1",
        "status": "Job deleted successfully",
    }
    assert pman.store.count == 0
    assert not pman.context.output.folder(ended.name).exists()


def test_delete_of_nothing_is_404(pman: Harness) -> None:
    reply = pman.post("delete", {"value": "job-1"})
    assert (reply.code, reply.json["status"]) == (404, False)
    assert reply.json["d_ret"]["status"] == "Not Found"


def test_delete_answers_who_waits_for_the_job(pman: Harness) -> None:
    pman.run("wait")
    (job,) = pman.store.jobs()
    ended: list[str] = []
    pman.store.when_final(job.name, lambda final: ended.append(final.state.value))
    pman.post("delete", {"value": "job-1"})
    assert ended == ["CANCELED"]


def test_a_job_of_a_backend_that_is_away_is_not_deleted(pman: Harness) -> None:
    job = make_job("away", backend="swarm", state=JobState.RUNNING)
    pman.store.load([job])
    reply = pman.post("delete", {"value": "away"})
    assert (reply.code, reply.error["field"]) == (503, "value")
    assert "'swarm'" in reply.error["message"]
    assert pman.store.count == 1


def test_a_delete_that_fails_says_so(pman: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    pman.run("true")
    monkeypatch.setattr(type(pman.store), "remove", fail)
    reply = pman.post("delete", {"value": "job-1"})
    assert (reply.code, reply.json["status"]) == (500, False)


def test_a_delete_forgets_no_job_whose_end_is_not_durable(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise SnapshotError("no space left")

    monkeypatch.setattr(writer_module, "RETRY_FIRST_S", 0.01)
    pman.run("wait")
    (job,) = pman.store.jobs()
    path = pman.context.output.path(job.name, 0, "stdout")
    path.parent.mkdir(parents=True)
    path.touch()
    with monkeypatch.context() as disk:
        disk.setattr(pman.store._journal._database, "apply", refuse)
        reply = pman.post("delete", {"value": "job-1"})
        assert (reply.code, reply.json["d_ret"]["status"]) == (500, "no space left")
        assert path.exists()
        assert job.name in pman.backend._engine.seen  # the next daemon would be told of its end
        assert [each.state for each in pman.store.jobs()] == [JobState.CANCELED]
    assert pman.post("delete", {"value": "job-1"}).code == 200
    assert not path.exists()
    assert job.name not in pman.backend._engine.seen


# --- DBctl and PUT ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "code", "field"),
    [
        ({}, 400, "do"),
        ({"do": "save", "fileio": "pickle"}, 400, "fileio"),
        ({"do": "save", "dbpath": "relative"}, 400, "dbpath"),
        ({"do": "save", "dbpath": 5}, 400, "dbpath"),
        ({"do": "save", "dbpath": "/a\0b"}, 400, "dbpath"),
        ({"do": "load", "dbpath": "/no/such/folder"}, 404, "dbpath"),
    ],
)
def test_dbctl_names_what_is_wrong(
    pman: Harness, meta: dict[str, Any], code: int, field: str
) -> None:
    reply = pman.post("DBctl", meta)
    assert (reply.code, reply.error["field"]) == (code, field)


def test_saved_jobs_come_back(pman: Harness, tmp_path: Path) -> None:
    target = tmp_path / "export"
    pman.run("echo hi")
    before = pman.send("GET", "/api/v1/_0").json["GET"]
    pman.post("DBctl", {"do": "save", "dbpath": str(target)})
    assert pman.post("DBctl", {"do": "clear"}).json["d_ret"] == {}
    pman.post("DBctl", {"do": "load", "dbpath": str(target)})
    after = pman.send("GET", "/api/v1/_0").json["GET"]
    assert after == before


def test_load_of_a_folder_without_jobs_is_404_and_changes_nothing(
    pman: Harness, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    pman.run("true")
    reply = pman.post("DBctl", {"do": "load", "dbpath": str(tmp_path / "empty")})
    assert (reply.code, reply.error["field"]) == (404, "dbpath")
    assert pman.store.count == 1


def test_load_removes_what_the_replaced_jobs_left(pman: Harness, tmp_path: Path) -> None:
    target = tmp_path / "export"
    pman.post("DBctl", {"do": "save", "dbpath": str(target)})
    pman.run("echo hi")
    (job,) = pman.store.jobs()
    pman.post("DBctl", {"do": "load", "dbpath": str(target)})
    assert pman.store.count == 0
    assert not pman.context.output.folder(job.name).exists()


def test_clear_keeps_what_runs(pman: Harness) -> None:
    pman.run("true", jid="done")
    pman.run("wait", jid="runs")
    reply = pman.post("DBctl", {"do": "clear"})
    assert len(reply.json["d_ret"]) == 1
    assert [job.jid for job in pman.store.jobs()] == ["runs"]


def test_put_exports_the_jobs_that_match(pman: Harness, tmp_path: Path) -> None:
    target = tmp_path / "subset"
    pman.run("true", jid="a")
    pman.run("true", jid="b")
    meta = {"context": "DB", "dbpath": str(target), "key": "jid", "value": "a"}
    reply = pman.send("PUT", body={"payload": {"action": "run", "meta": meta}})
    assert (reply.code, reply.json["status"]) == (200, True)
    assert pman.store.count == 2
    (job, _) = pman.store.jobs()
    assert [entry.name for entry in target.iterdir() if entry.is_dir()] == [job.name]


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"action": "run"}, "meta"),
        ({"action": "run", "meta": {}}, "context"),
        ({"action": "run", "meta": {"context": 5}}, "context"),
        ({"action": "hello", "meta": {}}, "action"),
        ({"action": "quit", "meta": {}}, "action"),
        ({"action": "run", "meta": {"context": "db", "key": "jid"}}, "value"),
        ({"action": "run", "meta": {"context": "db", "key": "jid", "value": "a"}}, "dbpath"),
    ],
)
def test_put_names_what_is_wrong(pman: Harness, payload: Any, field: str) -> None:
    reply = pman.send("PUT", body={"payload": payload})
    assert (reply.code, reply.error["field"]) == (400, field)


# --- the rest ---------------------------------------------------------------------------------


def test_fileiosetup_is_not_carried_out(pman: Harness) -> None:
    reply = pman.post("fileiosetup", {"serveforever": False})
    assert (reply.code, reply.error["type"]) == (501, "NotSupported")


@pytest.mark.parametrize("meta", [{}, {"saveDB": False}, {"when": "now"}])
def test_quit_answers_and_asks_for_the_end(pman: Harness, meta: dict[str, Any]) -> None:
    reply = pman.post("quit", meta)
    assert (reply.code, reply.json["status"], reply.json["d_ret"]) == (200, True, {})
    stopped = pman.context.request_stop.__self__  # type: ignore[attr-defined]
    assert stopped.is_set()


# --- progress ---------------------------------------------------------------------------------


def test_status_shows_progress_where_there_is_some(pman: Harness) -> None:
    job = make_job("told", state=JobState.RUNNING)
    quiet = make_job("told", state=JobState.RUNNING)
    for each in (job, quiet):
        pman.store.submit(each, timeout_s=10)
    asked = {"key": "jid", "value": "told"}
    assert "l_progress" not in pman.post("status", asked).json["d_ret"]
    pman.store.observe(Observation(name=job.name, progress=0.5, progress_text="half"))
    shown = pman.post("status", asked).json["d_ret"]
    assert shown["l_progress"] == [{"share": 0.5, "text": "half"}, None]
    record = pman.send("GET", f"/api/v1/{job.name}/record").json["GET"][job.name]["record"]
    assert (record["progress"], record["progress_text"]) == (0.5, "half")
