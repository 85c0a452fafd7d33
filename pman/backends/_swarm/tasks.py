"""From a service and its tasks, as the engine lists them, to a `View`. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pman.backends._engine.codes import signal_of
from pman.backends._engine.port import JOB_LABEL, Phase, View
from pman.backends._swarm.facts import Fact, epoch_s
from pman.job.record import Worker
from pman.job.state import JobState


class Stage(enum.Enum):
    """How far one task is."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


#: Source: moby/swarmkit, api/types.proto, TaskState; docs.docker.com, "Swarm task states".
STAGES: dict[str, Stage] = {
    "new": Stage.WAITING,
    "pending": Stage.WAITING,
    "assigned": Stage.WAITING,
    "accepted": Stage.WAITING,
    "preparing": Stage.WAITING,
    "ready": Stage.WAITING,
    "starting": Stage.WAITING,
    "running": Stage.RUNNING,
    "complete": Stage.ENDED,
    "failed": Stage.ENDED,
    "rejected": Stage.ENDED,
    "shutdown": Stage.ENDED,  # the engine ended it: its node was drained, or it was scaled away
    "remove": Stage.ENDED,
    "orphaned": Stage.ENDED,  # its node has been away for a day
}

#: Constraint that no node meets, of a service that was told to end; see `stopping`.
STOPPED = "node.labels.pman.stopped==always"

#: How a task that ended tells so: (outcome, reason). A failed one is looked at more closely.
OUTCOMES: dict[str, tuple[JobState, str]] = {
    "complete": (JobState.COMPLETED, "ok"),
    "failed": (JobState.FAILED, "error"),
    "rejected": (JobState.FAILED, "rejected"),
    "shutdown": (JobState.FAILED, "evicted"),
    "remove": (JobState.FAILED, "evicted"),
    "orphaned": (JobState.LOST, "lost"),
}

#: An image that could not be had, in the words of engines and registries.
_IMAGE_TROUBLE = re.compile(
    r"no such image|pull access denied|manifest (?:unknown|for \S+ not found)|not found: manifest"
    r"|repository does not exist|no matching manifest|failed to resolve reference"
    r"|error pulling image|toomanyrequests|no basic auth credentials|unauthorized: ",
    re.IGNORECASE,
)
#: A registry that could not be reached: its path, and behind that one of these. As one pattern it
#: would try each path with all that follows.
_REGISTRY_PATH = "/v2/"
_NOT_REACHED = re.compile(r"dial tcp|x509|timeout|no such host|refused")


class TaskView(msgspec.Struct, frozen=True):
    """One task, judged. Attributes as of `View`; `can_start_yet`: it ended, and may be retried."""

    task: Mapping[str, Any]
    stage: Stage
    worker: Worker
    outcome: JobState | None = None
    has_started: bool = False
    can_start_yet: bool = False
    started_at: float | None = None
    ended_at: float | None = None


