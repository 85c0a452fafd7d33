"""Every action, and requests for it that name a job in each way there is.

An action that is new has to be entered here: the tests of rights go by this table, and fail for
one that is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

Meta = dict[str, Any]


class Target(msgspec.Struct, frozen=True):
    """A job that requests are about, or one that never was."""

    jid: str
    name: str
    auid: str
    cmd: str

    def blanked(self, raw: bytes) -> bytes:
        """Return a reply without what the request has told it."""
        for field in self.__struct_fields__:
            raw = raw.replace(getattr(self, field).encode(), f"<{field}>".encode())
        return raw


class Entry(msgspec.Struct, frozen=True):
    """One action.

    Attributes:
        changes: Whether it starts, ends or changes something.
        metas: Makes requests about a job.
    """

    changes: bool
    metas: Callable[[Target], list[Meta]]


def _selecting(target: Target, /, **more: Any) -> list[Meta]:
    """Return requests that find a job by each of its leaves."""
    pairs = {"jid": target.jid, "auid": target.auid, "cmd": target.cmd}
    return [
        *({"key": key, "value": value, **more} for key, value in pairs.items()),
        {"key": "jid", "value": target.jid, "threaded": True, **more},
        {"key": "jid", "value": [target.jid], **more},
        {"value": target.jid, **more},
        {"key": "jid", **more},
    ]


def _looks(job: Target) -> list[Meta]:
    paths = [f"/{job.name}", f"/{job.name}/", f"/{job.name}/jid", f"/{job.name}{'/x' * 200}"]
    return [{"path": path} for path in paths]


def _runs(job: Target) -> list[Meta]:
    plain = {"cmd": "true", "auid": "", "jid": job.jid, "threaded": True}
    return [
        plain,
        plain | {"idempotent": True},
        plain | {"auid": job.auid},
        plain | {"auid": job.auid, "idempotent": True},
        plain | {"container": {"target": {"image": "none"}}},
        plain | {"after": [job.jid]},
    ]


def _naming(job: Target, **more: Any) -> list[Meta]:
    """Return requests that name a job in each way of the newer actions."""
    return [
        {"jid": job.jid, **more},
        {"jid": [job.jid], **more},
        {"job": job.name, **more},
        {"job": [job.name], **more},
        {"jid": job.jid, "job": job.name, **more},
    ]


def _lists(job: Target) -> list[Meta]:
    return [
        {},
        {"limit": 1},
        {"jid": job.jid},
        {"auid": job.auid},
        {"jidPrefix": job.jid},
        {"state": "COMPLETED"},
        {"backend": "host"},
        {"label": {}},
        {"since": 0.0},
    ]


def _events(job: Target) -> list[Meta]:
    """Return requests that begin at given numbers: without one the answer tells the time.

    Those that do not name the one job ask for a kind that there is none of, as the caller may have
    jobs of its own with the same id.
    """
    none = {"kind": "progress"}
    by_name = {"job": job.name, "fromStart": True}
    return [
        by_name,
        by_name | {"wait": 0.05},
        by_name | {"jid": job.jid, "auid": job.auid, "label": {}, "limit": 1},
        {"job": job.name, "since": 1},
        {"job": job.name, "since": 2**52, "wait": 0.05},
        {"auid": job.auid, "fromStart": True},
        {"auid": job.auid, "since": 0, "state": ["RUNNING"]},
        {"jid": job.jid, "fromStart": True, **none},
        {"jid": job.jid, "since": 1, "wait": 0.05, **none},
        {"fromStart": True, **none},
        {"since": 2**52, **none},
    ]


def _logs(job: Target) -> list[Meta]:
    return [
        {"jid": job.jid},
        {"job": job.name},
        {"jid": job.jid, "stream": "stdout", "part": 0, "offset": 0},
        {"jid": job.jid, "attempt": 2},
        {"job": job.name, "follow": True},
        {"job": job.name, "raw": True, "stream": "stdout"},
    ]


def _waits(job: Target) -> list[Meta]:
    return [*_naming(job, timeout=0), *_naming(job, timeout=0, mode="any")]


def _searches(job: Target) -> list[Meta]:
    return [
        *_selecting(job),
        *_selecting(job, path="/jid"),
        *_selecting(job, path="/x" * 200),
        *_selecting(job, job="0", field="stdout"),
    ]


ACTION_TABLE: dict[str, Entry] = {
    "backends": Entry(False, lambda job: [{}, {"jid": job.jid}]),
    "cancel": Entry(True, lambda job: [*_naming(job), *_naming(job, wait=True, grace=0)]),
    "DBctl": Entry(True, lambda _: [{"do": do} for do in ("save", "load", "clear", "list")]),
    "delete": Entry(True, _selecting),
    "done": Entry(False, _selecting),
    "events": Entry(False, _events),
    "fileiosetup": Entry(False, lambda job: [{"value": job.jid}]),
    "get": Entry(False, _looks),
    "hello": Entry(False, lambda job: [{"askAbout": "echoBack", "echoBack": job.jid}]),
    "info": Entry(False, _selecting),
    "list": Entry(False, _lists),
    "logs": Entry(False, _logs),
    "quit": Entry(True, lambda _: [{}, {"saveDB": True}]),
    "run": Entry(True, _runs),
    "search": Entry(False, _searches),
    "status": Entry(False, _selecting),
    "wait": Entry(False, _waits),
}

#: Paths of GET that name a job.
GET_PATHS: list[Callable[[Target], str]] = [
    lambda job: f"/api/v1/{job.name}",
    lambda job: f"/api/v1/{job.name}/",
    lambda job: f"/api/v1/{job.name}/jid",
    lambda job: f"/api/v1/{job.name}/record/state",
    lambda job: f"/x/y/{job.name}/end/0/endInfo/0/stdout",
    lambda job: f"/api/v1/{job.name}{'/x' * 200}",
    lambda job: f"/api/v1/{job.jid}",
]

#: What PUT can ask for.
PUT_METAS: list[Meta] = [
    {"context": "db"},
    *({"context": "db", "operation": word} for word in ("save", "load", "clear")),
    {"context": "db", "operation": "clear", "key": "auid", "value": "bob"},
    {"context": "other"},
]
