"""`run`: accept a job, make it durable, have it started."""

from __future__ import annotations

import dataclasses
from typing import Any

from pman.actions import RUN_BODY_BYTES, action
from pman.actions._named import newest
from pman.actions._rights import check_place, spec_of
from pman.actions._selection import report
from pman.actions.base import ActionContext, ActionRequest, Answer, GiveUp, Later, Outcome
from pman.auth import Role
from pman.backends.base import Backend
from pman.errors import BackendUnavailable, Forbidden, PmanError, RequestError, shown
from pman.job.callback import check_allowed, parse_target
from pman.job.record import Job, new_job
from pman.job.spec import JobSpec, RunOptions
from pman.jobdb.view import with_service_name
from pman.wire import HOST


@action("run", role=Role.RUN, takes=RunOptions, max_body_bytes=RUN_BODY_BYTES)
def run(request: ActionRequest, context: ActionContext) -> Outcome | Later:
    """Run what `RunOptions` describes: `{"cmd" or "argv", "auid", "jid", "threaded"?, ...}`.

    Threaded: true as soon as the job is durable and its backend has it or it waits for its turn,
    no `d_ret`. Not threaded: when it has ended, with the `d_ret` of `status`. With `dryRun`: what
    would be made, and nothing is.
    Source: WIRE.md 4.2 and ARCHITECTURE, "Replies" and "Jobs".
    """
    spec = spec_of(request)
    if spec.dry_run:
        return Outcome(True, dry_run(check(spec, request, context)))
    job, is_new = _former(spec, request, context), False
    if job is None:
        try:
            asked = check(spec, request, context)
        except PmanError:
            job = _former(spec, request, context)  # the same request may have come meanwhile
            if job is None:
                raise
        else:
            job, is_new = accept(asked, request, context)
    request.found = [job]
    return _answer(job, spec, request, context, is_new=is_new)


def _answer(
    job: Job, spec: JobSpec, request: ActionRequest, context: ActionContext, *, is_new: bool
) -> Outcome | Later:
    if request.is_threaded():
        if spec.container is not None and job.backend != HOST:
            # The reply repeats `meta`; as in 2.2 it tells the name of the service, too.
            request.meta["container"] = with_service_name(spec.container, spec.jid)
        return Outcome(True, job=job, is_new=is_new)

    is_on_host = spec.container is None  # not the spec: it would be kept until the job has ended

    def subscribe(answer: Answer) -> GiveUp:
        def show(ended: Job) -> None:
            answer(lambda: Outcome(True, report([ended], context)))

        def hand_over(ended: Job) -> None:
            # The thread that sees containers end must not wait for the files of all of them.
            context.errands.submit(show, ended)

        callback = show if is_on_host else hand_over
        context.store.when_final(job.name, callback)
        return lambda: context.store.no_longer(job.name, callback)

    return Later(subscribe)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A `run` request that can be carried out.

    Attributes:
        spec: What to run.
        backend: Where.
        after: The jobs that must end well first.
    """

    spec: JobSpec
    backend: Backend
    after: list[Job]


def check(spec: JobSpec, request: ActionRequest, context: ActionContext) -> Asked:
    """Check a request for a new job, as far as that can be done before anything is kept.

    Raises:
        RequestError: It can't be carried out; names the field.
        BackendUnavailable: It can't be carried out here and now.
    """
    backend = choose_backend(spec, context)
    check_place(backend.name, request.caller, context.settings)
    if spec.callback:
        check_allowed(parse_target(spec.callback), context.settings.callback_hosts)
    after = [_to_follow(jid, context) for jid in spec.after]
    backend.check(spec)
    return Asked(spec, backend, after)


def accept(asked: Asked, request: ActionRequest, context: ActionContext) -> tuple[Job, bool]:
    """Make a job durable, and have it started when it is its turn.

    Returns:
        The job, and whether it is new: an idempotent request may be answered with a former one.
    Raises:
        PmanError: As for `JobQueue.submit`.
    """
    fresh = new_job(asked.spec, asked.backend.name, context.now())
    fresh.idempotency = request.idempotency
    return context.queue.submit(
        fresh,
        after=asked.after,
        idempotent=asked.spec.idempotent,
        auid=request.caller.auid,
    )


def dry_run(asked: Asked) -> dict[str, Any]:
    """Return the `d_ret` of a request that is only to tell what would be made."""
    return {
        "dryRun": asked.backend.describe(asked.spec),
        "backend": asked.backend.name,
        "cmd": asked.spec.cmd,
        "after": [job.name for job in asked.after],
    }


def _to_follow(jid: str, context: ActionContext) -> Job:
    """Return the job that `after` means by an id."""
    found = newest(jid, context) if jid else None
    if found is not None:
        return found
    raise RequestError(f"after is {shown(jid)}, expected ids of jobs that are there", field="after")


def _former(spec: JobSpec, request: ActionRequest, context: ActionContext) -> Job | None:
    """Return the job that a repeated request is answered with, whatever can be run now.

    It is answered with this one and not submitted: nothing of it has been checked but the rights.
    """
    key = request.idempotency.partition(":")[0]
    job = context.store.with_idempotency(key) if key else None
    if job is not None:
        return job
    return next(iter(context.store.find("jid", spec.jid)), None) if spec.idempotent else None


def choose_backend(spec: JobSpec, context: ActionContext) -> Backend:
    """Return the backend that the spec and `--container-env` lead to.

    Raises:
        Forbidden: It would run on the host, and `--disableHostJobs` is set.
        BackendUnavailable: There is no such backend here.
    """
    name = HOST if spec.container is None else context.settings.container_env
    if name == HOST and context.settings.disable_host_jobs:
        raise Forbidden("this pman was started with --disableHostJobs and runs containers only")
    backend = context.backends.get(name)
    if backend is None:
        have = ", ".join(sorted(context.backends))
        raise BackendUnavailable(
            f"a job with a container block needs the backend {name!r}, which this pman does not"
            f" have (it has: {have}); start it with another --container-env",
            field="container",
        )
    return backend
