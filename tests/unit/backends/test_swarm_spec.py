"""The service that Docker is asked for: field by field as 2.2's, but for the named differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pman.backends._engine.names import SUFFIX_LENGTH
from pman.backends._engine.order import Order
from pman.backends._swarm.engine import SwarmEngine
from pman.backends._swarm.spec import (
    MAX_NAME,
    MAX_SIZE,
    check_name,
    check_resources,
    check_size,
    gpu_kind,
    service_name,
    service_spec,
)
from pman.config import Settings
from pman.errors import RequestError

GOLDEN = Path(__file__).parents[2] / "golden" / "swarm-010-service-object.json"

#: Where the service differs from the recorded one: (path, ours or None for "not sent", why).
#: Rows that begin with 14 are those of ARCHITECTURE, "Where the contract is overruled".
DIFFERENCES: list[tuple[str, Any, str]] = [
    ("TaskTemplate.ContainerSpec.TTY", None, "14.2: no TTY"),
    ("TaskTemplate.ContainerSpec.DNSConfig", None, "the engine's default, not sent"),
    ("TaskTemplate.ContainerSpec.Isolation", None, "the engine's default, not sent"),
    ("UpdateConfig", None, "the engine's default, not sent"),
    ("RollbackConfig", None, "the engine's default, not sent"),
    (
        "Labels",
        {"pman.instance": "lab", "pman.jid": "j1", "pman.job": "job-1"},
        "labels of every object that pman makes",
    ),
    (
        "TaskTemplate.ContainerSpec.Labels",
        {"pman.instance": "lab", "pman.jid": "j1", "pman.job": "job-1"},
        "labels of every object that pman makes",
    ),
]


def order(**fields: Any) -> Order:
    """Return an order like that of the recorded exchange."""
    values: dict[str, Any] = {
        "job_name": "job-1",
        "jid": "j1",
        "cmd": "sleep 20",
        "image": "local/busybox:1",
        "command": ["sleep", "20"],
    }
    return Order(**(values | fields))


def spec(one: Order, **arguments: Any) -> dict[str, Any]:
    """Return its service."""
    values: dict[str, Any] = {"instance": "lab", "share_path": None, "stop_grace_s": 10.0}
    return service_spec(one, **(values | arguments))


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set or, for None, drop one field."""
    *folders, name = path.split(".")
    for folder in folders:
        tree = tree[folder]
    if value is None:
        del tree[name]
    else:
        tree[name] = value


def test_the_service_is_that_of_2_2_but_for_named_differences() -> None:
    recorded = json.loads(GOLDEN.read_text())["service"][0]["Spec"]
    for path, ours, _why in DIFFERENCES:
        put(recorded, path, ours)
    made = spec(order(service_name="sw-1"), share_path="/tmp/share/key-1")
    assert made == recorded


def test_limits_environment_labels_and_workers_are_passed_on() -> None:
    made = spec(
        order(
            cpu_millis=500,
            memory_bytes=200 << 20,
            gpus=2,
            workers=3,
            env={"A": "1", "B": "x=y"},
            labels={"team": "blue"},
        ),
        gpu_kind="NVIDIA-GPU",
    )
    template = made["TaskTemplate"]
    assert template["Resources"] == {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 209_715_200},
        "Reservations": {
            "GenericResources": [{"DiscreteResourceSpec": {"Kind": "NVIDIA-GPU", "Value": 2}}]
        },
    }
    assert template["ContainerSpec"]["Env"] == ["A=1", "B=x=y"]
    assert made["Mode"] == {"Replicated": {"Replicas": 3}}
    assert made["Labels"]["team"] == "blue"
    assert "Mounts" not in template["ContainerSpec"]


def test_an_empty_command_leaves_the_entry_point() -> None:
    assert "Command" not in spec(order(command=[]))["TaskTemplate"]["ContainerSpec"]


def test_a_clients_label_does_not_replace_ours() -> None:
    made = spec(order(labels={"pman.job": "stolen"}))
    assert made["Labels"]["pman.job"] == "job-1"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"service_name": "Given_Name"}, "Given_Name"),
        ({"jid": "Job #7"}, "job-7"),
        ({"jid": "Job_7-a"}, "Job_7-a"),
        ({"jid": "", "job_name": "20260101000000.000000_0a1b2c3d-1111"}, "job-0a1b2c3d"),
        ({"jid": "x" * 80}, "x" * 63),
        ({"jid": "", "job_name": ""}, "job"),
    ],
)
def test_a_service_is_called(fields: dict[str, Any], name: str) -> None:
    assert service_name(order(**fields)) == name


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 63, None])
def test_a_name_that_docker_takes_is_taken(name: str | None) -> None:
    check_name(order(service_name=name))


