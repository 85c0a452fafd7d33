"""`logs`: documents, cursors, followers and raw bytes, over files that a test writes."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from action_harness import Answer, Harness, wait_for
from jobdb_builders import make_job

from pman.actions import _catchup
from pman.actions.logs import MAX_LIMIT_BYTES, MAX_TAIL_LINES
from pman.http.deferred import Deferred
from pman.job.observation import Observation
from pman.job.record import Job, Part, Worker, run_name
from pman.job.state import JobState
from pman.output import write_gap


class Printing:
    """A job of the store that prints what a test says."""

    def __init__(self, pman: Harness, count: int = 1, **fields: Any) -> None:
        self.pman = pman
        fields.setdefault("parts", [Part("true", started_at=1.0) for _ in range(count)])
        fields.setdefault("state", JobState.RUNNING)
        self.job = make_job(**fields)
        pman.store.submit(self.job, timeout_s=20.0)

    def path(self, stream: str = "stdout", part: int = 0, attempt: int = 1) -> Path:
        return self.pman.context.output.path(run_name(self.job.name, attempt), part, stream)

    def say(self, raw: bytes, *args: Any) -> None:
        path = self.path(*args)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(raw)

    def end(self, code: int = 0) -> None:
        state = JobState.FAILED if code else JobState.COMPLETED
        self.pman.store.observe(Observation(name=self.job.name, state=state, exit_code=code))

    def try_again(self) -> None:
        """Have a further try, as the queue does."""
        job = self.pman.store.get(self.job.name)
        assert job is not None
        self.pman.store._jobs[job.name] = msgspec.structs.replace(job, attempt=job.attempt + 1)

    def ask(self, **meta: Any) -> Answer:
        return self.pman.post("logs", {"job": self.job.name, **meta})

    def begin(self, **meta: Any) -> Any:
        return self.pman.begin("logs", {"job": self.job.name, **meta})

    def get(self, **meta: Any) -> Any:
        answer = self.ask(**meta)
        assert answer.code == 200, answer.json
        return answer.json["d_ret"]

    def follow(self, **meta: Any) -> Any:
        return self.pman.stream("logs", {"job": self.job.name, "follow": True, **meta})


def texts(records: list[dict[str, Any]]) -> list[str]:
    return [f"{r['part']}.{r['stream']}:{r['text']}" for r in records]


def lines(raw: bytes | None) -> list[dict[str, Any]]:
    assert raw is not None
    return [json.loads(line) for line in raw.splitlines()]


def test_a_document(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"out\n")
    job.say(b"err\n", "stderr")
    found = job.get()
    assert found["records"] == [
        {"part": 0, "stream": s, "attempt": 1, "offset": 0, "next": 4, "text": f"{t}\n"}
        for s, t in (("stdout", "out"), ("stderr", "err"))
    ]
    assert (found["job"], found["jid"]) == (job.job.name, job.job.jid)
    assert (found["state"], found["isComplete"]) == ("RUNNING", False)
    assert list(found) == ["job", "jid", "state", "cursor", "isComplete", "records"]


def test_a_cursor_goes_on_in_all_streams(pman: Harness) -> None:
    job = Printing(pman, 2)
    job.say(b"one")
    job.say(b"two", "stderr", 1)
    found = job.get()
    assert texts(found["records"]) == ["0.stdout:one", "1.stderr:two"]
    job.say(b"+")
    job.say(b"new", "stderr")
    found = job.get(cursor=found["cursor"])
    assert texts(found["records"]) == ["0.stdout:+", "0.stderr:new"]
    assert not found["isComplete"]
    job.end()
    found = job.get(cursor=found["cursor"])
    assert (found["records"], found["isComplete"], found["state"]) == ([], True, "COMPLETED")


def test_one_stream_of_one_part(pman: Harness) -> None:
    job = Printing(pman, 2)
    for part in range(2):
        job.say(b"out%d" % part, "stdout", part)
        job.say(b"err%d" % part, "stderr", part)
    assert texts(job.get(stream="stderr")["records"]) == ["0.stderr:err0", "1.stderr:err1"]
    assert texts(job.get(part=1)["records"]) == ["1.stdout:out1", "1.stderr:err1"]
    assert texts(job.get(part=1, stream="stdout", offset=2)["records"]) == ["1.stdout:t1"]
    assert job.get(part=1, stream="stdout", offset=99)["records"] == []


def test_workers_of_a_container_job(pman: Harness) -> None:
    job = Printing(pman, backend="swarm", parts=[], workers=[Worker("w0"), Worker("w1")])
    job.say(b"a", "stdout.live", 0)
    job.say(b"b", "stdout.live", 1)
    found = job.get()
    assert texts(found["records"]) == ["0.stdout:a", "1.stdout:b"]
    job.say(b"a2", "stdout", 0)
    job.say(b"b2", "stdout", 1)
    job.say(b"late", "stderr", 2)
    job.end()
    found = job.get(cursor=found["cursor"])
    assert texts(found["records"]) == ["0.stdout:2", "1.stdout:2", "2.stderr:late"]
    assert found["isComplete"]


@pytest.mark.parametrize("more", [{}, {"tailBytes": 1}, {"follow": True}, {"raw": True}])
def test_a_stream_that_a_backend_does_not_keep(
    pman: Harness, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(pman.backend, "streams", ("stdout",), raising=False)
    job = Printing(pman)
    job.say(b"all\n")
    answer = job.ask(stream="stderr", **more)
    assert (answer.code, answer.error["field"]) == (400, "stream")
    assert "'stderr', expected 'both' or 'stdout'" in answer.error["message"]
    for stream in ("both", "stdout"):
        assert texts(job.get(stream=stream)["records"]) == ["0.stdout:all\n"]


class Behind:
    """A backend whose files have a part of the output only, until it is told to go on."""

    def __init__(self, pman: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tells: list[Callable[[], object]] = []
        monkeypatch.setattr(pman.backend, "catch_up", self._catch_up)

    def _catch_up(self, job: Job, tell: Callable[[], object]) -> bool:
        self.tells.append(tell)
        return True


@pytest.mark.parametrize("tail", [{"tailLines": 1}, {"tailBytes": 4}])
def test_a_tail_waits_until_the_files_are_there(
    pman: Harness, monkeypatch: pytest.MonkeyPatch, tail: dict[str, int]
) -> None:
    behind = Behind(pman, monkeypatch)
    job = Printing(pman)
    job.say(b"one\n")
    answered = job.begin(stream="stdout", **tail)
    assert isinstance(answered, Deferred)
    job.say(b"two\n")
    for tell in behind.tells * 2:
        tell()
    (record,) = Answer(wait_for(answered)).json["d_ret"]["records"]
    assert (record["text"], record["offset"]) == ("two\n", 4)


def test_a_tail_does_not_wait_for_ever(pman: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    behind = Behind(pman, monkeypatch)
    monkeypatch.setattr(_catchup, "CATCH_UP_S", 0.01)
    job = Printing(pman)
    job.say(b"one\ntwo\n")
    assert texts(job.get(stream="stdout", tailLines=1)["records"]) == ["0.stdout:two\n"]
    behind.tells[0]()  # which nobody waits for any more


def test_nobody_waits_where_nothing_is_missing(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a tail, of a job that has ended, and of a try that has."""
    behind = Behind(pman, monkeypatch)
    job = Printing(pman)
    job.say(b"one\ntwo\n")
    assert texts(job.get()["records"]) == ["0.stdout:one\ntwo\n"]
    job.try_again()
    found = job.get(stream="stdout", attempt=1, tailLines=1)
    assert texts(found["records"]) == ["0.stdout:two\n"]
    job.end()
    job.get(tailLines=1)
    assert behind.tells == []


