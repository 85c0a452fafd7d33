"""A `Job` made of the leaves that 2.2, or `tree22`, wrote for it. Pure."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from pman.job.record import HostFacts, Job, Part, Worker
from pman.job.state import JobState
from pman.wire import HOST

#: Leaves of `container/` that are not part of the block as sent. Source: WIRE.md 14.3.
BACKEND_LEAVES = frozenset({"state", "logs", "currentState"})

#: 2.2 kept records of container jobs in swarm mode only.
_CONTAINER_BACKEND = "swarm"

_LOST = "the job had not finished when this record was written"

#: part number, stream, text
Output = tuple[int, str, str]


def job_from_leaves(name: str, leaves: dict[str, Any]) -> tuple[Job, list[Output]]:
    """Return the job that 2.2's leaves describe, and what it printed.

    A job that had not finished becomes LOST: nobody follows it any more.

    Args:
        name: Job folder name; tells when the job was accepted.
        leaves: Leaves and folders of the job.
    Raises:
        ValueError: A leaf is missing or of the wrong kind.
    """
    subjobs = _subjobs(leaves)
    is_over = "allJobsDone" in _object(leaves.get("endInfo", {}))
    container, extra = _container(leaves.get("container"))
    job = Job(
        name=name,
        jid=_text(leaves, "jid"),
        auid=_text(leaves, "auid"),
        cmd=_text(leaves, "cmd", is_needed=True),
        meta=_text(leaves, "d_meta", is_needed=True),
        backend=HOST if container is None else _CONTAINER_BACKEND,
        container=container,
        extra=extra,
        accepted_at=_moment(name.partition("_")[0], "%Y%m%d%H%M%S.%f"),
        parts=[_part(subjob) for subjob in subjobs],
        facts=_facts(subjobs),
    )
    job.started_at = min((p.started_at for p in job.parts if p.started_at), default=None)
    job.ended_at = max((p.ended_at for p in job.parts if p.ended_at), default=None)
    if container is not None:
        _end_container_job(job)
    elif is_over:
        _end_host_job(job)
    else:
        _lose(job)
    return job, list(_output(subjobs)) if container is None else []


def job_from_record(name: str, record: Any) -> Job:
    """Return the job that a record describes; see `job_from_leaves`.

    Its handle is left out: it would let whoever wrote the tree point a backend at things of others.

    Raises:
        ValueError: It is not a record, or one of another job.
    """
    job = msgspec.convert(record, Job)
    if job.name != name:
        raise ValueError(f"it holds the record of {job.name!r}")
    job.handle = None
    job.hold = ""
    if not job.state.is_final:
        _lose(job)
    return job


def output_of(leaves: dict[str, Any]) -> list[Output]:
    """Return what the sub-jobs of a job printed; without any, what its containers did.

    Raises:
        ValueError: A leaf is of the wrong kind.
    """
    subjobs = _subjobs(leaves)
    if not subjobs:  # no container was seen to start, and yet there may be output
        logs = _object(leaves.get("container", {})).get("logs")
        return [(0, "stdout", logs)] if isinstance(logs, str) else []
    return list(_output(subjobs))


def _subjobs(leaves: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sub-jobs in order; what an end says comes after what a start says."""
    found: dict[int, dict[str, Any]] = {}
    for when in ("start", "end"):
        epochs = _object(leaves.get(when, {}))
        held = [_object(_object(epoch).get(f"{when}Info", {})) for epoch in epochs.values()]
        held.append(_object(leaves.get(f"{when}Info", {})))
        for info in held:
            for number, subjob in info.items():
                if number.isdecimal():
                    found.setdefault(int(number), {}).update(_object(subjob))
    if sorted(found) != list(range(len(found))):
        raise ValueError(f"sub-jobs {sorted(found)}, expected them to count from 0")
    return [found[number] for number in range(len(found))]


def _part(subjob: dict[str, Any]) -> Part:
    return Part(
        cmd=_text(subjob, "cmd", is_needed=True),
        pid=_number(subjob, "pid"),
        started_at=_stamp(subjob, "startstamp"),
        ended_at=_stamp(subjob, "endstamp"),
        returncode=_number(subjob, "returncode"),
    )


def _facts(subjobs: list[dict[str, Any]]) -> HostFacts | None:
    if not subjobs or "system" not in subjobs[0]:
        return None
    return msgspec.convert(
        {name: subjobs[0].get(name) for name in HostFacts.__struct_fields__}, HostFacts
    )


def _output(subjobs: list[dict[str, Any]]) -> Iterator[Output]:
    for number, subjob in enumerate(subjobs):
        for stream in ("stdout", "stderr"):
            yield number, stream, _text(subjob, stream)


def _container(tree: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the block as sent, and what was seen of the container."""
    if tree is None:
        return None, None
    tree = _object(tree)
    extra = {name: tree[name] for name in sorted(BACKEND_LEAVES, reverse=True) if name in tree}
    extra.pop("currentState", None)  # a word of the moment
    block = {name: _unfold(value) for name, value in tree.items() if name not in BACKEND_LEAVES}
    return block, extra or None


def _unfold(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value == {"contents": None}:  # 2.2's spelling of an empty object
        return {}
    return {name: _unfold(item) for name, item in value.items()}


def _end_host_job(job: Job) -> None:
    codes = [part.returncode for part in job.parts]
    bad = next((code for code in codes if code != 0), 0)
    job.state = JobState.FAILED if bad != 0 else JobState.COMPLETED
    job.reason = "ok" if bad == 0 else "error"
    if bad is not None and bad < 0:
        job.signal = -bad
    else:
        job.exit_code = bad
    if job.ended_at is None:
        job.ended_at = job.accepted_at


def _end_container_job(job: Job) -> None:
    """Take the end from the task that 2.2 kept; its sub-job was an echo on the host."""
    job.parts = []
    task = (job.extra or {}).get("state")
    status = _object(_object(task).get("Status", {})) if task is not None else {}
    word = status.get("State")
    if word not in ("complete", "failed"):
        _lose(job)
        return
    seen = _object(status.get("ContainerStatus", {}))
    code = _number(seen, "ExitCode")
    job.workers = [Worker(name=_text(_object(task), "ID"), state=word, returncode=code)]
    job.exit_code = code
    job.state = JobState.COMPLETED if word == "complete" else JobState.FAILED
    job.reason = "ok" if word == "complete" else "error"
    job.message = _text(status, "Err")
    if job.started_at is None:
        job.started_at = job.accepted_at


def _lose(job: Job) -> None:
    job.state = JobState.LOST
    job.reason = "lost"
    job.message = _LOST
    if job.ended_at is None:
        moments = [job.accepted_at, job.started_at, *(part.ended_at for part in job.parts)]
        job.ended_at = max(moment for moment in moments if moment is not None)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{json.dumps(value)[:80]} is not an object")
    return value


def _text(leaves: dict[str, Any], name: str, *, is_needed: bool = False) -> str:
    value = leaves.get(name, None if is_needed else "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is {json.dumps(value)[:80]}, expected text")
    return value


def _number(leaves: dict[str, Any], name: str) -> int | None:
    value = leaves.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{name} is {json.dumps(value)[:80]}, expected a whole number")
    return value


def _stamp(leaves: dict[str, Any], name: str) -> float | None:
    text = _text(leaves, name)
    return _moment(text, "%Y-%m-%d %H:%M:%S.%f") if text else None


def _moment(text: str, layout: str) -> float:
    """Return epoch seconds of a local time."""
    return datetime.datetime.strptime(text, layout).timestamp()