@pytest.mark.parametrize("name", ["-a", "a-", "a.b", "a b", "x" * 64, "a\n", "ä", "a;b"])
def test_a_name_that_docker_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="expected at most 63") as refused:
        check_name(order(service_name=name))
    assert refused.value.field == "container.manager.env.serviceName"


def node(cpus: int = 2, gpus: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return a node as the engine lists it."""
    resources = {"NanoCPUs": cpus * 10**9, "GenericResources": gpus}
    return {"ID": "n", "Description": {"Resources": resources}}


DISCRETE = {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}
NAMED = [{"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": f"uuid-{n}"}} for n in range(3)]
OTHER = {"DiscreteResourceSpec": {"Kind": "license", "Value": 9}}


def test_gpus_are_found_by_their_name() -> None:
    assert gpu_kind([node(), node(gpus=[OTHER])]) == ""
    assert gpu_kind([node(gpus=[DISCRETE, OTHER])]) == "gpu"
    assert gpu_kind([node(gpus=[DISCRETE]), node(gpus=NAMED)]) == "NVIDIA-GPU"


@pytest.mark.parametrize(
    ("fields", "nodes", "words"),
    [
        ({"cpu_millis": 4001}, [node(2), node(4)], "cpu_limit is 4001m, expected at most 4000m"),
        ({"memory_bytes": 1}, [node()], "memory_limit is 1 bytes, expected at least"),
        ({"gpus": 1}, [node(gpus=[OTHER])], "no node of this swarm offers GPUs"),
        ({"gpus": 4}, [node(gpus=NAMED), node(gpus=[DISCRETE])], "gpu_limit is 4, .* at most 3"),
    ],
)
def test_more_than_there_is_is_refused(
    fields: dict[str, Any], nodes: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(RequestError, match=words) as refused:
        check_resources(order(**fields), nodes)
    assert refused.value.field in ("cpu_limit", "memory_limit", "gpu_limit")


def test_what_there_is_is_given() -> None:
    one = order(cpu_millis=2000, memory_bytes=6 << 20, gpus=3)
    check_resources(one, [node(gpus=NAMED)])
    check_resources(one, [{"ID": "n", "Description": {"Resources": {"GenericResources": NAMED}}}])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("env", {"env": {f"V{n}": "x" * 100 for n in range(MAX_SIZE // 100)}}),
        ("labels", {"labels": {f"k{n}": "v" * 50 for n in range(MAX_SIZE // 100)}}),
        ("jid", {"jid": "j" * MAX_SIZE}),
        ("cmd", {"cmd": "c" * (MAX_SIZE + 1)}),
    ],
)
def test_what_is_too_long_for_a_service_is_refused(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=f"{field} is .* characters long") as refused:
        check_size(order(**values))
    assert refused.value.field == field


def test_a_long_command_is_taken() -> None:
    check_size(order(cmd="c" * 131_072, env={"A": "x" * 100_000}))


@pytest.mark.parametrize(
    "fields", [{}, {"service_name": "as_sent"}, {"jid": "no name!"}, {"jid": "x" * MAX_NAME}]
)
def test_a_service_with_a_name_of_its_own(fields: dict[str, str]) -> None:
    plain = service_name(order(**fields))
    own = service_name(order(has_own_name=True, **fields))
    base, _, suffix = own.rpartition("-")
    assert plain.startswith(base)
    assert len(suffix) == SUFFIX_LENGTH
    check_name(order(service_name=own))
    assert own != service_name(order(has_own_name=True, job_name="job-2", **fields))
    assert spec(order(has_own_name=True, **fields))["Name"] == own


def test_nobody_is_asked_who_has_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SwarmEngine(Settings(db_path=tmp_path), "lab", tmp_path)
    asked: list[str] = []
    monkeypatch.setattr(engine, "_occupant", asked.append)
    engine.check(order(has_own_name=True))
    assert asked == []
    engine.check(order())
    assert asked == ["j1"]
