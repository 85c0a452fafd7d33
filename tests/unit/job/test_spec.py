"""What `run` takes, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pman.errors import RequestError
from pman.job.pairs import MAX_LABELS
from pman.job.record import new_job
from pman.job.sizes import MAX_CMD_BYTES, MAX_NAME_BYTES, MAX_STDIN_BYTES, MAX_WORDS_BYTES
from pman.job.spec import JobSpec, RunOptions, spec_from_meta

MINIMAL = {"cmd": "true", "auid": "t", "jid": "j"}


def spec(**meta: Any) -> JobSpec:
    return spec_from_meta({"cmd": "true", "auid": "t", "jid": "j", **meta})


def of_argv(*argv: Any, **meta: Any) -> JobSpec:
    return spec_from_meta({"argv": list(argv), "auid": "t", "jid": "j", **meta})


def test_a_request_of_2_2_asks_for_nothing_more() -> None:
    plain = spec(threaded=1, unknown=[1], number_of_workers="2")
    assert plain == JobSpec(cmd="true", auid="t", jid="j", meta=plain.meta)
    assert plain.meta["unknown"] == [1]


def test_null_stands_for_what_is_not_given() -> None:
    names = ["argv", "container", "env", "cwd", "stdin", "labels", "timeout", "pendingTimeout"]
    given = spec(**dict.fromkeys([*names, "after", "callback", "threaded"]))
    assert given == JobSpec(cmd="true", auid="t", jid="j", meta=given.meta)


def test_everything_that_can_be_asked_for() -> None:
    full = of_argv(
        "sh",
        "-c",
        "echo $A; cat",
        env={"A": 1, "B.c": "x"},
        cwd="/tmp",
        stdin="in",
        labels={"team/a": "b", "n": 2},
        timeout=5,
        pendingTimeout=0.5,
        retries=3,
        backoff=1,
        priority=-7,
        after=["x", 7],
        callback="https://example.org:8443/done?x=1",
        idempotent=True,
        dryRun=True,
        progress=False,
    )
    assert full.cmd == "sh -c 'echo $A; cat'"
    assert full.argv == ["sh", "-c", "echo $A; cat"]
    assert (full.env, full.labels) == ({"A": "1", "B.c": "x"}, {"team/a": "b", "n": "2"})
    assert (full.cwd, full.stdin, full.after) == ("/tmp", "in", ["x", "7"])
    assert (full.timeout_s, full.pending_timeout_s) == (5.0, 0.5)
    assert (full.retries, full.backoff_s, full.priority) == (3, 1.0, -7)
    assert full.callback == "https://example.org:8443/done?x=1"
    assert (full.idempotent, full.dry_run, full.progress) == (True, True, False)
    job = new_job(full, "host", 1e9)
    assert (job.labels, job.retries, job.backoff_s, job.priority) == (full.labels, 3, 1.0, -7)
    assert (job.timeout_s, job.pending_timeout_s) == (5.0, 0.5)
    assert (job.callback, job.cmd, job.run_name) == (full.callback, full.cmd, job.name)
    assert not job.wants_progress
    assert new_job(spec(), "host", 1e9).wants_progress


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("argv", ["true"], "argv"),  # beside cmd
        ("env", "A=1", "env"),
        ("env", {"A": True}, "env.A"),
        ("env", {"A=": "1"}, "env"),
        ("env", {"A": "a\0b"}, "env.A"),
        ("cwd", "tmp", "cwd"),
        ("cwd", "/a\0b", "cwd"),
        ("stdin", "a\0b", "stdin"),
        ("stdin", "é" * (MAX_STDIN_BYTES // 2) + "x", "stdin"),
        ("stdin", 5, "stdin"),
        ("labels", {"pman.job": "x"}, "labels"),
        ("labels", {"a": "b c"}, "labels.a"),
        ("labels", {f"l{n}": "" for n in range(MAX_LABELS + 1)}, "labels"),
        ("jid", "j" * (MAX_NAME_BYTES + 1), "jid"),
        ("jid", "é" * (MAX_NAME_BYTES // 2) + "x", "jid"),
        ("jid", 10**MAX_NAME_BYTES, "jid"),
        ("auid", "u" * (MAX_NAME_BYTES + 1), "auid"),
        ("cmd", "x" * (MAX_CMD_BYTES + 1), "cmd"),
        ("cmd", "é" * (MAX_CMD_BYTES // 2) + "x", "cmd"),
        ("env", {"A": "x" * MAX_WORDS_BYTES}, "env"),
        ("env", {"A": "é" * (MAX_WORDS_BYTES // 2)}, "env"),
        ("env", {f"A{n}": "" for n in range(MAX_WORDS_BYTES // 10)}, "env"),
        ("timeout", 0, "timeout"),
        ("timeout", float("nan"), "timeout"),
        ("timeout", float("inf"), "timeout"),
        ("pendingTimeout", "5", "pendingTimeout"),
        ("retries", 101, "retries"),
        ("retries", 1.5, "retries"),
        ("backoff", -1, "backoff"),
        ("backoff", 3601, "backoff"),
        ("priority", 1001, "priority"),
        ("priority", True, "priority"),
        ("after", "x", "after"),
        ("after", [None], "after[0]"),
        ("callback", "ftp://example.org/", "callback"),
        ("callback", "http:///path", "callback"),
        ("callback", "http://[1/", "callback"),
        ("callback", "http://example.org/a b", "callback"),
        ("dryRun", 1, "dryRun"),
        ("progress", "no", "progress"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: Any, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        spec(**{key: value})
    assert caught.value.field == field
    assert caught.value.hint == 400


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        ([], "argv"),
        ([5], "argv[0]"),
        ([""], "argv[0]"),
        (["a", "b\0"], "argv[1]"),
        (["a", "x" * MAX_WORDS_BYTES], "argv"),
        (["a"] * (MAX_WORDS_BYTES // 9), "argv"),
    ],
)
def test_what_is_wrong_in_argv_is_named(argv: list[Any], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        of_argv(*argv)
    assert caught.value.field == field


def test_argv_and_env_count_together() -> None:
    half = "x" * (MAX_WORDS_BYTES // 2)
    assert of_argv("true", half).argv == ["true", half]
    with pytest.raises(RequestError, match=rf"together, expected at most {MAX_WORDS_BYTES}"):
        of_argv("true", half, env={"A": half})


def test_what_is_as_long_as_may_be_is_taken() -> None:
    jid, cmd = "é" * (MAX_NAME_BYTES // 2), "x" * MAX_CMD_BYTES
    tags = {f"l{n}": "" for n in range(MAX_LABELS)}
    full = spec(jid=jid, auid=jid, cmd=cmd, stdin="x" * MAX_STDIN_BYTES, labels=tags)
    assert (full.jid, full.auid, full.cmd, full.labels) == (jid, jid, cmd, tags)


def test_what_is_too_long_is_shown_shortened() -> None:
    with pytest.raises(RequestError, match=r"^jid is 'x+\.\.\.x+', expected at most 1024 bytes$"):
        spec(jid="x" * 20_000)


@pytest.mark.parametrize("value", [None, "", False, [], {}])
@pytest.mark.parametrize(
    "key",
    [
        *("argv", "env", "cwd", "stdin", "labels", "after", "callback"),
        *("timeout", "pendingTimeout", "retries", "backoff", "priority"),
    ],
)
def test_a_client_of_2_2_may_say_that_nothing_is_given(key: str, value: Any) -> None:
    plain, meta = spec(), {**MINIMAL, key: value}
    eased = spec_from_meta(meta, is_lenient=True)
    assert eased.meta is meta
    assert meta[key] is value
    assert msgspec.structs.replace(eased, meta=plain.meta) == plain


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("timeout", "30", 30.0),
        ("timeout", 0, None),
        ("pendingTimeout", "0.0", None),
        ("pendingTimeout", " 1e1 ", 10.0),
        ("retries", 3.0, 3),
        ("retries", "3", 3),
        ("backoff", 0, 0.0),
        ("backoff", ".5", 0.5),
        ("priority", "-7", -7),
        ("progress", False, False),
        ("progress", "", True),
        ("dryRun", None, False),
        ("env", {"A": None, "B": 1}, {"B": "1"}),
    ],
)
def test_a_client_of_2_2_may_spell_it_so(key: str, value: Any, expected: Any) -> None:
    eased = spec_from_meta({**MINIMAL, key: value}, is_lenient=True)
    names = {"timeout": "timeout_s", "pendingTimeout": "pending_timeout_s", "backoff": "backoff_s"}
    assert getattr(eased, {**names, "dryRun": "dry_run"}.get(key, key)) == expected


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("timeout", "soon", "timeout"),
        ("timeout", -1, "timeout"),
        ("timeout", "9" * 400, "timeout"),
        ("timeout", True, "timeout"),
        ("retries", "1.5", "retries"),
        ("retries", "1_0", "retries"),
        ("priority", "nan", "priority"),
        ("argv", "true", "argv"),
        ("env", "A=1", "env"),
        ("env", {"A": True}, "env.A"),
        ("labels", {"a": None}, "labels.a"),
        ("after", "x", "after"),
        ("progress", 0, "progress"),
        ("dryRun", 1, "dryRun"),
    ],
)
def test_what_means_something_else_is_refused(key: str, value: Any, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        spec_from_meta({**MINIMAL, key: value}, is_lenient=True)
    assert caught.value.field == field


def test_every_key_is_described() -> None:
    _, parts = msgspec.json.schema_components([RunOptions])
    properties = parts["RunOptions"]["properties"]
    assert "pendingTimeout" in properties
    assert [
        key for key, value in properties.items() if "description" not in json.dumps(value)
    ] == []
