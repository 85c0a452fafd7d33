"""Examples of what REST answers, for the OpenAPI document; made of the structs themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from pman.jobdb.jobview import JobView, PartView
from pman.rest.problems import Problem
from pman.rest.schemas import DryRun, EventPage, EventView, JobPage, LogPage, LogRecord

_ID = "20261123085228.150649_4b3e7dd7-8406-49b0-b158-170bda4bfe63"

_JOB = JobView(
    id=_ID,
    jid="greeting",
    auid="me",
    cmd="echo hello",
    backend="host",
    state="COMPLETED",
    status="finishedSuccessfully",
    reason="ok",
    message="",
    exit_code=0,
    signal=None,
    attempt=1,
    retries=0,
    priority=0,
    labels={"team": "blue"},
    after=[],
    hold="",
    progress=None,
    progress_text="",
    created_at=1795423948.150649,
    started_at=1795423948.162211,
    ended_at=1795423948.164036,
    parts=[PartView("echo hello", 0, 1795423948.162211, 1795423948.164036)],
    workers=[],
)

_EVENT = EventView(
    seq=1795423948164921,
    at=1795423948.164507,
    kind="state",
    job=_ID,
    jid="greeting",
    auid="me",
    backend="host",
    state="COMPLETED",
    reason="ok",
    message="",
    exit_code=0,
    signal=None,
    attempt=1,
    progress=None,
    progress_text="",
    labels={"team": "blue"},
)

_LOG = LogPage(
    job=_ID,
    jid="greeting",
    state="COMPLETED",
    cursor="eyJqIjoiMjAyNjExMjMwODUyMjguMTUwNjQ5XzRiM2U3ZGQ3LTg0MDYtNDliM"
    "C1iMTU4LTE3MGJkYTRiZmU2MyIsImEiOjEsIm8iOnsiMC5zdGRvdXQiOjZ9fQ",
    is_complete=True,
    records=[
        LogRecord(part=0, stream="stdout", attempt=1, offset=0, next=6, text="hello\n"),
    ],
)

_DRY_RUN = DryRun(
    dry_run={
        "backend": "host",
        "parts": ["echo hello"],
        "argv": ["echo", "hello"],
        "cwd": "/var/lib/pman",
        "env": {},
        "stdinBytes": None,
    },
    backend="host",
    cmd="echo hello",
    after=[],
)

_PROBLEM = Problem(
    type="about:blank",
    title="Bad Request",
    status=400,
    detail="limit is '0', expected int >= 1",
    instance="/api/v2/jobs",
    kind="RequestError",
    field="limit",
)

#: One answer of each kind.
ANSWERS: tuple[msgspec.Struct, ...] = (
    _PROBLEM,
    _JOB,
    JobPage(jobs=[_JOB], next=None),
    _LOG,
    EventPage(events=[_EVENT], next=_EVENT.seq, first_seq=1795420000000000, gap=False),
    _DRY_RUN,
)

#: Bodies of `POST /jobs`: what they show -> the body.
JOBS: dict[str, dict[str, Any]] = {
    "host": {"cmd": "echo hello", "jid": "greeting", "labels": {"team": "blue"}},
    "container": {
        "cmd": "ls /share",
        "jid": "listing",
        "cpu_limit": 1000,
        "memory_limit": "200Mi",
        "timeout": 60,
        "container": {
            "target": {"image": "fnndsc/pl-simpledsapp:version-1.0.8"},
            "manager": {"env": {"shareDir": "/hostFS/storeBase/somedata"}},
        },
    },
}
