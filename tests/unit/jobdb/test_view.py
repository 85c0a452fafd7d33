"""The record tree: compared with what 2.2 answered, and where the design overrules it."""

from __future__ import annotations

import json
from typing import Any

import golden_replay as golden
import msgspec
import pytest
from jobdb_builders import FACTS, THEN, MemoryJournal, finished_job, make_job, no_output

from pman.errors import UnknownJob
from pman.job.record import HostFacts, Job, Part, Worker
from pman.job.state import JobState
from pman.jobdb import view
from pman.jobdb.job22 import job_from_leaves, output_of
from pman.jobdb.recordtree import MAX_CUMULATIVE_PARTS, MAX_TREE_OUTPUT
from pman.jobdb.store import JobStore


def recorded(name: str, *path: str) -> tuple[str, dict[str, Any]]:
    """Return job name and tree of a recorded GET."""
    body: Any = golden.recorded_body(golden.load(name))
    for key in path or ("GET",):
        body = body[key]
    ((job_name, tree),) = body.items()
    return job_name, tree


def reader(tree: dict[str, Any]) -> view.ReadOutput:
    texts = {(part, stream): text for part, stream, text in output_of(tree)}
    return lambda _name, part, stream: texts[part, stream]


def keys_in_order(value: Any) -> Any:
    """Return the value with dicts as lists of pairs, so that order counts."""
    if isinstance(value, dict):
        return [(key, keys_in_order(item)) for key, item in value.items()]
    return [keys_in_order(item) for item in value] if isinstance(value, list) else value


def test_tree_is_that_of_2_2_to_the_order_of_keys() -> None:
    name, theirs = recorded("host-080-get-job")
    job, _ = job_from_leaves(name, theirs)
    ours = view.job_tree(job, reader(theirs))
    record = ours.pop("record")
    assert keys_in_order(ours) == keys_in_order(theirs)
    assert record["state"] == "COMPLETED"
    assert record["exit_code"] == 0


def test_running_compound_job_is_shown_as_by_2_2() -> None:
    name, start = recorded("host-203-info-while-second-subjob-runs", "d_ret", "0.0")
    _, end = recorded("host-203-info-while-second-subjob-runs", "d_ret", "0.1")
    meta = {"d_meta": "{}", "cmd": "true; sleep 6; exit 4", "jid": "prem", "auid": "t"}
    job, _ = job_from_leaves(name, meta | start | end)
    job.state = JobState.RUNNING
    job.parts.append(Part(" exit 4"))
    read = reader(start | end)
    assert keys_in_order(view.job_leaf(job, "startInfo", read)) == keys_in_order(start["startInfo"])
    assert keys_in_order(view.job_leaf(job, "endInfo", read)) == keys_in_order(end["endInfo"])
    assert view.start_triggers(job) == [True]
    assert view.return_codes(job) == [0]
    assert view.job_tree(job, read)["jobCount"] == 0
    assert view.status_word(job) == "started"  # row 9.1; DEFECTS 34


def test_container_folder_is_that_of_2_2() -> None:
    name, theirs = recorded("swarm-009-get-container-tree")
    leaves = {"cmd": 'echo "sleep 20"', "d_meta": "{}", "jid": "sw-1", "auid": "t", **theirs}
    job, _ = job_from_leaves(name, leaves)
    theirs["container"]["currentState"] = "finishedSuccessfully"  # DEFECTS 40: it was stale
    assert view.container_tree(job) == theirs["container"]
    assert list(view.container_tree(job) or {})[-2:] == ["manager", "target"]
    looked_up = view.look_into(job, ("container", "state", "Status", "State"), no_output)
    assert looked_up[name]["container"]["state"]["Status"]["State"] == "complete"


def test_service_name_is_shown_where_it_is_a_default() -> None:
    block = {"target": {"image": "x"}, "manager": {"image": "m", "env": {"shareDir": "/s"}}}
    job = make_job("sw-1", backend="swarm", container=block)
    tree = view.container_tree(job) or {}
    assert tree["manager"]["env"] == {"shareDir": "/s", "serviceName": "sw-1"}
    assert job.container == block
    assert view.container_tree(make_job()) is None


def test_and_not_where_the_service_has_a_name_of_its_own() -> None:
    block = {"uniqueName": True, "manager": {"image": "m", "env": {"shareDir": "/s"}}}
    tree = view.container_tree(make_job("sw-1", backend="swarm", container=block)) or {}
    assert tree["manager"]["env"] == {"shareDir": "/s"}
    assert view.with_service_name(block, "sw-1") == block


def test_empty_objects_of_a_block_have_contents() -> None:
    job = make_job(backend="swarm", container={"a": {}, "b": [{}]})
    assert view.container_tree(job) == {
        "b": [{}],
        "currentState": "notstarted",
        "a": {"contents": None},
    }


