"""The record tree of 2.2 for one job, as a view on its `Job`. Pure but for `read_output`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb.lazytree import Folder, constant, descend
from pman.jobdb.subjobs import (
    Progress,
    is_subjob_ended,
    progress,
    started_parts,
    subjob_fields,
)
from pman.output import STREAMS, joined
from pman.wire import HOST

#: Returns a stream as text, given `Job.shown_run_name`, part number and `stdout` or `stderr`.
ReadOutput = Callable[[str, int, str], str]

#: Characters of output that one tree may hold, copies counted: 2.2 repeats each sub-job in every
#: later epoch. What is left out can be had by its own path.
MAX_TREE_OUTPUT = 64 * 1024 * 1024

#: From so many sub-jobs on an epoch of a whole tree holds its own sub-job only: n sub-jobs make
#: n * (n + 1) copies. A path that names an epoch still finds all of them.
MAX_CUMULATIVE_PARTS = 99

#: Folders within folders that a container block may become.
MAX_BLOCK_DEPTH = 20

STATE_WORDS: dict[JobState, str] = {
    JobState.NEW: "notstarted",
    JobState.QUEUED: "notstarted",
    JobState.RUNNING: "started",
    JobState.COMPLETED: "finishedSuccessfully",
    JobState.FAILED: "finishedWithError",
    JobState.CANCELED: "finishedWithError",
    JobState.LOST: "finishedWithError",
}

#: Keys of the request that become leaves of their own.
_MANAGER_KEYS = ("cmdMgr", "cmdMgr_byte_str")

_MARKERS = {"startInfo": {"allJobsStarted": True}, "endInfo": {"allJobsDone": True}}


def status_word(job: Job) -> str:
    """Return the word of `l_status`. Source: ARCHITECTURE, "Wire spelling"."""
    return STATE_WORDS[job.state]


def record_leaf(job: Job) -> dict[str, Any]:
    """Return the `record` leaf: what 2.2's tree has no place for; times in UTC epoch seconds."""
    leaf: dict[str, Any] = {
        "state": job.state.value,
        "backend": job.backend,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "reason": job.reason,
        "message": job.message,
        "accepted_at": job.accepted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
    }
    if job.progress is not None:
        leaf["progress"], leaf["progress_text"] = job.progress, job.progress_text
    return leaf


def container_tree(job: Job, read_output: ReadOutput | None = None) -> dict[str, Any] | None:
    """Return the `container` folder: the block as sent, and what the backend saw; or None.

    Args:
        read_output: For the leaf `logs` of a job that has ended; without it there is none.
    Source: WIRE.md 14.1; leaves come before folders, as everywhere. `currentState` is the word of
    the moment.
    """
    if job.container is None:
        return None
    block = job.container
    if job.backend != HOST:
        block = with_service_name(block, job.jid)
    leaves, folders = _block(block)
    if job.backend != HOST:
        leaves |= job.extra or {}
        if read_output is not None and job.state.is_final and job.workers:
            leaves["logs"] = _container_output(job, read_output)
        leaves["currentState"] = status_word(job)
    return leaves | {name: folders[name] for name in sorted(folders) if name not in leaves}