def test_a_tail_that_is_told_at_once(pman: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pman.backend, "catch_up", lambda job, tell: (tell(), True)[1])
    job = Printing(pman)
    job.say(b"one\ntwo\n")
    assert texts(job.get(stream="stdout", tailLines=1)["records"]) == ["0.stdout:two\n"]


def test_limits(pman: Harness) -> None:
    job = Printing(pman)
    raw = "äöü€" * 10
    job.say(raw.encode())
    job.say(b"err", "stderr")
    job.end()
    cursor, got, replies = None, {"stdout": "", "stderr": ""}, 0
    while True:
        found = job.get(limit=7, **({} if cursor is None else {"cursor": cursor}))
        cursor = found["cursor"]
        for record in found["records"]:
            assert record["next"] - record["offset"] <= 7
            got[record["stream"]] += record["text"]
        replies += 1
        if found["isComplete"]:
            break
    assert got == {"stdout": raw, "stderr": "err"}
    assert replies > 10


def test_exact_bytes(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"\xff\x00\xc3")
    (record,) = job.get(encoding="base64")["records"]
    assert base64.b64decode(record["base64"]) == b"\xff\x00\xc3"
    assert "text" not in record


def test_a_character_waits_for_its_end(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"a\xc3")
    found = job.get()
    assert texts(found["records"]) == ["0.stdout:a"]
    job.end()
    found = job.get(cursor=found["cursor"])
    assert texts(found["records"]) == ["0.stdout:\ufffd"]
    assert found["isComplete"]


