"""`wait`: answers at an end, at once, or after a time; leaves nothing behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from action_harness import Answer, Harness
from jobdb_builders import DEADLINE_S, finished_job, make_job

from pman.actions import SMALL_BODY_BYTES
from pman.actions._ends import FEW_JOBS
from pman.envelope import MAX_ECHO_LENGTH
from pman.http.deferred import GIVEN_UP, Deferred
from pman.http.message import Request, Response
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb.jobview import JobView, job_view
from pman.services.timers import Timers
from pman.wire import dumps


class Asked:
    """One request that may be answered later."""

    def __init__(self, pman: Harness, request: Request | None = None, **meta: Any) -> None:
        body = dumps({"payload": {"action": "wait", "meta": meta}})
        self._done = threading.Event()
        self._response: Response | None = None
        answered = pman.dispatcher.handle(request or Request("POST", "/api/v1/cmd", body=body))
        self._deferred = answered if isinstance(answered, Deferred) else None
        if isinstance(answered, Deferred):
            answered.on_done(self._take)
        else:
            self._take(answered)

    @property
    def is_answered(self) -> bool:
        return self._done.is_set()

    @property
    def response(self) -> Response | None:
        return self._response

    def give_up(self) -> None:
        assert self._deferred is not None
        self._deferred.give_up()

    def answer(self) -> Answer:
        assert self._done.wait(DEADLINE_S), "no answer"
        assert self._response is not None
        return Answer(self._response)

    def _take(self, response: Response) -> None:
        assert self._response is None, "answered twice"
        self._response = response
        self._done.set()


def put(pman: Harness, *jobs: Job) -> list[Job]:
    for job in jobs:
        pman.store.submit(job, timeout_s=10)
    return list(jobs)


def end(pman: Harness, job: Job, state: JobState = JobState.COMPLETED) -> None:
    pman.store.observe(Observation(name=job.name, state=state, reason="ok", exit_code=0))


def waiters(pman: Harness) -> int:
    return sum(map(len, pman.store._waiters.values()))


def timers_of(pman: Harness) -> list[Any]:
    assert isinstance(pman.context.timers, Timers)
    return pman.context.timers._heap


def test_a_job_that_has_ended_is_answered_at_once(pman: Harness) -> None:
    put(pman, finished_job("a", [3]))
    reply = Asked(pman, jid="a").answer()
    assert (reply.code, reply.json["status"]) == (200, True)
    assert reply.json["d_ret"]["isDone"] is True
    assert reply.json["d_ret"]["jobs"][0]["exitCode"] == 3


def test_the_answer_comes_with_the_end(pman: Harness) -> None:
    (job,) = put(pman, make_job("a"))
    asked = Asked(pman, jid="a")
    assert not asked.is_answered
    end(pman, job)
    assert asked.is_answered
    assert asked.answer().json["d_ret"]["jobs"][0]["state"] == "COMPLETED"
    assert waiters(pman) == 0


def test_all_waits_for_the_last(pman: Harness) -> None:
    first, second = put(pman, make_job("a"), make_job("b"))
    asked = Asked(pman, jid=["a", "b"])
    end(pman, second)
    assert not asked.is_answered
    end(pman, first, JobState.FAILED)
    states = [job["state"] for job in asked.answer().json["d_ret"]["jobs"]]
    assert states == ["FAILED", "COMPLETED"]


def test_any_waits_for_the_first_and_lets_go_of_the_others(pman: Harness) -> None:
    _, second = put(pman, make_job("a"), make_job("b"))
    asked = Asked(pman, jid=["a", "b"], mode="any")
    assert waiters(pman) == 2
    end(pman, second)
    answer = asked.answer().json["d_ret"]
    assert (answer["isDone"], [job["state"] for job in answer["jobs"]]) == (
        True,
        ["NEW", "COMPLETED"],
    )
    assert waiters(pman) == 0


def test_all_jobs_of_one_jid_and_jobs_by_name(pman: Harness) -> None:
    first, second = put(pman, make_job("a"), make_job("a"))
    asked = Asked(pman, jid="a")
    by_name = Asked(pman, job=second.name)
    end(pman, second)
    assert (by_name.is_answered, asked.is_answered) == (True, False)
    end(pman, first)
    assert asked.answer().json["d_ret"]["isDone"] is True


def test_a_time_that_is_over_says_how_far_it_is(pman: Harness) -> None:
    (job,) = put(pman, make_job("a"))
    reply = Asked(pman, jid="a", timeout=0.01).answer()
    assert (reply.code, reply.json["status"]) == (200, False)
    assert reply.json["d_ret"]["isDone"] is False
    assert waiters(pman) == 0
    end(pman, job)  # nobody is told any more


def test_no_time_is_a_look(pman: Harness) -> None:
    put(pman, make_job("a"))
    asked = Asked(pman, jid="a", timeout=0)
    assert asked.is_answered
    assert asked.answer().json["d_ret"]["isDone"] is False


def test_a_job_that_is_deleted_meanwhile_is_waited_for_no_longer(pman: Harness) -> None:
    (job,) = put(pman, make_job("a"))
    asked = Asked(pman, jid="a")
    pman.store.remove([job.name])
    assert asked.answer().json["d_ret"]["isDone"] is True


def test_many_who_wait_for_one_are_all_told(pman: Harness) -> None:
    (job,) = put(pman, make_job("a"))
    asked = [Asked(pman, jid="a") for _ in range(100)]
    end(pman, job)
    assert all(each.answer().json["d_ret"]["isDone"] for each in asked)


@pytest.mark.parametrize(
    ("meta", "code", "field"),
    [
        ({}, 400, "jid"),
        ({"jid": "nobody"}, 404, "jid"),
        ({"jid": ["a", "nobody"]}, 404, "jid"),
        ({"job": "nobody"}, 404, "job"),
        ({"jid": True}, 400, "jid"),
        ({"jid": "a", "mode": "some"}, 400, "mode"),
        ({"jid": "a", "timeout": -1}, 400, "timeout"),
        ({"jid": "a", "timeout": 3601}, 400, "timeout"),
        ({"jid": "a", "timeout": "5"}, 400, "timeout"),
    ],
)
def test_what_is_refused_names_the_field(
    pman: Harness, meta: dict[str, Any], code: int, field: str
) -> None:
    put(pman, make_job("a"))
    reply = Asked(pman, **meta).answer()
    assert (reply.code, reply.error["field"]) == (code, field)


def test_who_is_given_up_leaves_nothing_behind(pman: Harness) -> None:
    first, _ = put(pman, make_job("a"), make_job("b"))
    asked = [Asked(pman, jid=["a", "b"], service="x" * 100_000) for _ in range(20)]
    assert waiters(pman) == 40
    for each in asked:
        each.give_up()
    assert waiters(pman) == 0
    assert all(timer.callback is None for timer in timers_of(pman))
    end(pman, first)
    assert all(each.response is GIVEN_UP for each in asked)


def test_what_is_kept_while_it_waits_is_small(pman: Harness) -> None:
    (job,) = put(pman, make_job("a"))
    meta = {"jid": "a", "service": [[] for _ in range(200_000)]}
    body = dumps({"payload": {"action": "wait", "meta": meta}})
    body = body.replace(b" ", b"").replace(b"\n", b"")
    request = Request("POST", "/api/v1/cmd", body=body)
    asked = Asked(pman, request=request)
    assert request.body == b""
    end(pman, job)
    reply = asked.answer().json
    assert reply["meta"] == meta
    assert reply["client_json_len"] == reply["payloadsize"] == len(body)
    assert reply["client_json_payload"].startswith(body[:MAX_ECHO_LENGTH].decode() + "\n[pman: ")


def test_a_threaded_one_waits_for_nothing(pman: Harness) -> None:
    put(pman, make_job("a"))
    reply = Asked(pman, jid="a", threaded=True).answer()
    assert (reply.json["status"], waiters(pman)) == (True, 0)
    assert timers_of(pman) == []


def test_many_jobs_are_shown_by_a_thread_that_has_the_time(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(pman, *(make_job("a") for _ in range(FEW_JOBS + 1)))
    threads: list[str] = []

    def view(job: Job) -> JobView:
        threads.append(threading.current_thread().name)
        return job_view(job)

    monkeypatch.setattr("pman.actions.wait.job_view", view)
    assert len(Asked(pman, jid="a", timeout=0.01).answer().json["d_ret"]["jobs"]) == FEW_JOBS + 1
    assert len(set(threads)) == 1
    assert "timers" not in threads


def test_a_long_body_is_refused_and_not_repeated(pman: Harness) -> None:
    put(pman, make_job("a"))
    reply = Asked(pman, jid="a", service="x" * SMALL_BODY_BYTES).answer()
    assert (reply.code, reply.error["field"]) == (413, "body")
    assert f"at most {SMALL_BODY_BYTES}" in reply.error["message"]
    assert "meta" not in reply.json
    assert waiters(pman) == 0


def test_those_who_wait_are_told_in_the_order_of_calls(pman: Harness) -> None:
    (job,) = put(pman, make_job("a"))
    told: list[int] = []
    callbacks = [lambda _, n=n: told.append(n) for n in range(5)]
    for callback in callbacks:
        pman.store.when_final(job.name, callback)
    pman.store.no_longer(job.name, callbacks[2])
    pman.store.no_longer(job.name, callbacks[2])
    end(pman, job)
    assert told == [0, 1, 3, 4]
