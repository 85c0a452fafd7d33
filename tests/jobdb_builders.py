"""Jobs, journals and recorded trees for the tests of the job DB."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pman.errors import SnapshotError
from pman.job.event import Event
from pman.job.record import HostFacts, Job, Part, local_stamp
from pman.job.state import JobState
from pman.jobdb.database import Database
from pman.jobdb.journal import Commit, Done
from pman.services.writer import Writer

#: How long anything in a test may take before it counts as failed, seconds.
DEADLINE_S = 20.0

#: A moment, in UTC epoch seconds.
THEN = 1_795_423_317.670218

FACTS = HostFacts(
    system="Linux",
    machine="x86_64",
    platform="Linux-6-x86_64",
    uname=("Linux", "vm", "6", "#1", "x86_64", ""),
    version="#1",
)

_serial = iter(range(10**9))


def make_job(jid: str = "job-1", cmd: str = "true", **fields: Any) -> Job:
    """Return a job that was accepted a millisecond after the one before."""
    at = fields.pop("accepted_at", THEN + next(_serial) / 1000)
    auid = fields.pop("auid", "tester")
    name = fields.pop("name", f"{local_stamp(at)}_{uuid.uuid4()}")
    meta = fields.pop("meta", json.dumps({"cmd": cmd, "auid": auid, "jid": jid}))
    backend = fields.pop("backend", "host")
    return Job(
        name=name,
        jid=jid,
        auid=auid,
        cmd=cmd,
        meta=meta,
        backend=backend,
        accepted_at=at,
        **fields,
    )


def finished_job(jid: str = "job-1", codes: Sequence[int] = (0,), **fields: Any) -> Job:
    """Return a host job that has ended, one part per code, each of 0.5 s."""
    at = THEN
    parts = [Part(f"part {n}", 100 + n, at + n, at + n + 0.5, code) for n, code in enumerate(codes)]
    is_good = not any(codes)
    return make_job(
        jid,
        ";".join(part.cmd for part in parts),
        state=JobState.COMPLETED if is_good else JobState.FAILED,
        reason="ok" if is_good else "error",
        exit_code=next((code for code in codes if code), 0),
        started_at=at,
        ended_at=at + len(codes),
        parts=parts,
        facts=FACTS,
        **fields,
    )


class MemoryJournal:
    """A journal that commits when `settle` is called, in the caller's thread."""

    def __init__(self) -> None:
        self.queue: list[Commit] = []
        self.log: list[tuple[str, Any]] = []
        self.events: list[Event] = []

    def write(
        self,
        job: Job,
        *,
        fresh: bytes | None = None,
        on_done: Done | None = None,
        events: Sequence[Event] = (),
    ) -> Commit:
        self.events += events
        self.log.append(("fresh" if fresh is not None else "write", job))
        return self._add(Commit(on_done))

    def delete(self, names: Sequence[str], events: Sequence[Event] = ()) -> Commit:
        self.events += events
        self.log.append(("delete", tuple(names)))
        return self._settled()

    def replace(
        self, names: Sequence[str], jobs: Sequence[Job], events: Sequence[Event] = ()
    ) -> Commit:
        self.events += events
        self.log.append(("replace", (tuple(names), tuple(jobs))))
        return self._settled()

    def barrier(self) -> Commit:
        return self._add(Commit())

    def settle(self, error: SnapshotError | None = None) -> None:
        """Commit all that is queued."""
        queue, self.queue = self.queue, []
        for commit in queue:
            commit.settle(error)

    def _add(self, commit: Commit) -> Commit:
        self.queue.append(commit)
        return commit

    def _settled(self) -> Commit:
        commit = Commit()
        commit.settle()
        return commit


@contextlib.contextmanager
def running_writer(folder: Path) -> Iterator[Writer]:
    """Yield a writer on a new `pman.db` in `folder`."""
    writer = Writer(Database.create(folder / "pman.db", [], str(uuid.uuid4())))
    writer.start()
    writer.wait_ready()
    try:
        yield writer
    finally:
        stop(writer)


def stop(service: Any) -> None:
    """Stop a service; it must end without a failure."""
    service.request_stop()
    assert service.join(time.monotonic() + DEADLINE_S)
    assert service.failure is None


def plant(tree: dict[str, Any], root: Path) -> None:
    """Write the files of a recorded tree; a key that ends in `/` is an empty folder."""
    for name, text in tree.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def nested(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded tree as nested objects."""
    result: dict[str, Any] = {}
    for name, text in tree.items():
        *folders, leaf = name.rstrip("/").split("/")
        node = result
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = {} if text is None else json.loads(text)
    return result


def no_output(_name: str, _part: int, _stream: str) -> str:
    return ""
