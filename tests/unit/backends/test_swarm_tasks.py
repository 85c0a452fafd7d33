"""What tasks mean for a job: the table of states, workers in all combinations, retries."""

from __future__ import annotations

from typing import Any

import pytest

from pman.backends._engine.port import JOB_LABEL, Phase
from pman.backends._swarm.facts import MAX_TASKS, Fact, Facts, epoch_s
from pman.backends._swarm.tasks import OUTCOMES, STAGES, STOPPED, Stage, newest, stage_of, view_of
from pman.job.state import JobState

AT = "2026-01-02T03:04:05.5Z"
AT_S = 1767323045.5
NO_IMAGE = "No such image: local/nosuch:9"


def task(state: str, slot: int = 1, err: str = "", code: int | None = None, **more: Any) -> Any:
    """Return a task as the engine lists it."""
    status: dict[str, Any] = {"State": state, "Timestamp": AT, "Message": state}
    if err:
        status["Err"] = err
    if code is not None:
        status["ContainerStatus"] = {"ContainerID": f"c{slot}", "PID": 0, "ExitCode": code}
    made = {"ID": f"t{slot}", "Slot": slot, "CreatedAt": AT, "Status": status, "NodeID": "n1"}
    return made | more


def service(replicas: int = 1, **template: Any) -> Any:
    """Return a service as the engine lists it."""
    return {
        "ID": "s1",
        "Spec": {
            "Name": "name",
            "Labels": {JOB_LABEL: "job-1"},
            "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": template,
        },
    }


STARTED = {"complete", "failed", "shutdown", "remove", "orphaned", "running"}


@pytest.mark.parametrize("state", STAGES)
def test_one_task_in_each_state(state: str) -> None:
    code = 5 if state == "failed" else 0
    view = view_of(service(), [task(state, code=code if state in STARTED else None)])
    stage = STAGES[state]
    expected = {
        Stage.WAITING: Phase.WAITING,
        Stage.RUNNING: Phase.RUNNING,
        Stage.ENDED: Phase.ENDED,
    }
    assert view.phase is expected[stage]
    assert [worker.state for worker in view.workers] == [state]
    if stage is Stage.ENDED:
        assert (view.outcome, view.reason) == OUTCOMES[state]
        assert view.extra == {"state": task(state, code=code if state in STARTED else None)}
        assert view.ended_at == AT_S
    else:
        assert (view.outcome, view.reason, view.ended_at, view.extra) == (None, "", None, None)


def test_the_tables_hold_the_same_states() -> None:
    assert set(OUTCOMES) == {state for state, stage in STAGES.items() if stage is Stage.ENDED}


def test_a_state_that_nobody_knows_has_not_started() -> None:
    assert stage_of(task("levitating")) is Stage.WAITING
    assert stage_of({"ID": "t"}) is Stage.WAITING


def test_a_service_without_tasks_waits() -> None:
    view = view_of(service(3), [])
    assert (view.phase, view.workers, view.reason) == (Phase.WAITING, [], "")
    assert (view.job_name, view.handle) == ("job-1", {"service": "s1", "name": "name"})


def test_a_service_that_somebody_scaled_to_nothing_is_lost() -> None:
    view = view_of(service(0), [])
    assert (view.phase, view.outcome, view.reason) == (Phase.ENDED, JobState.LOST, "lost")


def test_a_worker_that_is_not_there_yet_is_waited_for() -> None:
    assert view_of(service(2), [task("complete", code=0)]).phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("states", "phase", "outcome", "code"),
    [
        (["running", "pending"], Phase.RUNNING, None, None),
        (["pending", "starting"], Phase.WAITING, None, None),
        (["complete", "complete"], Phase.ENDED, JobState.COMPLETED, 0),
        (["complete", "failed"], Phase.ENDED, JobState.FAILED, 5),
        (["failed", "running"], Phase.RUNNING, None, None),
        (["rejected", "running"], Phase.RUNNING, None, None),
        (["rejected", "complete"], Phase.ENDED, JobState.FAILED, None),
        (["rejected", "pending"], Phase.WAITING, None, None),
        (["orphaned", "complete"], Phase.ENDED, JobState.LOST, None),
        (["orphaned", "failed"], Phase.ENDED, JobState.FAILED, 5),
    ],
)
def test_two_workers(
    states: list[str], phase: Phase, outcome: JobState | None, code: int | None
) -> None:
    codes = {"failed": 5, "complete": 0, "running": 0, "orphaned": 0}
    tasks = [task(state, slot, code=codes.get(state)) for slot, state in enumerate(states, 1)]
    view = view_of(service(2), tasks)
    assert (view.phase, view.outcome, view.exit_code) == (phase, outcome, code)


def test_the_first_failing_worker_speaks_for_the_job() -> None:
    tasks = [
        task("failed", 3, "task: non-zero exit (137)", 137),
        task("failed", 2, "task: non-zero exit (143)", 143),
        task("complete", 1, code=0),
    ]
    view = view_of(service(3), tasks)
    assert [worker.returncode for worker in view.workers] == [0, 143, 137]
    assert [worker.reason for worker in view.workers] == ["", "error", "error"]
    assert (view.exit_code, view.signal) == (143, 15)
    assert view.message == "task: non-zero exit (143)"


@pytest.mark.parametrize(("code", "signal"), [(128, None), (129, 1), (192, 64), (193, None)])
def test_which_codes_are_signals(code: int, signal: int | None) -> None:
    view = view_of(service(), [task("failed", code=code)])
    assert (view.exit_code, view.signal) == (code, signal)