@pytest.mark.parametrize(
    ("started", "ended", "state", "triggers", "codes", "count"),
    [  # WIRE.md 4.4 and 8.2, jobCount; three parts
        (0, 0, JobState.NEW, 0, [], 0),
        (1, 0, JobState.RUNNING, 1, [], 0),
        (1, 1, JobState.RUNNING, 1, [7], 0),
        (2, 1, JobState.RUNNING, 1, [7], 0),
        (3, 2, JobState.RUNNING, 2, [7], 1),
        (3, 3, JobState.RUNNING, 2, [7, 8], 2),
        (3, 3, JobState.FAILED, 3, [7, 8, 9], 3),
        (2, 1, JobState.LOST, 2, [7, None], 2),
        (2, 2, JobState.CANCELED, 2, [7, 8], 2),
        (0, 0, JobState.FAILED, 0, [], 0),
    ],
)
def test_epochs(
    started: int, ended: int, state: JobState, triggers: int, codes: list[int], count: int
) -> None:
    parts = [Part(f"p{n}") for n in range(3)]
    for n in range(started):
        parts[n].started_at = THEN + n
    for n in range(ended):
        parts[n].ended_at = THEN + n + 0.5
        parts[n].returncode = 7 + n
    job = make_job(state=state, parts=parts, facts=FACTS)
    assert view.start_triggers(job) == [True] * triggers
    assert view.return_codes(job) == codes
    tree = view.job_tree(job, no_output)
    assert tree["jobCount"] == count
    assert len(tree["start"]) == started + state.is_final
    assert len(tree["end"]) == (started + 1 if state.is_final else ended)
    assert ("endInfo" in tree) == (ended > 0 or state.is_final)
    for epoch in range(started):
        assert list(tree["start"][str(epoch)]["startInfo"]) == [str(n) for n in range(epoch + 1)]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (JobState.NEW, "notstarted"),
        (JobState.QUEUED, "notstarted"),
        (JobState.RUNNING, "started"),
        (JobState.COMPLETED, "finishedSuccessfully"),
        (JobState.FAILED, "finishedWithError"),
        (JobState.CANCELED, "finishedWithError"),
        (JobState.LOST, "finishedWithError"),
    ],
)
def test_words(state: JobState, word: str) -> None:
    assert view.status_word(make_job(state=state)) == word


def test_containers_have_a_trigger_and_a_code_each() -> None:
    job = make_job(backend="swarm", container={"target": {"image": "x"}})
    assert view.start_triggers(job) == []
    assert view.return_codes(job) == []
    job.state = JobState.RUNNING
    job.workers = [Worker("a", "running"), Worker("b", "pending"), Worker("c", "failed", 3)]
    assert view.start_triggers(job) == [True, True]
    assert view.return_codes(job) == [3]
    job.state, job.exit_code = JobState.FAILED, 3
    job.workers = [Worker("a", "complete", 0), Worker("b", "complete", 0), Worker("c", "failed", 3)]
    assert view.start_triggers(job) == [True, True, True]
    assert view.return_codes(job) == [0, 0, 3]
    texts = {0: "one ", 1: "two ", 2: "three"}
    tree = view.job_tree(job, lambda _n, part, stream: texts[part] if stream == "stdout" else "")
    assert tree["end"]["0"]["endInfo"]["0"]["stdout"] == "one two three"
    assert tree["end"]["0"]["endInfo"]["0"]["returncode"] == 3


def test_container_that_never_started_has_no_codes() -> None:
    job = make_job(backend="swarm", container={}, state=JobState.FAILED)
    job.workers = [Worker("a", "rejected", None, "image_pull_failed")]
    assert (view.start_triggers(job), view.return_codes(job)) == ([], [])
    assert view.job_tree(job, no_output)["end"] == {"0": {"endInfo": {"allJobsDone": True}}}


def test_manager_keys_are_leaves_of_their_own() -> None:
    meta = {"cmd": "true", "cmdMgr": "free text", "cmdMgr_byte_str": "more"}
    job = make_job("j", meta=json.dumps(meta))
    tree = view.job_tree(job, no_output)
    assert list(tree)[:4] == ["d_meta", "cmdMgr", "cmdMgr_byte_str", "cmd"]
    assert (tree["cmdMgr"], tree["cmdMgr_byte_str"]) == ('"free text"', '"more"')


def test_empty_ids_have_no_leaf() -> None:
    tree = view.job_tree(make_job("", auid=""), no_output)
    assert list(tree) == ["d_meta", "cmd", "jobCount", "record", "start", "end"]


# --- look-ups -----------------------------------------------------------------------------