def test_a_gap_is_told(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"a" * 5 + b"-" * 5 + b"b" * 5)
    write_gap(os.fsencode(job.path()), (5, 10))
    found = job.get()
    assert [r.get("dropped") or r["text"] for r in found["records"]] == ["aaaaa", [5, 10], "bbbbb"]
    assert [r["next"] for r in found["records"]] == [5, 10, 15]


def test_tails(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"one\ntwo\nthree\n")
    job.say(b"x\n", "stderr")
    assert texts(job.get(tailLines=2)["records"]) == ["0.stdout:two\nthree\n", "0.stderr:x\n"]
    assert texts(job.get(tailBytes=4)["records"]) == ["0.stdout:ree\n", "0.stderr:x\n"]
    found = job.get(tailLines=0)
    assert found["records"] == []
    job.say(b"four\n")
    assert texts(job.get(cursor=found["cursor"])["records"]) == ["0.stdout:four\n"]


def test_over_the_tries_of_a_job(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"first")
    found = job.get()
    job.say(b" more")
    job.try_again()
    job.say(b"second", "stdout", 0, 2)
    assert texts(job.get()["records"]) == ["0.stdout:second"]
    assert texts(job.get(attempt=1)["records"]) == ["0.stdout:first more"]
    assert job.get(attempt=1)["isComplete"]
    found = job.get(cursor=found["cursor"])
    assert texts(found["records"]) == ["0.stdout: more", "0.stdout:second"]
    assert [r["attempt"] for r in found["records"]] == [1, 2]
    job.end()
    found = job.get(cursor=found["cursor"])
    assert (found["records"], found["isComplete"]) == ([], True)


def test_between_tries_it_is_that_of_the_last_one(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"first")
    job.try_again()
    found = job.get()
    assert texts(found["records"]) == ["0.stdout:first"]
    assert not found["isComplete"]
    assert texts(job.get(tailBytes=2)["records"]) == ["0.stdout:st"]
    assert texts(job.get(stream="stdout", offset=3)["records"]) == ["0.stdout:st"]
    _, body = job.follow(raw=True, stream="stdout")
    assert body.read() == b"", "it waits for what comes"
    job.say(b"second", "stdout", 0, 2)
    assert body.read() == b"second"
    assert texts(job.get()["records"]) == ["0.stdout:second"]
    assert texts(job.get(cursor=found["cursor"])["records"]) == ["0.stdout:second"]
    body.close()


