"""`backends`: where jobs can run, and how that stands."""

from __future__ import annotations

import collections
from typing import Annotated

import msgspec

from pman.actions import action
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.job.state import JobState


class BackendsRequest(msgspec.Struct, frozen=True):
    """Nothing has to be said."""


class BackendView(msgspec.Struct, frozen=True, rename="camel"):
    """One place to run jobs."""

    name: Annotated[str, msgspec.Meta(description="`host`, `swarm`, `openshift`")]
    state: Annotated[str, msgspec.Meta(description="`ok`, or why nothing can be run there now")]
    running: Annotated[int, msgspec.Meta(description="the caller's jobs that run")]
    waiting: Annotated[int, msgspec.Meta(description="the caller's jobs that wait")]
    limits: Annotated[
        dict[str, int],
        msgspec.Meta(description="`jobs`, `jobsPerAuid`: most that run at a time, where limited"),
    ]


class BackendList(msgspec.Struct, frozen=True):
    """All places to run jobs."""

    backends: Annotated[list[BackendView], msgspec.Meta(description="in the order of their names")]


@action("backends", takes=BackendsRequest)
def backends(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer `{"backends": [{"name", "state", "running", "waiting", "limits"}]}`; always true."""
    request.read_as(BackendsRequest)
    running: collections.Counter[str] = collections.Counter()
    waiting: collections.Counter[str] = collections.Counter()
    for job in context.store.unfinished():
        counted = running if job.state is JobState.RUNNING else waiting
        counted[job.backend] += 1
    shown = [
        BackendView(name, each.state(), running[name], waiting[name], _limits(name, context))
        for name, each in sorted(context.backends.items())
    ]
    return Outcome(True, msgspec.to_builtins(BackendList(shown)))


def _limits(name: str, context: ActionContext) -> dict[str, int]:
    limits = {}
    most = dict(context.settings.max_jobs)
    jobs = most.get(name, most.get("", 0))
    if jobs:
        limits["jobs"] = jobs
    if context.settings.max_jobs_per_auid:
        limits["jobsPerAuid"] = context.settings.max_jobs_per_auid
    return limits