def store_of(*jobs: Job) -> JobStore:
    store = JobStore(MemoryJournal())
    store.load(jobs)
    return store


def test_lookup_reads_only_what_it_shows() -> None:
    asked: list[tuple[int, str]] = []

    def read(_name: str, part: int, stream: str) -> str:
        asked.append((part, stream))
        return "text"

    job = finished_job("a", (0, 0, 0))
    store = store_of(job)
    for path in ("_0/jid", "_0/end/1/endInfo/1/returncode", "_0/startInfo", "_0/record/state"):
        view.lookup(store, path.split("/"), read)
    assert asked == []
    found = view.lookup(store, ["_0", "end", "2", "endInfo", "1", "stderr"], read)
    assert found == {job.name: {"end": {"2": {"endInfo": {"1": {"stderr": "text"}}}}}}
    assert asked == [(1, "stderr")]
    view.lookup(store, [job.name], read)
    assert len(asked) == 1 + 2 * 3  # each stream once, whatever the number of its copies


def test_lookup_of_list_and_offsets() -> None:
    one, two = finished_job("1"), finished_job("2")
    store = store_of(one, two)
    assert view.lookup(store, [], no_output) == {one.name: {}, two.name: {}}
    assert view.lookup(store, [""], no_output) == {one.name: {}, two.name: {}}
    assert view.lookup(store, ["_-1", "jid"], no_output) == {two.name: {"jid": "2"}}
    for first in ("_2", "_-3", "_x", "_", "_1_000", "_٣", "_" + "9" * 5000):
        assert view.lookup(store, [first, "jid"], no_output) is False


@pytest.mark.parametrize(
    "path",
    [
        "nosuch",
        "no/such/file",
        "jid/foo",
        "jid?x=1",
        "/jid",
        "end/1/endInfo/1",
        "end/0/endInfo/0/uname/0",
        "x']if(1)else['x",
        "start/-1",
        "__class__",
    ],
)
def test_what_is_not_there_is_false(path: str) -> None:
    job = finished_job()
    node: Any = view.lookup(store_of(job), [job.name, *path.split("/")], no_output)
    for name in [job.name, *path.split("/")]:
        assert list(node) == [name]
        node = node[name]
    assert node is False


def test_unknown_job_is_an_error() -> None:
    store = store_of(finished_job())
    for path in (["nosuch"], ["..", "jid"], ["cmd"], ["x", "y", "endInfo"]):
        with pytest.raises(UnknownJob):
            view.lookup(store, path, no_output)
    with pytest.raises(UnknownJob):
        view.lookup(store, ["_0", *["a"] * 30_000], no_output)


def test_leaves() -> None:
    job = finished_job("a")
    assert view.job_leaf(job, "jid") == "a"
    assert view.job_leaf(job, "endInfo") == {"allJobsDone": True}
    assert view.job_leaf(job, "end") is view.MISSING
    assert view.job_leaf(job, "nosuch") is view.MISSING


# --- size ---------------------------------------------------------------------------------


def test_output_of_a_tree_is_limited() -> None:
    text = "x" * (1024 * 1024)
    job = finished_job("big", [0] * 20)
    tree = view.job_tree(job, lambda *_: text)
    total = sum(
        len(subjob["stdout"]) + len(subjob["stderr"])
        for when in ("start", "end")
        for epoch in list(tree[when].values())[:-1]
        for subjob in epoch[f"{when}Info"].values()
    )
    assert total < MAX_TREE_OUTPUT + 1024 * 1024
    last = view.look_into(job, ("end", "19", "endInfo", "19", "stderr"), lambda *_: text)
    assert last[job.name]["end"]["19"]["endInfo"]["19"]["stderr"] == text


def test_tree_of_very_many_parts_does_not_grow_with_the_square() -> None:
    count = 50 * MAX_CUMULATIVE_PARTS
    job = finished_job("many", [0] * count)
    tree = view.job_tree(job, no_output)
    assert list(tree["end"][str(count - 1)]["endInfo"]) == [str(count - 1)]
    deep = view.look_into(job, ("end", str(count - 1), "endInfo"), no_output)
    assert len(deep[job.name]["end"][str(count - 1)]["endInfo"]) == count


def test_facts_are_spelled_as_2_2_did() -> None:
    facts = msgspec.convert(
        {"system": "S", "machine": "m", "platform": "p", "uname": ["a", "b"], "version": "v"},
        HostFacts,
    )
    job = finished_job(name="20261123084157.670218_87cc0151-0c9f-40c2-85a1-97d12e2effc6")
    job.facts = facts
    subjob = view.job_tree(job, no_output)["end"]["0"]["endInfo"]["0"]
    assert subjob["uname"] == ["a", "b"]
    assert list(subjob)[5:10] == ["system", "machine", "platform", "uname", "version"]