def test_a_try_that_has_started_is_the_newest_though_it_has_printed_nothing(
    pman: Harness,
) -> None:
    job = Printing(pman, started_at=1.0)
    job.say(b"first")
    job.try_again()
    assert job.get()["records"] == []


def test_the_newest_of_a_job_id(pman: Harness) -> None:
    older, newer = Printing(pman, jid="twice"), Printing(pman, jid="twice")
    older.say(b"old")
    newer.say(b"new")
    found = pman.post("logs", {"jid": "twice"}).json["d_ret"]
    assert texts(found["records"]) == ["0.stdout:new"]
    # A reader that began with the older one goes on with it.
    cursor = older.get()["cursor"]
    older.say(b"er")
    found = pman.post("logs", {"jid": "twice", "cursor": cursor}).json["d_ret"]
    assert texts(found["records"]) == ["0.stdout:er"]


# --- followed ---------------------------------------------------------------------------------


def test_followed_to_the_end(pman: Harness) -> None:
    job = Printing(pman)
    response, body = job.follow()
    assert (response.status, response.content_type) == (200, "application/x-ndjson")
    assert body.read() == b""
    job.say(b"one")
    (record,) = lines(body.read())
    assert (record["text"], record["next"]) == ("one", 3)
    job.say(b"two")
    job.end(3)
    (last, end) = lines(body.read())
    assert last["text"] == "two"
    assert end == {"end": True, "state": "FAILED", "exitCode": 3, "cursor": last["cursor"]}
    assert body.read() is None
    # Each cursor goes on behind its record.
    assert texts(job.get(cursor=record["cursor"])["records"]) == ["0.stdout:two"]
    body.close()


def test_followed_over_tries(pman: Harness) -> None:
    job = Printing(pman)
    _, body = job.follow()
    job.say(b"first")
    assert texts(lines(body.read())) == ["0.stdout:first"]
    job.say(b"+")
    job.try_again()
    job.say(b"second", "stderr", 0, 2)
    assert texts(lines(body.read())) == ["0.stdout:+", "0.stderr:second"]
    job.end()
    assert [record["end"] for record in lines(body.read())] == [True]


def test_streams_have_their_turns(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"o" * 600_000)
    job.say(b"e" * 600_000, "stderr")
    _, body = job.follow()
    seen: list[str] = []
    while records := body.read():
        assert len(records) < 300_000
        seen += [record["stream"] for record in lines(records)]
    assert set(seen[:2]) == {"stdout", "stderr"}


def test_a_follower_looks_less_often_at_what_does_not_move(pman: Harness) -> None:
    job = Printing(pman)
    _, body = job.follow()
    for _ in range(20):
        body.read()
    assert body.poll_s == 0.4
    job.say(b"x")
    body.read()
    assert body.poll_s == 0.1


def test_news_of_the_end(pman: Harness) -> None:
    job = Printing(pman)
    _, body = job.follow()
    _, other = job.follow()
    told: list[str] = []
    body.on_news(lambda: told.append("body"))
    other.on_news(lambda: told.append("other"))
    other.close()
    job.end()
    assert told == ["body"]
    body.close()


@pytest.mark.parametrize("meta", [{}, {"raw": True, "stream": "stdout"}])
def test_a_job_that_is_deleted(pman: Harness, meta: dict[str, Any]) -> None:
    job = Printing(pman)
    job.say(b"x")
    _, body = job.follow(**meta)
    body.read()
    job.end()
    pman.store.remove([job.job.name])
    job.path().unlink()
    told: list[int] = []
    body.on_news(lambda: told.append(1))
    if not meta:
        (end,) = lines(body.read())
        assert (end["end"], end["state"]) == (True, None)
    assert body.read() is None


