"""`list`: filters, pages, and what it refuses."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from action_harness import Harness
from jobdb_builders import finished_job, make_job

from pman.actions.base import ActionRequest
from pman.actions.list import list_jobs
from pman.auth import Caller
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState


def put(pman: Harness, *jobs: Job) -> None:
    for job in jobs:
        pman.store.submit(job, timeout_s=10)


def jids(pman: Harness, **meta: Any) -> list[str]:
    reply = pman.post("list", meta)
    assert (reply.code, reply.json["status"]) == (200, True), reply.json
    return [job["jid"] for job in reply.json["d_ret"]["jobs"]]


def test_no_jobs(pman: Harness) -> None:
    assert pman.post("list", {}).json["d_ret"] == {"jobs": [], "next": None}


def test_newest_first_with_what_is_known_of_each(pman: Harness) -> None:
    put(pman, make_job("a"), finished_job("b", [7]))
    reply = pman.post("list", {}).json["d_ret"]
    newest, oldest = reply["jobs"]
    assert (newest["jid"], newest["state"], newest["exitCode"]) == ("b", "FAILED", 7)
    assert (oldest["jid"], oldest["state"], oldest["status"]) == ("a", "NEW", "notstarted")


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"state": "FAILED"}, ["bad"]),
        ({"state": ["FAILED", "COMPLETED"]}, ["good", "bad"]),
        ({"state": "NEW"}, ["run-2", "run-1"]),
        ({"state": []}, []),
        ({"jid": "good"}, ["good"]),
        ({"jid": "nobody"}, []),
        ({"jidPrefix": "run-"}, ["run-2", "run-1"]),
        ({"jidPrefix": ""}, ["good", "bad", "run-2", "run-1"]),
        ({"auid": "eve"}, ["run-2"]),
        ({"auid": ""}, []),
        ({"auid": "eve", "state": "FAILED"}, []),
        ({"backend": "swarm"}, ["bad"]),
        ({"label": {"team": "blue"}}, ["run-2", "run-1"]),
        ({"label": {"team": "blue", "kind": "x"}}, ["run-2"]),
        ({"label": {}}, ["good", "bad", "run-2", "run-1"]),
        ({"since": 1002.0}, ["good", "bad"]),
        ({"until": 1002.0}, ["run-2", "run-1"]),
        ({"since": 1001.0, "until": 1002.0}, ["run-2"]),
    ],
)
def test_filters(pman: Harness, meta: dict[str, Any], expected: list[str]) -> None:
    put(
        pman,
        make_job("run-1", accepted_at=1000.0, labels={"team": "blue"}),
        make_job("run-2", accepted_at=1001.0, labels={"team": "blue", "kind": "x"}, auid="eve"),
        finished_job("bad", [1], accepted_at=1002.0, backend="swarm"),
        finished_job("good", accepted_at=1003.0),
    )
    assert jids(pman, **meta) == expected


def test_pages_hold_each_job_once_whatever_comes_and_goes(pman: Harness) -> None:
    put(pman, *(make_job(f"job-{n}") for n in range(10)))
    first = pman.post("list", {"limit": 4}).json["d_ret"]
    put(pman, make_job("late"))
    gone = pman.store.find("jid", "job-6")[0]
    pman.store.remove([gone.name])
    second = pman.post("list", {"limit": 4, "cursor": first["next"]}).json["d_ret"]
    third = pman.post("list", {"limit": 4, "cursor": second["next"]}).json["d_ret"]
    pages = [[job["jid"] for job in page["jobs"]] for page in (first, second, third)]
    assert pages == [
        ["job-9", "job-8", "job-7", "job-6"],
        ["job-5", "job-4", "job-3", "job-2"],
        ["job-1", "job-0"],
    ]
    assert third["next"] is None


def test_a_bound_caller_goes_on_and_its_cursor_tells_nothing_of_others(pman: Harness) -> None:
    """Also when the last job of a page has gone meanwhile."""
    for n in range(4):
        put(pman, make_job(f"mine-{n}", auid="alice", accepted_at=1000.0 + n))
        put(pman, *(make_job("theirs", auid="bob") for _ in range(n)))
    context = pman.context.scoped("alice")

    def page(**meta: Any) -> dict[str, Any]:
        asked = ActionRequest({"limit": 2, **meta}, caller=Caller(auid="alice"))
        answer: dict[str, Any] = list_jobs(asked, context).d_ret
        return answer

    first = page()
    assert [job.jid for job in first["jobs"]] == ["mine-3", "mine-2"]
    place = json.loads(base64.urlsafe_b64decode(first["next"] + "=="))
    assert place == [1, first["jobs"][-1].id, 1002.0, 0]
    second = page(cursor=first["next"])
    assert ([job.jid for job in second["jobs"]], second["next"]) == (["mine-1", "mine-0"], None)
    pman.store.remove([first["jobs"][-1].id])
    again = page(cursor=first["next"])
    assert [job.jid for job in again["jobs"]] == ["mine-1", "mine-0"]


def test_a_page_that_is_just_full_has_no_next(pman: Harness) -> None:
    put(pman, make_job("a"), make_job("b"))
    assert pman.post("list", {"limit": 2}).json["d_ret"]["next"] is None


def test_more_open_jobs_than_are_sorted(pman: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pman.jobdb.store.MAX_SORTED", 2)
    put(pman, *(make_job(f"job-{n}", auid="eve") for n in range(4)), finished_job("done"))
    assert jids(pman, state="NEW") == ["job-3", "job-2", "job-1", "job-0"]
    assert jids(pman, auid="eve") == ["job-3", "job-2", "job-1", "job-0"]


def test_a_job_is_shown_as_it_is_now(pman: Harness) -> None:
    job = make_job("a")
    put(pman, job)
    pman.store.observe(Observation(name=job.name, state=JobState.RUNNING))
    pman.store.observe(Observation(name=job.name, progress=0.5, progress_text="half"))
    (shown,) = pman.post("list", {}).json["d_ret"]["jobs"]
    assert (shown["state"], shown["progress"], shown["progressText"]) == ("RUNNING", 0.5, "half")


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"state": "started"}, "state"),
        ({"state": ["NEW", 5]}, "state"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "5"}, "limit"),
        ({"jid": [5]}, "jid"),
        ({"label": {"a": True}}, "label.a"),
        ({"since": "yesterday"}, "since"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": base64.b64encode(b'[2,"a",1.0,5]').decode()}, "cursor"),
        ({"cursor": base64.b64encode(b'[1,"a",1.0,-5]').decode()}, "cursor"),
        ({"cursor": base64.b64encode(b'[1,"a",1.0,5,6]').decode()}, "cursor"),
        ({"cursor": "é"}, "cursor"),
    ],
)
def test_what_is_refused_names_the_field(pman: Harness, meta: dict[str, Any], field: str) -> None:
    reply = pman.post("list", meta)
    assert (reply.code, reply.json["status"]) == (400, False)
    assert reply.error["field"].partition("[")[0] == field
