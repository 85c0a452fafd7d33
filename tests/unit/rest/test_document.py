"""The OpenAPI document says what there is, in words as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from action_harness import Harness
from jobdb_builders import finished_job
from jsonschema import Draft202012Validator
from rest_harness import ask

from pman.rest.openapi import build

DOCUMENT = build()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def check(value: Any, schema: dict[str, Any]) -> None:
    """Check a value against a schema of the document."""
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def properties(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each property of each schema below a node, with where it is."""
    if isinstance(node, list):
        for each in node:
            yield from properties(each, path)
    elif isinstance(node, dict):
        found = node.get("properties", {}) if node.get("type") == "object" else {}
        for name, schema in found.items():
            yield f"{path}.{name}", schema
        for key, value in node.items():
            yield from properties(value, f"{path}.{key}")


def test_every_property_is_described() -> None:
    found = list(properties(DOCUMENT))
    assert len(found) > 100
    assert [path for path, schema in found if not schema.get("description")] == []


def test_every_answer_and_every_parameter_is_described() -> None:
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert all(each["description"] for each in operation["parameters"])
            for answer in operation["responses"].values():
                assert answer["description"]
                for content in answer.get("content", {}).values():
                    schema = content["schema"]
                    assert schema.get("type") != "string" or schema["description"]


def request_examples() -> list[Any]:
    return [
        pytest.param(content["schema"], example["value"], id=f"{operation['operationId']}-{name}")
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for name, example in content["examples"].items()
    ]


@pytest.mark.parametrize(("schema", "body"), request_examples())
def test_a_body_that_is_shown_is_one(schema: dict[str, Any], body: Any) -> None:
    check(body, schema)


@pytest.mark.parametrize(
    "name", ["DryRun", "EventPage", "JobPage", "JobView", "LogPage", "Problem"]
)
def test_an_answer_that_is_shown_is_one(name: str) -> None:
    (example,) = SCHEMAS[name]["examples"]
    check(example, reference(name))


@pytest.mark.parametrize(
    ("method", "path", "body", "name"),
    [
        ("GET", "", None, "Index"),
        ("GET", "/jobs", None, "JobPage"),
        ("GET", "/jobs/a", None, "JobView"),
        ("GET", "/jobs/nobody", None, "Problem"),
        ("GET", "/jobs/a/logs", None, "LogPage"),
        ("GET", "/events?since=0", None, "EventPage"),
        ("GET", "/backends", None, "BackendList"),
        ("POST", "/jobs?dryRun=true", {"cmd": "true"}, "DryRun"),
    ],
)
def test_an_answer_has_what_its_schema_says_and_no_more(
    pman: Harness, method: str, path: str, body: Any, name: str
) -> None:
    pman.store.load([finished_job("a", codes=(0, 3))])
    answer = ask(pman, method, path, body).json
    check(answer, reference(name))
    assert set(answer) <= set(SCHEMAS[name]["properties"])
    pairs = [(answer.get("jobs"), "JobView"), (answer.get("events"), "EventView")]
    for entries, of in pairs:
        for entry in entries or ():
            assert set(entry) == set(SCHEMAS[of]["properties"])
