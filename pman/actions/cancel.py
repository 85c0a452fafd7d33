"""`cancel`: end jobs, and keep their records."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pman.actions import action
from pman.actions._ends import Countdown, give, on_each_end
from pman.actions._named import JobIds, JobNames, named
from pman.actions.base import ActionContext, ActionRequest, Answer, GiveUp, Later, Outcome
from pman.auth import Role
from pman.errors import PmanError, RequestError, shown
from pman.job.record import Job
from pman.job.spec import MAX_SECONDS

#: How long an answer may wait for the disk, seconds.
COMMIT_TIMEOUT_S = 30.0


class CancelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`meta` of `cancel`."""

    jid: JobIds = None
    job: JobNames = None
    grace: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_SECONDS)] | None,
        Meta(description="Seconds until it is killed. Default: that of --killGrace."),
    ] = None
    signal: Annotated[
        str | int | None,
        Meta(description="Name or number of the signal that asks for the end. Default: SIGTERM."),
    ] = None
    wait: Annotated[bool, Meta(description="Whether to answer when all of them have ended.")] = (
        False
    )


@action("cancel", role=Role.RUN, takes=CancelOptions)
def cancel(request: ActionRequest, context: ActionContext) -> Outcome | Later:
    """End the jobs that `{"jid" or "job", "grace"?, "signal"?, "wait"?}` names; forget none.

    Those that have ended stay as they are. True at once, or with `wait` when all have ended;
    `d_ret` is `{"jobs": [{"job", "jid", "state"}, ...]}`. No such job is answered with 404.
    """
    options = request.read_as(CancelOptions)
    number = _signal(options.signal)
    grace_s = context.settings.kill_grace_s if options.grace is None else options.grace
    request.found = jobs = named(options.jid, options.job, context)
    _cancel_all(jobs, context, grace_s, number)

    def outcome() -> Outcome:
        return Outcome(True, {"jobs": [_show(job, context) for job in jobs]})

    if not options.wait or not jobs:
        return outcome()

    def subscribe(answer: Answer) -> GiveUp:
        countdown = Countdown(len(jobs), lambda: give(outcome, len(jobs), answer, context))
        return on_each_end(jobs, context, countdown.tell)

    return Later(subscribe)


def _signal(value: str | int | None) -> int | None:
    """Return the number of a signal: `SIGINT`, `int` and `2` are the same."""
    if value is None:
        return None
    try:
        if isinstance(value, int):
            return signal.Signals(value).value
        name = value.upper()
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except (KeyError, ValueError):
        raise RequestError(
            f"signal is {shown(value)}, expected a name such as SIGINT, or a number", field="signal"
        ) from None


def _cancel_all(
    jobs: list[Job], context: ActionContext, grace_s: float, number: int | None
) -> None:
    """Cancel each job that has not ended; return when a later daemon knows of all those ends.

    Raises:
        PmanError: The backend of one can't be told now, or not so; all others were.
        SnapshotError: It is not durable.
    """
    problem: PmanError | None = None
    for job in jobs:
        if job.state.is_final:
            continue
        try:
            context.queue.cancel(job, grace_s, number)
        except PmanError as exc:
            problem = exc
    if problem is not None:
        raise problem
    # Also where there was nothing to do: who was first may still wait for the disk, or in vain.
    if not all(context.store.is_settled(job.name) for job in jobs):
        context.store.barrier(COMMIT_TIMEOUT_S)


def _show(job: Job, context: ActionContext) -> dict[str, Any]:
    now = context.store.get(job.name) or job
    return {"job": job.name, "jid": job.jid, "state": now.state.value}