class RecordTree:
    """One job's tree. Lives as long as one look-up: it remembers what it has read."""

    def __init__(self, job: Job, read_output: ReadOutput, *, is_cumulative: bool = True) -> None:
        self._job = job
        self._read_output = read_output
        self._is_cumulative = is_cumulative
        self._copies = 0  # of a sub-job's output in what is asked for; 0: it depends on the sub-job
        self._left = MAX_TREE_OUTPUT
        self._parts = started_parts(job)
        self._subjobs: dict[int, Folder] = {}

    def look_up(self, path: Sequence[str]) -> Any:
        """Return the JSON value at `path` (the whole tree for an empty one), or MISSING."""
        if len(path) > 1:
            self._copies = 1
            self._is_cumulative = True
        elif len(self._parts) > MAX_CUMULATIVE_PARTS:
            self._is_cumulative = False
        return descend(self._top(), path)

    def leaf_names(self) -> list[str]:
        """Return the names of the top folder's leaves."""
        return list(self._leaves(progress(self._job)))

    def _top(self) -> Folder:
        done = progress(self._job)
        makers = self._leaves(done)
        if self._job.container is not None:
            makers["container"] = lambda: container_tree(self._job, self._read_output)
        makers["start"] = lambda: self._epochs("startInfo", done.started, done)
        makers["end"] = lambda: self._epochs("endInfo", done.ended, done)
        return Folder(makers)

    def _leaves(self, done: Progress) -> dict[str, Callable[[], Any]]:
        job = self._job
        makers: dict[str, Callable[[], Any]] = {"d_meta": constant(job.meta)}
        makers |= _manager_leaves(job)
        makers["cmd"] = constant(job.cmd)
        if job.auid:
            makers["auid"] = constant(job.auid)
        if job.jid:
            makers["jid"] = constant(job.jid)
        makers["jobCount"] = constant(done.ended if done.is_over else max(0, done.ended - 1))
        for leaf, epochs in (("startInfo", done.started), ("endInfo", done.ended)):
            if done.is_over:
                makers[leaf] = constant(_MARKERS[leaf])
            elif epochs:
                makers[leaf] = self._snapshot_maker(epochs - 1, is_latest=True)
        makers["record"] = lambda: record_leaf(job)
        return makers

    def _epochs(self, leaf: str, count: int, done: Progress) -> Folder:
        makers: dict[str, Callable[[], Any]] = {}
        for epoch in range(count):
            makers[str(epoch)] = constant(Folder({leaf: self._snapshot_maker(epoch)}))
        if done.is_over:
            makers[str(count)] = constant({leaf: _MARKERS[leaf]})
        return Folder(makers)

    def _snapshot_maker(self, epoch: int, *, is_latest: bool = False) -> Callable[[], Folder]:
        def make() -> Folder:
            first = 0 if self._is_cumulative or is_latest else epoch
            return Folder({str(n): constant(self._subjob(n)) for n in range(first, epoch + 1)})

        return make

    def _subjob(self, index: int) -> Folder:
        if index not in self._subjobs:
            part = self._parts[index]
            fields = subjob_fields(self._job, part)
            makers = {name: constant(value) for name, value in fields.items()}
            if is_subjob_ended(self._job, part):
                for stream in ("stdout", "stderr"):
                    makers[stream] = self._output_maker(index, stream)
            self._subjobs[index] = Folder(makers)
        return self._subjobs[index]

    def _output_maker(self, index: int, stream: str) -> Callable[[], str]:
        return lambda: self._output(index, stream)

    def _output(self, index: int, stream: str) -> str:
        job = self._job
        if job.backend == HOST:
            text = self._read_output(job.shown_run_name, index, stream)
        else:
            workers = range(max(1, len(job.workers)))
            text = "".join(self._read_output(job.shown_run_name, n, stream) for n in workers)
        copies = self._copies or self._copies_of(index)
        room = self._left // copies
        if len(text) > room:
            missing = len(text) - room
            text = f"[pman: {missing} characters before this are not shown]\n{text[missing:]}"
        self._left = max(0, self._left - len(text) * copies)
        return text

    def _copies_of(self, index: int) -> int:
        return 2 * (len(self._parts) - index) if self._is_cumulative else 2


def _container_output(job: Job, read_output: ReadOutput) -> str:
    """Return what all containers have printed, one after the other."""
    return joined(
        read_output(job.shown_run_name, n, stream)
        for n in range(max(1, len(job.workers)))
        for stream in STREAMS
    )


def _manager_leaves(job: Job) -> dict[str, Callable[[], Any]]:
    if '"cmdMgr' not in job.meta:  # saves reading the JSON of nearly every job
        return {}
    try:
        meta = json.loads(job.meta)
    except (ValueError, RecursionError):
        return {}  # text of a foreign tree; it is shown as it is, in `d_meta`
    if not isinstance(meta, dict):
        return {}
    return {key: constant(json.dumps(meta[key])) for key in _MANAGER_KEYS if key in meta}


def with_service_name(block: dict[str, Any], jid: str) -> dict[str, Any]:
    """Return the block with the service name that it gets by default. Source: WIRE.md 4.2.

    A service with a name of its own is called otherwise.
    """
    manager = block.get("manager")
    env = manager.get("env") if isinstance(manager, dict) else None
    if (
        not isinstance(manager, dict)
        or not isinstance(env, dict)
        or "serviceName" in env
        or block.get("uniqueName") is True
        or not jid
    ):
        return block
    return block | {"manager": manager | {"env": env | {"serviceName": jid}}}


def _block(block: dict[str, Any], depth: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split an object into leaves and folders; arrays are leaves, so is what lies very deep."""
    leaves: dict[str, Any] = {}
    folders: dict[str, Any] = {}
    for name, value in block.items():
        if isinstance(value, dict) and depth < MAX_BLOCK_DEPTH:
            inner_leaves, inner_folders = _block(value, depth + 1)
            folders[name] = (inner_leaves | inner_folders) or {"contents": None}
        else:
            leaves[name] = value
    return leaves, folders