def test_a_limit_ends_it(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"0123456789")
    job.end()
    _, body = job.follow(limit=4)
    assert [record["text"] for record in lines(body.read())] == ["0123"]
    assert body.read() is None


def test_the_backend_is_asked_to_write(pman: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(pman.backend, "follow", lambda job: asked.append(job.attempt))
    job = Printing(pman, state=JobState.QUEUED)
    _, body = job.follow()
    body.read()
    assert asked == []
    pman.store.observe(Observation(name=job.job.name, state=JobState.RUNNING))
    for _ in range(3):
        body.read()
    # Each time: the backend of a new daemon may not know the job at once.
    assert (len(asked), set(asked)) == (3, {1})
    job.try_again()
    body.read()
    count = len(asked)
    assert set(asked[3:]) == {2}
    job.get()
    assert len(asked) > count
    job.end()
    count = len(asked)
    job.get()
    assert len(asked) == count


# --- raw --------------------------------------------------------------------------------------


def read_all(read: Callable[[], bytes | None]) -> bytes:
    pieces = []
    while piece := read():
        pieces.append(piece)
    assert piece is None
    return b"".join(pieces)


def test_raw_bytes(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"0123456789")
    response, body = pman.stream(
        "logs", {"job": job.job.name, "raw": True, "stream": "stdout", "offset": 3}
    )
    assert response.content_type == "text/plain; charset=utf-8"
    assert dict(response.headers)["Pman-Offset"] == "3"
    job.say(b"later")
    assert read_all(body.read) == b"3456789", "what was there at the request"
    response, body = job.follow(raw=True, stream="stdout", tailBytes=2, encoding="base64")
    assert response.content_type == "application/octet-stream"
    assert body.read() == b"er"
    assert body.read() == b""
    job.end()
    assert body.read() is None


def test_raw_bytes_end_at_a_gap(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"a" * 5 + b"-" * 5 + b"b" * 5)
    write_gap(os.fsencode(job.path()), (5, 10))
    job.end()
    meta = {"job": job.job.name, "raw": True, "stream": "stdout"}
    _, body = pman.stream("logs", meta)
    assert read_all(body.read) == b"aaaaa"
    response, body = pman.stream("logs", {**meta, "offset": 5})
    assert dict(response.headers)["Pman-Offset"] == "10"
    assert read_all(body.read) == b"bbbbb"


def test_raw_bytes_up_to_a_limit(pman: Harness) -> None:
    job = Printing(pman)
    job.say(b"0123456789")
    job.end()
    _, body = job.follow(raw=True, stream="stdout", limit=4)
    assert read_all(body.read) == b"0123"


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"stream": "stdin"}, "stream"),
        ({"offset": 1}, "stream"),
        ({"raw": True}, "stream"),
        ({"offset": 1, "stream": "stdout"}, "part"),
        ({"raw": True, "stream": "stdout"}, "part"),
        ({"offset": -1, "stream": "stdout", "part": 0}, "offset"),
        ({"tailLines": 1, "tailBytes": 1}, "tailBytes"),
        ({"tailLines": 1, "cursor": "x"}, "cursor"),
        ({"part": -1}, "part"),
        ({"part": 2}, "part"),
        ({"part": 2, "stream": "stdout", "offset": 0}, "part"),
        ({"part": 2, "stream": "stdout", "raw": True}, "part"),
        ({"attempt": 0}, "attempt"),
        ({"attempt": 2}, "attempt"),
        ({"limit": 0}, "limit"),
        ({"limit": MAX_LIMIT_BYTES + 1}, "limit"),
        ({"follow": "yes"}, "follow"),
        ({"encoding": "utf-16"}, "encoding"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "ä"}, "cursor"),
        ({"jid": "job-1"}, "job"),
    ],
)
def test_what_is_refused(pman: Harness, meta: dict[str, Any], field: str) -> None:
    answer = Printing(pman, 2).ask(**meta)
    assert (answer.code, answer.error["field"]) == (400, field)


