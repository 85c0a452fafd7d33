"""The 2.2 tree as a view on the records: what GET and the reading actions show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from pman.errors import UnknownJob, shown
from pman.job.record import Job
from pman.jobdb.lazytree import MISSING
from pman.jobdb.recordtree import (
    ReadOutput,
    RecordTree,
    container_tree,
    record_leaf,
    status_word,
    with_service_name,
)
from pman.jobdb.subjobs import return_codes, start_triggers

__all__ = [
    "MISSING",
    "ReadOutput",
    "container_tree",
    "job_leaf",
    "job_tree",
    "look_into",
    "lookup",
    "record_leaf",
    "return_codes",
    "start_triggers",
    "status_word",
    "with_service_name",
]

#: Components of a path; the answer to a longer one would be nested too deeply for JSON.
MAX_COMPONENTS = 100

_OFFSET = re.compile(r"_(-?[0-9]{1,9})")


class JobList(Protocol):
    """What a look-up needs of `JobStore`."""

    def names(self) -> list[str]:
        """Return the job names, in order."""

    def at(self, index: int) -> Job | None:
        """Return the n-th job."""

    def get(self, name: str) -> Job | None:
        """Return a job by name."""


def job_tree(job: Job, read_output: ReadOutput, *, is_cumulative: bool = True) -> dict[str, Any]:
    """Return the whole tree of one job.

    Args:
        is_cumulative: As 2.2 does, each epoch repeats the sub-jobs before its own.
    Source: WIRE.md 8.2; `record` is the one leaf that 2.2 does not have.
    """
    tree: dict[str, Any] = RecordTree(job, read_output, is_cumulative=is_cumulative).look_up(())
    return tree


def job_leaf(job: Job, key: str, read_output: ReadOutput | None = None) -> Any:
    """Return a leaf of the job's top folder, or MISSING; a folder is not a leaf.

    Args:
        read_output: Without it output is taken as empty.
    """
    tree = RecordTree(job, read_output or _no_output)
    return tree.look_up((key,)) if key in tree.leaf_names() else MISSING


def look_into(job: Job, path: Sequence[str], read_output: ReadOutput) -> dict[str, Any]:
    """Return nested objects from the job's name down to what lies at `path`; false: nothing there.

    Raises:
        UnknownJob: The path is longer than any that there is.
    """
    if len(path) > MAX_COMPONENTS:
        raise UnknownJob(f"the path has {len(path)} components, expected {MAX_COMPONENTS} at most")
    result = _or_false(RecordTree(job, read_output).look_up(path))
    for name in reversed(path):
        result = {name: result}
    return {job.name: result}


def lookup(jobs: JobList, components: Sequence[str], read_output: ReadOutput) -> Any:
    """Return what a GET of a path shows.

    Args:
        components: Of the path behind `/api/v1`, as sent; [] and [""] are the root.
    Returns:
        The list of jobs for the root; false when `_<n>` names no job; else as `look_into`.
    Raises:
        UnknownJob: The first component names no job.
    Source: WIRE.md 5 and ARCHITECTURE, row 5.
    """
    if not components or list(components) == [""]:
        return {name: {} for name in jobs.names()}
    first, rest = components[0], components[1:]
    if first.startswith("_"):
        offset = _OFFSET.fullmatch(first)
        job = None if offset is None else jobs.at(int(offset[1]))
        return False if job is None else look_into(job, rest, read_output)
    job = jobs.get(first)
    if job is None:
        raise UnknownJob(f"there is no job {shown(first)}")
    return look_into(job, rest, read_output)


def _or_false(value: Any) -> Any:
    return False if value is MISSING else value


def _no_output(_job_name: str, _part: int, _stream: str) -> str:
    return ""
