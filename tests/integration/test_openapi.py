"""The OpenAPI document is valid, and the daemon answers as it says, whatever is sent.

What schemathesis makes up is sent to a real daemon whose jobs only pretend to run: its commands are
run nowhere.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
import schemathesis
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

import pman.actions
from pman.actions import ACTIONS
from pman.rest.openapi import build

STUB_DAEMON = Path(__file__).parents[1] / "stub_daemon.py"

#: Requests that are made up for each operation and each kind of id.
EXAMPLES = 40

#: Longest that a made-up request may wait, seconds.
MAX_WAIT_S = 0.02

#: What the document can't say: which texts are cursors or commands, and which of 2.2's spellings of
#: a truth value are taken beside `true` and `false`.
NOT_CHECKED = [positive_data_acceptance, negative_data_rejection]

ACTIONS.load(pman.actions)
DOCUMENT = build()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=SchemathesisConfig.from_dict({"seed": 6}))


@pytest.fixture(scope="module")
def pman(new_shared_daemon: NewDaemon) -> DaemonProcess:
    """A daemon that only pretends to run jobs."""
    daemon = new_shared_daemon(name="stub", is_started=False, container_env="stub")
    daemon.command = [sys.executable, str(STUB_DAEMON), *daemon.command[3:]]
    return daemon.start()


def started(daemon: DaemonProcess, **fields: str) -> str:
    """Start a job that ends when it is told to; return its id."""
    body = json.dumps({"cmd": "wait", **fields})
    made = daemon.request("POST", "/api/v2/jobs", body, {"Content-Type": "application/json"})
    assert made.status == 201, made.body
    name: str = made.json()["id"]
    return name


def send(case: schemathesis.Case, daemon: DaemonProcess) -> None:
    """Send what was made up, without the long waits that it may ask for; check the answer."""
    query = case.query if isinstance(case.query, dict) else {}
    for name in ("timeout", "wait"):
        with contextlib.suppress(TypeError, ValueError):  # it is no number, which is refused
            query[name] = min(float(query.get(name, 0)), MAX_WAIT_S)
    if case.operation.path.endswith("/wait"):
        query.setdefault("timeout", MAX_WAIT_S)
    query.pop("follow", None)  # a stream that has no end
    case.query = query
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{daemon.port}/api/v2", excluded_checks=NOT_CHECKED
    )


def test_the_document_is_valid() -> None:
    openapi_spec_validator.validate(DOCUMENT)


def test_the_daemon_serves_the_document(pman: DaemonProcess) -> None:
    assert pman.request("GET", "/api/v2/openapi.json").json() == DOCUMENT


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_is_answered_as_documented(
    case: schemathesis.Case, pman: DaemonProcess
) -> None:
    send(case, pman)


@pytest.mark.slow
@SCHEMA.include(path_regex=r"\{id\}").parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_so_it_is_for_a_job_that_is_there(case: schemathesis.Case, pman: DaemonProcess) -> None:
    case.path_parameters = {"id": started(pman)}
    send(case, pman)


def examples() -> list[Any]:
    """Return each example of the document: method, path, body."""
    return [
        pytest.param(method, path, example["value"], id=operation["operationId"])
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for example in content.get("examples", {}).values()
    ]


@pytest.mark.parametrize(("method", "path", "body"), examples())
def test_the_examples_work(pman: DaemonProcess, method: str, path: str, body: Any) -> None:
    path = "/api/v2" + path.replace("{id}", started(pman, jid="greeting"))
    headers = {"Content-Type": "application/json"}
    reply = pman.request(method.upper(), path, json.dumps(body), headers)
    assert reply.status < 300, reply.body