def newest(tasks: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the newest task of each slot, by slot; a task that is tried again has several.

    Those that were only made to end others are left out.
    """
    found: dict[int, Mapping[str, Any]] = {}
    for task in sorted(tasks, key=_age):
        if not is_stopped(task.get("Spec")):
            found[task.get("Slot", 0)] = task
    return [found[slot] for slot in sorted(found)]


def _age(task: Mapping[str, Any]) -> tuple[float, int]:
    created = epoch_s(task.get("CreatedAt")) or 0.0
    return created, (task.get("Version") or {}).get("Index", 0)


def is_stopped(template: Mapping[str, Any] | None) -> bool:
    """Return whether a task or a service was made what it is to end a job."""
    placement = (template or {}).get("Placement") or {}
    return STOPPED in (placement.get("Constraints") or [])


def stage_of(task: Mapping[str, Any]) -> Stage:
    """Return how far a task is; a state that we don't know is taken for one before its start."""
    return STAGES.get((task.get("Status") or {}).get("State", "new"), Stage.WAITING)


def container_id(task: Mapping[str, Any]) -> str:
    """Return the id of a task's container, "" when there is none (yet)."""
    status = (task.get("Status") or {}).get("ContainerStatus") or {}
    return status.get("ContainerID") or ""


def has_tty(task: Mapping[str, Any]) -> bool:
    """Return whether a task's output comes without frames."""
    return bool(((task.get("Spec") or {}).get("ContainerSpec") or {}).get("TTY"))


def view_of(
    service: Mapping[str, Any],
    tasks: Iterable[Mapping[str, Any]],
    fact_of: Callable[[str], Fact] = lambda _task_id: Fact(),
    lost_nodes: Mapping[str, str] | None = None,
) -> View:
    """Say what a service and its tasks mean for the job.

    Args:
        service: As the engine lists it.
        tasks: All tasks of it that there are.
        fact_of: What is known of a task besides.
        lost_nodes: {id: name} of the nodes that are down.
    """
    spec = service.get("Spec") or {}
    is_ending = is_stopped(spec.get("TaskTemplate"))
    replicas = (((spec.get("Mode") or {}).get("Replicated")) or {}).get("Replicas", 1)
    judged = [
        _judge(task, fact_of(task["ID"]), lost_nodes or {}, is_ending) for task in newest(tasks)
    ]
    handle = {"service": service["ID"], "name": spec.get("Name", "")}
    if any(has_tty(each.task) for each in judged):
        handle["tty"] = True
    view = View(
        job_name=(spec.get("Labels") or {}).get(JOB_LABEL, ""),
        handle=handle,
        phase=_phase(judged, replicas, is_ending),
        count=0 if is_ending else replicas,
        workers=[each.worker for each in judged],
        started_at=min(
            (at for each in judged if (at := each.started_at) is not None), default=None
        ),
    )
    if view.phase is Phase.ENDED:
        _add_end(view, judged)
    else:
        is_waiting = view.phase is Phase.WAITING
        open_ones = [each.worker for each in judged if is_waiting or each.stage is not Stage.ENDED]
        troubled = next((worker for worker in open_ones if worker.reason), None)
        if troubled is not None:
            view.reason, view.message = troubled.reason, troubled.message
    return view


def _phase(judged: Sequence[TaskView], replicas: int, is_ending: bool) -> Phase:
    """A worker without its image counts as waiting while none of the others has got further."""
    ended = [each for each in judged if each.stage is Stage.ENDED]
    if is_ending:  # no worker is added any more
        return Phase.ENDED if len(ended) == len(judged) else Phase.RUNNING
    if all(each.can_start_yet for each in ended) and not any(each.has_started for each in judged):
        return Phase.WAITING if judged or replicas else Phase.ENDED
    if len(ended) == len(judged) >= replicas:
        return Phase.ENDED
    return Phase.RUNNING if any(each.has_started for each in judged) else Phase.WAITING


def _add_end(view: View, judged: Sequence[TaskView]) -> None:
    """Fill in how the job ended: as the first worker that did not end well."""
    if not judged:
        view.outcome, view.reason = JobState.LOST, "lost"
        view.message = "the service has no tasks any more"
        return
    by_outcome = {each.outcome: each for each in reversed(judged)}
    outcome = next(
        state
        for state in (JobState.FAILED, JobState.LOST, JobState.COMPLETED)
        if state in by_outcome
    )
    worker = by_outcome[outcome].worker
    view.outcome = outcome
    view.exit_code = worker.returncode
    view.signal = signal_of(worker.returncode)
    view.reason = worker.reason or "ok"
    view.message = worker.message
    view.ended_at = max((at for each in judged if (at := each.ended_at) is not None), default=None)
    view.extra = {"state": judged[0].task}


def _judge(
    task: Mapping[str, Any], fact: Fact, lost_nodes: Mapping[str, str], is_ending: bool
) -> TaskView:
    status = task.get("Status") or {}
    state = status.get("State", "new")
    stage = stage_of(task)
    at = epoch_s(status.get("Timestamp"))
    words = status.get("Err") or ""
    worker = Worker(task["ID"], state, message=words)
    if stage is Stage.WAITING:
        if words and state == "pending":
            worker.reason = "no_node"
        return TaskView(task, stage, worker)
    if stage is Stage.RUNNING:
        node = task.get("NodeID", "")
        if node in lost_nodes:
            worker.reason = "node_lost"
            worker.message = f"node {lost_nodes[node]} is down"
            if is_ending:  # it can't be told, and nobody waits for it
                return TaskView(task, Stage.ENDED, worker, JobState.LOST, True, ended_at=at)
        return TaskView(task, stage, worker, has_started=True, started_at=fact.started_at or at)
    return _judge_ended(task, worker, fact, at, is_ending)


def _is_image_trouble(words: str) -> bool:
    lines = words.lower().split("\n")
    return _IMAGE_TROUBLE.search(words) is not None or any(
        _NOT_REACHED.search(line.partition(_REGISTRY_PATH)[2]) for line in lines
    )


def _judge_ended(
    task: Mapping[str, Any], worker: Worker, fact: Fact, at: float | None, is_ending: bool
) -> TaskView:
    outcome, reason = OUTCOMES[worker.state]
    worker.returncode = _returncode(task, worker.state)
    if worker.state == "failed" and worker.returncode is None and fact.exit_code is not None:
        outcome, reason = _judge_rescued(worker, fact.exit_code)
    if is_ending and reason == "evicted":
        reason = "canceled"
    if worker.state == "rejected" and _is_image_trouble(worker.message):
        reason = "image_pull_failed"
    elif worker.state == "failed" and (fact.is_oom or "oom" in worker.message.lower().split()):
        reason = "oom_killed"
    elif not worker.message and outcome is not JobState.COMPLETED:
        worker.message = (task.get("Status") or {}).get("Message") or worker.state
    worker.reason = "" if outcome is JobState.COMPLETED else reason
    ended_at = fact.ended_at or at
    started_at = fact.started_at
    if started_at is not None and ended_at is not None:
        started_at = min(started_at, ended_at)  # of one that is over at once Docker says otherwise
    return TaskView(
        task,
        Stage.ENDED,
        worker,
        outcome,
        has_started=worker.state != "rejected" and bool(container_id(task)),
        can_start_yet=reason == "image_pull_failed",
        started_at=started_at,
        ended_at=ended_at,
    )


def _judge_rescued(worker: Worker, code: int) -> tuple[JobState, str]:
    """Judge a task by its container, of which the engine only says that it is gone."""
    worker.returncode = code
    if code == 0:
        worker.message = ""
        return OUTCOMES["complete"]
    worker.message = f"exit code {code}, told to end from outside: was the engine stopped?"
    return OUTCOMES["failed"]


def _returncode(task: Mapping[str, Any], state: str) -> int | None:
    """Return the exit code, None where there is none, or an engine that has none says 0."""
    if state == "complete":
        return 0
    status = (task.get("Status") or {}).get("ContainerStatus") or {}
    code: int = status.get("ExitCode", -1)
    is_known = state == "failed" or (state == "shutdown" and bool(container_id(task)))
    return code if is_known and code > 0 else None
