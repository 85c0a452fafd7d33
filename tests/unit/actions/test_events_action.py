"""`events`: pages, filters, long polls, streams, and what a bound caller may see."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_harness import Harness, harness
from jobdb_builders import DEADLINE_S, make_job

from pman.actions import _feed
from pman.actions._feed import Feed
from pman.actions.base import ActionRequest, Later, Outcome
from pman.actions.events import events as perform
from pman.auth import Caller, Role
from pman.errors import RequestError, SnapshotError
from pman.job.event import Wanted
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb import events as events_module
from pman.jobdb.events import PAGE_BYTES


@pytest.fixture
def pman(tmp_path: Path) -> Iterator[Harness]:
    with harness(tmp_path) as made:
        yield made


def submit(pman: Harness, jid: str = "a", **fields: Any) -> Job:
    return pman.store.submit(make_job(jid, **fields), timeout_s=DEADLINE_S)[0]


def end(pman: Harness, job: Job) -> None:
    pman.store.observe(Observation(name=job.name, state=JobState.RUNNING))
    pman.store.observe(Observation(name=job.name, state=JobState.COMPLETED, exit_code=0))


def ask(pman: Harness, caller: Caller | None = None, **meta: Any) -> dict[str, Any]:
    """Return the `d_ret` of `events`, waiting for it if it comes late."""
    answered: list[Outcome] = []
    done = threading.Event()
    outcome = perform(ActionRequest(meta, caller=caller or Caller()), pman.context)
    if isinstance(outcome, Later):

        def take(make: Any) -> None:
            answered.append(make())
            done.set()

        outcome.subscribe(take)
        assert done.wait(DEADLINE_S)
        outcome = answered[0]
    assert outcome.status
    d_ret: dict[str, Any] = outcome.d_ret
    return d_ret


def states(d_ret: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event["jid"], event["state"]) for event in d_ret["events"]]


def test_all_of_a_job(pman: Harness) -> None:
    job = submit(pman, labels={"l": "1"}, auid="me")
    end(pman, job)
    pman.store.remove([job.name])
    d_ret = ask(pman, fromStart=True)
    assert [(event["kind"], event["state"]) for event in d_ret["events"]] == [
        ("state", "NEW"),
        ("state", "RUNNING"),
        ("state", "COMPLETED"),
        ("deleted", "COMPLETED"),
    ]
    assert d_ret["firstSeq"] <= d_ret["events"][0]["seq"]
    assert d_ret["next"] == d_ret["events"][3]["seq"]
    last = d_ret["events"][2]
    assert last.pop("at") > 0
    assert last.pop("seq") < d_ret["next"]
    assert last == {
        "kind": "state",
        "job": job.name,
        "jid": "a",
        "auid": "me",
        "backend": "host",
        "state": "COMPLETED",
        "reason": "",
        "message": "",
        "exitCode": 0,
        "signal": None,
        "attempt": 1,
        "progress": None,
        "progressText": "",
        "labels": {"l": "1"},
    }
    assert d_ret["gap"] is False
    assert ask(pman, since=d_ret["next"])["events"] == []
    assert ask(pman)["next"] >= d_ret["next"]


def test_by_dispatcher(pman: Harness) -> None:
    submit(pman)
    answer = pman.post("events", {"since": 0})
    assert answer.code == 200
    assert answer.json["d_ret"]["events"][0]["jid"] == "a"
    answer = pman.post("events", {"wait": 0.01})
    assert answer.json["d_ret"]["events"] == []


def test_limit_and_going_on(pman: Harness) -> None:
    for n in range(5):
        submit(pman, str(n))
    seen = []
    at = 0
    while page := ask(pman, since=at, limit=2)["events"]:
        seen += [event["jid"] for event in page]
        at = page[-1]["seq"]
    assert seen == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"jid": "a"}, [("a", "NEW"), ("a", "RUNNING"), ("a", "COMPLETED")]),
        ({"auid": "other"}, [("b", "NEW")]),
        ({"label": {"l": "1"}, "state": ["NEW", "COMPLETED"]}, [("a", "NEW"), ("a", "COMPLETED")]),
        ({"jid": "a", "state": "RUNNING"}, [("a", "RUNNING")]),
        ({"label": {"l": "2"}}, []),
        ({"kind": ["progress", "deleted"]}, []),
        ({"kind": "deleted"}, []),
        ({"kind": "state", "auid": "other"}, [("b", "NEW")]),
        ({"job": "none"}, []),
    ],
)
def test_filters(pman: Harness, meta: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    job = submit(pman, labels={"l": "1", "m": "1"})
    submit(pman, "b", auid="other")
    end(pman, job)
    submit(pman, "last", auid="last")  # durable behind the others
    assert states(ask(pman, fromStart=True, **meta)) == expected


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"since": -1}, "since"),
        ({"since": "1"}, "since"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"wait": 301}, "wait"),
        ({"wait": -1}, "wait"),
        ({"kind": ["x"]}, "kind[0]"),
        ({"state": ["started"]}, "state[0]"),
        ({"state": "started"}, "state"),
        ({"label": {"a": True}}, "label.a"),
        ({"follow": 1}, "follow"),
    ],
)
def test_what_is_refused(pman: Harness, meta: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(pman, **meta)
    assert caught.value.field == field


def test_wait_ends_with_the_first_event_that_matches(pman: Harness) -> None:
    since = ask(pman)["next"]
    job = submit(pman, "other")
    answers: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: answers.append(ask(pman, since=since, jid="a", wait=DEADLINE_S))
    )
    thread.start()
    end(pman, job)
    submit(pman, "a")
    thread.join(DEADLINE_S)
    assert states(answers[0]) == [("a", "NEW")]
    assert ask(pman, since=answers[0]["next"])["events"] == []
    assert pman.context.events._subscribers == {}


def test_wait_ends_in_time(pman: Harness) -> None:
    d_ret = ask(pman, wait=0.01)
    assert d_ret["events"] == []
    assert pman.context.events._subscribers == {}


def test_waiting_clients_hold_no_thread_and_leave_nothing(pman: Harness) -> None:
    done = threading.Semaphore(0)
    before = threading.active_count()
    for _ in range(500):
        later = perform(ActionRequest({"jid": "a", "wait": 300}), pman.context)
        assert isinstance(later, Later)
        later.subscribe(lambda make: done.release() if make().d_ret["events"] else None)
    assert threading.active_count() == before
    submit(pman, "a")
    for _ in range(500):
        assert done.acquire(timeout=DEADLINE_S)
    assert pman.context.events._subscribers == {}


def test_end_of_the_daemon_lets_go_of_who_waits(pman: Harness) -> None:
    done = threading.Event()
    later = perform(ActionRequest({"wait": 300}), pman.context)
    assert isinstance(later, Later)
    later.subscribe(lambda make: done.set())
    pman.context.events.close()
    assert done.wait(DEADLINE_S)
    assert ask(pman, wait=300)["events"] == []


def test_bound_caller_sees_only_its_own(pman: Harness) -> None:
    mine, theirs = submit(pman, "a", auid="me"), submit(pman, "a", auid="other")
    bound = Caller("t", Role.READ, "me")
    for meta in ({}, {"jid": "a"}):
        d_ret = ask(pman, bound, fromStart=True, **meta)
        assert [event["job"] for event in d_ret["events"]] == [mine.name]
    assert ask(pman, bound, fromStart=True, job=theirs.name)["events"] == []
    assert ask(pman, bound, fromStart=True, auid="other")["events"] == []


def test_bound_caller_is_told_nothing_of_others(pman: Harness) -> None:
    bound = Caller("t", Role.READ, "me")
    submit(pman, "a", auid="me")
    begin = ask(pman, bound)["next"]
    metas: list[dict[str, Any]] = [
        {"fromStart": True},
        {"since": begin},
        {"since": begin, "wait": 0.01},
        {"since": 5},
        {"since": 2**52},
        {"fromStart": True, "jid": "none"},
        {"fromStart": True, "auid": "other"},
        {"fromStart": True, "limit": 1},
    ]
    before = [ask(pman, bound, **meta) for meta in metas]
    for n in range(3):
        end(pman, submit(pman, f"b{n}", auid="other"))
    submit(pman, "last", auid="other")  # durable behind the others
    assert [ask(pman, bound, **meta) for meta in metas] == before
    assert (before[1]["next"], before[5]["next"]) == (begin, before[0]["next"])
    assert [page["gap"] for page in before] == [False, False, False, True, True, *[False] * 3]
    mine = submit(pman, "c", auid="me")
    page = ask(pman, bound, since=begin)
    assert [event["job"] for event in page["events"]] == [mine.name]


def test_wait_of_a_bound_caller_goes_on_from_where_it_began(pman: Harness) -> None:
    bound = Caller("t", Role.READ, "me")
    begin = ask(pman, bound)["next"]
    later = perform(ActionRequest({"since": begin, "wait": 300}, caller=bound), pman.context)
    assert isinstance(later, Later)
    answers: list[dict[str, Any]] = []
    done = threading.Event()

    def take(make: Any) -> None:
        answers.append(make().d_ret)
        done.set()

    later.subscribe(take)
    submit(pman, "b", auid="other")
    pman.context.events.close()
    assert done.wait(DEADLINE_S)
    assert (answers[0]["events"], answers[0]["next"]) == ([], begin)


def test_number_of_the_future_is_a_gap(pman: Harness) -> None:
    submit(pman)
    d_ret = ask(pman, since=2**52, wait=300)
    assert d_ret["gap"] is True
    assert states(d_ret) == [("a", "NEW")]


# --- streams --------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def parse(piece: bytes) -> list[dict[str, Any]]:
    """Read server-sent events as a browser does."""
    found = []
    for block in piece.decode().split("\n\n"):
        fields = [line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":")]
        if fields:
            found.append(dict(fields))
    return found


def test_stream(pman: Harness) -> None:
    outcome = perform(ActionRequest({"follow": True, "fromStart": True}), pman.context)
    assert isinstance(outcome, Outcome)
    assert outcome.content_type == "text/event-stream"
    body = outcome.stream
    assert body is not None
    assert body.read() == b"retry: 1000\n\n"
    assert body.read() == b""
    news = threading.Semaphore(0)
    body.on_news(news.release)
    assert news.acquire(blocking=False)  # what came before may have been missed
    submit(pman)
    assert news.acquire(timeout=DEADLINE_S)
    (event,) = parse(body.read() or b"")
    data = json.loads(event["data"])
    assert (event["id"], event["event"]) == (str(data["seq"]), "state")
    assert (data["jid"], data["state"]) == ("a", "NEW")
    assert body.read() == b""
    pman.context.events.close()
    assert news.acquire(timeout=DEADLINE_S)
    assert body.read() is None
    body.close()
    assert pman.context.events._subscribers == {}


def test_stream_goes_on_from_a_number_and_tells_of_a_gap(pman: Harness) -> None:
    submit(pman, "a")
    submit(pman, "b")
    page = ask(pman, fromStart=True)
    feed = Feed(pman.context.events, page["events"][0]["seq"], Wanted())
    retry, event = parse(feed.read() or b"")
    assert retry == {"retry": "1000"}
    assert json.loads(event["data"])["jid"] == "b"
    feed = Feed(pman.context.events, 5, Wanted())
    _, gap, *rest = parse(feed.read() or b"")
    assert (gap["event"], json.loads(gap["data"])) == ("gap", {"firstSeq": page["firstSeq"]})
    assert len(rest) == 2


def test_stream_without_a_number_begins_now(pman: Harness) -> None:
    submit(pman, "a")
    feed = Feed(pman.context.events, None, Wanted())
    submit(pman, "b")
    _, event = parse(feed.read() or b"")
    assert json.loads(event["data"])["jid"] == "b"


@pytest.mark.parametrize("owner", [None, "me"])
def test_who_loses_a_stream_before_the_first_event_can_go_on(
    pman: Harness, owner: str | None
) -> None:
    wanted = Wanted(owner=owner)
    submit(pman, "a", auid="me")
    lost = Feed(pman.context.events, None, wanted)
    submit(pman, "b", auid="me")
    begin, *_ = parse(lost.read() or b"")
    assert begin.keys() == {"id", "retry"}  # no data: a browser keeps the id and dispatches nothing
    feed = Feed(pman.context.events, int(begin["id"]), wanted)
    _, event = parse(feed.read() or b"")
    assert json.loads(event["data"])["jid"] == "b"


def test_pieces_and_pages_are_not_much_longer_than_a_mebibyte(pman: Harness) -> None:
    tags = {f"l{n}": "x" * 60 for n in range(256)}
    for _ in range(60):
        submit(pman, labels=tags)
    page = ask(pman, since=0, limit=1000)
    assert 0 < len(page["events"]) < 60
    feed = Feed(pman.context.events, 0, Wanted())
    pieces = [feed.read() or b"", feed.read() or b""]
    assert all(0 < len(piece) < 2 * PAGE_BYTES for piece in pieces)
    assert pieces[0].count(b"event: state") == len(page["events"])
    following = ask(pman, since=page["next"], limit=1000)
    assert pieces[1].count(b"event: state") == len(following["events"])
    feed.close()


def test_stream_shows_that_it_lives(pman: Harness) -> None:
    clock = Clock()
    feed = Feed(pman.context.events, None, Wanted(), clock)
    assert feed.poll_s is not None
    feed.read()
    clock.now = 14.0
    assert feed.read() == b""
    clock.now = 15.0
    assert feed.read() == b":\n\n"
    assert feed.read() == b""


def test_stream_that_looks_through_many_says_how_far_it_is(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        submit(pman, str(n))
    monkeypatch.setattr(_feed, "CHUNK", 1)
    monkeypatch.setattr(events_module, "CHUNK", 1)
    feed = Feed(pman.context.events, 0, Wanted(jid="none"))
    ids = [
        int(event["id"]) for n in range(4) for event in parse(feed.read() or b"") if "id" in event
    ]
    assert ids == [event["seq"] for event in ask(pman, fromStart=True)["events"]]


def test_stream_of_a_bound_caller_shows_nothing_of_what_it_looks_through(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        submit(pman, str(n), auid="other")
    submit(pman, "mine", auid="me")
    submit(pman, "more", auid="other")
    monkeypatch.setattr(_feed, "CHUNK", 1)
    monkeypatch.setattr(events_module, "CHUNK", 1)
    feed = Feed(pman.context.events, 0, Wanted(owner="me"))
    news = threading.Semaphore(0)
    feed.on_news(news.release)
    pieces = []
    while news.acquire(blocking=False):  # as the pump does
        pieces.append(feed.read() or b"")
    assert pieces[:3] == [b"retry: 1000\n\n", b"", b""]
    (event,) = parse(b"".join(pieces[3:]))
    assert json.loads(event["data"])["jid"] == "mine"
    feed.close()


def test_stream_ends_with_an_error_when_the_disk_cannot_be_read(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise SnapshotError("no")

    feed = Feed(pman.context.events, 0, Wanted())
    monkeypatch.setattr(pman.context.events, "_chunk", fail)
    with pytest.raises(SnapshotError):
        feed.read()


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"label": {f"k{n}": "v" for n in range(257)}}, "label"),
        ({"label": {"k": "v" * 400}}, "label.k"),
        ({"jid": "j" * 5000}, "jid"),
    ],
)
def test_what_is_looked_for_is_bounded(pman: Harness, meta: dict[str, Any], field: str) -> None:
    for more in ({"follow": True}, {"wait": 300}):
        reply = pman.post("events", {**meta, **more})
        assert reply.code == 400
        assert reply.error["field"].startswith("label" if "label" in field else field)