# --- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        NO_IMAGE,
        "pull access denied for x, repository does not exist or may require 'docker login'",
        "manifest for busybox:none not found: manifest unknown: manifest unknown",
        'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: timeout',
        "toomanyrequests: You have reached your pull rate limit",
        "unauthorized: authentication required",
    ],
)
def test_an_image_that_can_not_be_had_is_waited_for(words: str) -> None:
    view = view_of(service(), [task("rejected", err=words)])
    assert (view.phase, view.reason, view.message) == (Phase.WAITING, "image_pull_failed", words)
    assert view.outcome is None


def test_all_other_rejections_end_the_job() -> None:
    words = 'invalid mount config for type "bind": bind source path does not exist: /a'
    view = view_of(service(), [task("rejected", err=words)])
    assert (view.phase, view.outcome) == (Phase.ENDED, JobState.FAILED)
    assert (view.reason, view.message, view.exit_code) == ("rejected", words, None)


def test_a_missing_image_beside_a_worker_that_ran_ends_the_job() -> None:
    view = view_of(service(2), [task("complete", 1, code=0), task("rejected", 2, NO_IMAGE)])
    assert (view.phase, view.outcome) == (Phase.ENDED, JobState.FAILED)
    assert view.reason == "image_pull_failed"


def test_the_newest_try_counts() -> None:
    old = task("rejected", err=NO_IMAGE) | {"ID": "old"}
    new = task("complete", code=0) | {"ID": "new", "CreatedAt": "2026-01-02T03:04:06Z"}
    for tasks in ([old, new], [new, old]):
        view = view_of(service(), tasks)
        assert (view.outcome, [worker.name for worker in view.workers]) == (
            JobState.COMPLETED,
            ["new"],
        )


# --- nodes ------------------------------------------------------------------------------------


def test_a_job_that_fits_no_node_says_so() -> None:
    words = "no suitable node (insufficient resources on 1 node)"
    view = view_of(service(), [task("pending", err=words)])
    assert (view.phase, view.reason, view.message) == (Phase.WAITING, "no_node", words)


def test_a_running_task_of_a_node_that_is_down_runs_with_trouble() -> None:
    view = view_of(service(), [task("running", code=0)], lost_nodes={"n1": "blue"})
    assert (view.phase, view.reason) == (Phase.RUNNING, "node_lost")
    assert view.message == "node blue is down"


def test_an_ended_worker_is_no_trouble_of_those_that_run() -> None:
    view = view_of(service(2), [task("failed", 1, "bad", 1), task("running", 2, code=0)])
    assert (view.phase, view.reason, view.message) == (Phase.RUNNING, "", "")


# --- jobs that were told to end ---------------------------------------------------------------

BARRED = {"Placement": {"Constraints": [STOPPED]}}


def test_what_replaces_a_stopped_task_is_not_shown() -> None:
    ended = task("shutdown", code=7)
    later = task("pending") | {"ID": "x", "CreatedAt": "2026-02-02T03:04:06Z", "Spec": BARRED}
    assert newest([ended, later]) == [ended]
    view = view_of(service(**BARRED), [ended, later])
    assert (view.phase, view.outcome) == (Phase.ENDED, JobState.FAILED)
    assert (view.reason, view.exit_code) == ("canceled", 7)


def test_a_stopped_job_runs_until_its_last_task_has_ended() -> None:
    tasks = [task("running", 1, code=-1), task("shutdown", 2, code=0)]
    assert view_of(service(2, **BARRED), tasks).phase is Phase.RUNNING


def test_a_stopped_job_without_its_image_has_ended() -> None:
    view = view_of(service(**BARRED), [task("rejected", err=NO_IMAGE)])
    assert (view.phase, view.reason) == (Phase.ENDED, "image_pull_failed")


def test_a_stopped_job_does_not_wait_for_a_node_that_is_down() -> None:
    tasks = [task("running", code=0)]
    view = view_of(service(**BARRED), tasks, lost_nodes={"n1": "blue"})
    assert (view.phase, view.outcome, view.reason) == (Phase.ENDED, JobState.LOST, "node_lost")


# --- facts ------------------------------------------------------------------------------------


def test_facts_say_when_and_why() -> None:
    fact = Fact(started_at=1.0, ended_at=2.5, is_oom=True)
    view = view_of(service(), [task("failed", code=137)], lambda _: fact)
    assert (view.started_at, view.ended_at, view.reason) == (1.0, 2.5, "oom_killed")


def test_a_job_does_not_end_before_it_starts() -> None:
    """Docker says so of containers that are over at once."""
    fact = Fact(started_at=2.0005, ended_at=2.0, is_oom=False)
    view = view_of(service(), [task("complete", code=0)], lambda _: fact)
    assert (view.started_at, view.ended_at) == (2.0, 2.0)


def test_memory_that_ran_out_in_a_child_does_not_fail_a_job_that_ended_well() -> None:
    view = view_of(service(), [task("complete", code=0)], lambda _: Fact(is_oom=True))
    assert (view.outcome, view.reason) == (JobState.COMPLETED, "ok")


def test_facts_add_up_and_stay_bounded() -> None:
    facts = Facts()
    facts.note("t", started_at=1.0)
    facts.note("t", ended_at=2.0)
    facts.note("t", is_oom=False)
    assert facts.get("t") == Fact(1.0, 2.0, False)
    for number in range(MAX_TASKS):
        facts.note(f"t{number}", is_oom=False)
    assert facts.get("t") == Fact()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (AT, AT_S),
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T03:04:05.000000001Z", 1767323045.000000001),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
        ("yesterday", None),
    ],
)
def test_moments(text: str | None, at: float | None) -> None:
    assert epoch_s(text) == at
