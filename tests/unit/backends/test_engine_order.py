"""What a container job asks for: read into plain units, or refused by name."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from pman.backends._engine.names import (
    MAX_NAME,
    legal_name,
    own_name,
    run_name,
    unique_name,
    unique_part,
)
from pman.backends._engine.order import Manager, Order, order_from_meta
from pman.errors import RequestError
from pman.job.record import Job

#: The container block of 2.2's README.
BLOCK = {
    "target": {"image": "fnndsc/pl-simpledsapp:version-1.0.8", "cmdParse": False},
    "manager": {
        "image": "fnndsc/swarm",
        "app": "swarm.py",
        "env": {
            "meta-store": "key",
            "serviceType": "docker",
            "shareDir": "/hostFS/storeBase/somedata/",
            "serviceName": "testService",
        },
    },
}


def order(**meta: Any) -> Order:
    return order_from_meta({"cmd": "ls", "jid": "1", "auid": "", "container": BLOCK} | meta)


def block(part: str, **values: Any) -> dict[str, Any]:
    """Return the block with other values in one of its parts."""
    changed: dict[str, Any] = {**BLOCK, "manager": dict(BLOCK["manager"])}
    if part == "env":
        changed["manager"]["env"] = BLOCK["manager"]["env"] | values  # type: ignore[operator]
    else:
        changed[part] = changed[part] | values
    return changed


def test_the_request_of_the_readme() -> None:
    given = order(
        cmd="ls /share",
        jid="a-job-id-2",
        number_of_workers="1",
        cpu_limit="1000",
        memory_limit="200",
        gpu_limit="0",
    )
    assert given == Order(
        job_name="",
        jid="a-job-id-2",
        cmd="ls /share",
        image="fnndsc/pl-simpledsapp:version-1.0.8",
        command=["ls", "/share"],
        workers=1,
        cpu_millis=1000,
        memory_bytes=200 * 2**20,
        gpus=0,
        share_dir="/hostFS/storeBase/somedata",
        service_name="testService",
        manager=Manager("fnndsc/swarm", "swarm.py"),
    )


def test_what_is_not_said_is_left_to_the_engine() -> None:
    given = order_from_meta({"cmd": "", "jid": 5, "container": {"target": {"image": "x"}}})
    assert given == Order(job_name="", jid="5", cmd="", image="x", command=[])


@pytest.mark.parametrize(
    ("cmd", "words"),
    [
        ("sh -c 'echo \"a b\"; exit 3'", ["sh", "-c", 'echo "a b"; exit 3']),
        ('echo "$(touch /tmp/x)" ; ls', ["echo", "$(touch /tmp/x)", ";", "ls"]),
        ("a  b\n c", ["a", "b", "c"]),
        ("echo ''", ["echo", ""]),
    ],
)
def test_a_command_becomes_words_and_nothing_is_carried_out(cmd: str, words: list[str]) -> None:
    assert order(cmd=cmd).command == words


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("cpu_limit", "500m", "cpu_millis", 500),
        ("cpu_limit", 1500, "cpu_millis", 1500),
        ("cpu_limit", "", "cpu_millis", None),
        ("cpu_limit", None, "cpu_millis", None),
        ("memory_limit", "1Gi", "memory_bytes", 2**30),
        ("memory_limit", "500M", "memory_bytes", 500_000_000),
        ("memory_limit", 64, "memory_bytes", 64 * 2**20),
        ("memory_limit", " 1k ", "memory_bytes", 1000),
        ("gpu_limit", "2", "gpus", 2),
        ("gpu_limit", 0, "gpus", 0),
        ("number_of_workers", 3, "workers", 3),
        ("number_of_workers", "1000", "workers", 1000),
        ("env", {"A": "x", "B_1": 5}, "env", {"A": "x", "B_1": "5"}),
        ("labels", {"a/b": "c", "n": 1}, "labels", {"a/b": "c", "n": "1"}),
    ],
)
def test_values_in_plain_units(key: str, value: Any, field: str, expected: Any) -> None:
    assert getattr(order(**{key: value}), field) == expected


@pytest.mark.parametrize(
    ("field", "meta"),
    [
        ("cmd", {"cmd": "echo 'never ends"}),
        *(
            ("cpu_limit", {"cpu_limit": bad})
            for bad in ("x", "0", "-1", "1.5", 1.5, True, [], "1G")
        ),
        *(
            ("memory_limit", {"memory_limit": bad})
            for bad in ("x", "0", "1Q", "1m", -5, {}, "٣", "9" * 15 + "Ti")
        ),
        *(("gpu_limit", {"gpu_limit": bad}) for bad in ("x", "-1", 1.0, "1m")),
        *(("number_of_workers", {"number_of_workers": bad}) for bad in (0, "0", 1001, "x", -1)),
        ("env", {"env": ["A=1"]}),
        ("env", {"env": {"1A": "x"}}),
        ("env", {"env": {"A=B": "x"}}),
        ("env.A", {"env": {"A": True}}),
        ("env.A", {"env": {"A": "a\0b"}}),
        ("labels", {"labels": "x"}),
        ("labels", {"labels": {"pman.job": "x"}}),
        ("labels", {"labels": {"a b": "x"}}),
        ("labels.a", {"labels": {"a": "x" * 64}}),
        ("labels.a", {"labels": {"a": True}}),
        ("container.target", {"container": {"target": "x"}}),
        ("container.target.image", {"container": {}}),
        ("container.target.image", {"container": block("target", image=" ")}),
        ("container.target.image", {"container": block("target", image=5)}),
        ("container.target.image", {"container": block("target", image="--remove")}),
        ("container.target.image", {"container": block("target", image="local/a:1 -c true")}),
        ("container.target.image", {"container": block("target", image='a" -c "true')}),
        ("container.target.image", {"container": block("target", image="Upper/Case")}),
        ("container.manager", {"container": {**BLOCK, "manager": []}}),
        ("container.manager.image", {"container": block("manager", image=5)}),
        ("container.manager.env", {"container": block("manager", env="x")}),
        ("container.manager.env.shareDir", {"container": block("env", shareDir="relative")}),
        ("container.manager.env.shareDir", {"container": block("env", shareDir=5)}),
        ("container.manager.env.shareDir", {"container": block("env", shareDir="/x/..")}),
        ("container.manager.env.shareDir", {"container": block("env", shareDir="/x/../y")}),
        ("container.manager.env.shareDir", {"container": block("env", shareDir="/x/./")}),
        ("container.manager.env.shareDir", {"container": block("env", shareDir="/a\0b")}),
        ("container.manager.env.serviceName", {"container": block("env", serviceName=[])}),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(field: str, meta: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        order(**meta)
    assert (caught.value.field, caught.value.hint) == (field, 400)
    assert field in caught.value.message
    assert "expected" in caught.value.message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a-job-id-2", "a-job-id-2"),
        ("Job_17 (copy)", "job-17-copy"),
        ("-x-", "x"),
        ("", "job-1"),
        ("///", "job-1"),
        ("é", "job-1"),
        ("a" * 100, "a" * MAX_NAME),
        ("a" * 62 + "-b", "a" * 62),
    ],
)
def test_names_are_legal(text: str, name: str) -> None:
    assert legal_name(text, "job-1") == name


@pytest.mark.parametrize(
    "image",
    [
        "busybox",
        "fnndsc/pl-a.b__c--d:Tag_1.0",
        "localhost:5000/a/b",
        "[::1]:5000/a",
        "registry.example.org/a/b:1@sha256:" + "0" * 64,
        "sha256:" + "f" * 64,
    ],
)
def test_names_of_images(image: str) -> None:
    assert order(container=block("target", image=image)).image == image


# --- names that no other job has --------------------------------------------------------------


def test_a_name_of_its_own_is_asked_for_in_the_block() -> None:
    assert not order().has_own_name
    assert order(container=BLOCK | {"uniqueName": True}).has_own_name
    with pytest.raises(RequestError) as caught:
        order(container=BLOCK | {"uniqueName": "yes"})
    assert caught.value.field == "container.uniqueName"


@pytest.mark.parametrize("base", ["a", "a-", "x" * MAX_NAME, f"{'x' * 53}-y"])
def test_own_names_are_legal_and_differ(base: str) -> None:
    names = {own_name(base, f"job_{n}") for n in range(100)}
    assert len(names) == 100
    assert {legal_name(name, "fallback") for name in names} == names


def test_an_own_name_is_the_same_each_time_and_another_with_each_try() -> None:
    assert own_name("a", "job_1") == own_name("a", "job_1")
    assert own_name("a", "job_1") != own_name("a", "job_1_r2")


# --- run in full ------------------------------------------------------------------------------


def test_argv_becomes_the_command_as_it_is() -> None:
    words = ["sh", "-c", "echo 'a b'; exit"]
    meta = {"argv": words, "jid": "1", "auid": "", "container": BLOCK, "cwd": "/tmp"}
    given = order_from_meta(meta)
    assert (given.command, given.cwd) == (words, "/tmp")
    assert shlex.split(given.cmd) == words
    assert order().cwd is None


def test_standard_input_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="no standard input") as refused:
        order(stdin="x")
    assert refused.value.field == "stdin"


def test_what_is_not_given_is_left_out() -> None:
    made = order(stdin="", argv=[], cwd="", labels=None, env={"A": None, "B": "1"})
    assert (made.command, made.cwd, made.labels, made.env) == (["ls"], None, {}, {"B": "1"})


# --- names of tries ---------------------------------------------------------------------------

UUID = "B64ea2f0-1111-4222-8333-444444444444"
NAME = f"20261123090253.309797_{UUID}"


def test_each_try_of_a_job_has_a_name_of_its_own() -> None:
    tries = [NAME, *(f"{NAME}_r{number}" for number in range(2, 200))]
    assert unique_name(tries[0]) == UUID.lower()
    assert unique_name(tries[1]) == f"{UUID.lower()}-r2"
    assert all(len(name) <= MAX_NAME for name in tries)
    for length in (5, 8):
        parts = [unique_part(name, length) for name in tries]
        assert parts[0] == UUID[:length].lower().rstrip("-")
        assert all(re.fullmatch(f"[0-9a-f]{{{length}}}", part) for part in parts)
        assert parts[0] != parts[1] != parts[2]


def test_a_try_is_known_by_its_own_name_whoever_holds_the_job() -> None:
    fields: dict[str, Any] = {"jid": "", "auid": "", "cmd": "", "meta": "{}", "backend": "swarm"}
    kept = Job(name=NAME, attempt=3, accepted_at=0.0, **fields)
    handed_on = Job(name=f"{NAME}_r3", attempt=3, accepted_at=0.0, **fields)
    assert run_name(kept) == run_name(handed_on) == f"{NAME}_r3"
    assert run_name(Job(name=NAME, accepted_at=0.0, **fields)) == NAME