def test_which_parts_there_are_is_told(pman: Harness) -> None:
    for count, there in ((1, "0"), (3, "0 to 2")):
        error = Printing(pman, count).ask(part=9).error
        assert error["message"] == f"part is 9, expected {there}"
    error = Printing(pman, 3).ask(stream="stdout", raw=True).error
    assert error["message"] == "part is missing, expected 0 to 2 with raw"


def test_parts_that_have_not_started_are_known(
    pman: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the start a job has only its spec, which its backend can read."""
    monkeypatch.setattr(pman.backend, "part_count", lambda _: 3)
    job = Printing(pman, 0, state=JobState.QUEUED)
    assert job.get(part=2)["records"] == []
    assert job.ask(part=3).error["field"] == "part"
    assert job.ask(stream="stdout", offset=0).error["field"] == "part"


def test_a_worker_that_has_printed_is_there(pman: Harness) -> None:
    job = Printing(pman, backend="swarm", parts=[], workers=[Worker("w0")])
    job.say(b"more", "stdout", 1)
    assert texts(job.get(part=1)["records"]) == ["1.stdout:more"]
    assert job.ask(part=2).error["field"] == "part"


def test_cursors_of_others(pman: Harness) -> None:
    cursor = Printing(pman).get()["cursor"]
    assert Printing(pman).ask(cursor=cursor).error["field"] == "cursor"
    raw = json.dumps({"j": "x", "a": 1, "o": {"../x": 1}}).encode()
    answer = Printing(pman).ask(cursor=base64.urlsafe_b64encode(raw).decode())
    assert (answer.code, answer.error["field"]) == (400, "cursor")


@pytest.mark.parametrize("meta", [{"job": "nosuch"}, {"jid": "nosuch"}])
def test_no_such_job(pman: Harness, meta: dict[str, Any]) -> None:
    answer = pman.post("logs", meta)
    assert (answer.code, answer.error["type"]) == (404, "UnknownJob")


def test_nobody_named(pman: Harness) -> None:
    assert pman.post("logs", {}).code == 400


def test_threaded_wants_no_stream(pman: Harness) -> None:
    answer = Printing(pman).ask(follow=True, threaded=True)
    assert (answer.code, answer.json["status"]) == (200, True)
    assert "d_ret" not in answer.json


def cursor_of(job: str, offsets: dict[str, int]) -> str:
    raw = json.dumps({"j": job, "a": 1, "o": offsets}, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("count", [4097, 10_000])
def test_cursors_that_are_too_long(pman: Harness, count: int) -> None:
    job = Printing(pman)
    answer = job.ask(cursor=cursor_of(job.job.name, {f"{n}.stdout": 0 for n in range(count)}))
    assert (answer.code, answer.error["field"]) == (400, "cursor")


def test_a_cursor_keeps_only_parts_that_there_are(pman: Harness) -> None:
    job = Printing(pman, 2)
    job.say(b"one", "stdout", 0)
    job.say(b"two", "stdout", 1)
    job.say(b"of a former try", "stderr", 7)
    given = {"0.stdout": 1, "7.stderr": 2, **{f"{n}.stdout": 9 for n in range(10, 1000)}}
    _, body = job.follow(cursor=cursor_of(job.job.name, given))
    for record in lines(body.read()):
        raw = base64.urlsafe_b64decode(record["cursor"] + "==")
        assert set(json.loads(raw)["o"]) <= {"0.stdout", "1.stdout", "7.stderr"}
    body.close()


def test_the_most_lines_of_a_tail(pman: Harness) -> None:
    job = Printing(pman)
    job.get(tailLines=MAX_TAIL_LINES)
    error = job.ask(tailLines=MAX_TAIL_LINES + 1).error
    assert error["field"] == "tailLines"
    assert error["message"] == "tailLines is 100001, expected a whole number <= 100000"
