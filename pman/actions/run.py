"""`run`: accept a job, make it durable, have it started."""

from __future__ import annotations

from pman.actions import action
from pman.actions._rights import check_place, spec_of
from pman.actions._selection import report
from pman.actions.base import ActionContext, ActionRequest, Answer, Later, Outcome
from pman.auth import Role
from pman.backends.base import Backend
from pman.errors import BackendError, BackendUnavailable, Forbidden, PmanError, RequestError
from pman.job.observation import Observation
from pman.job.record import Job, new_job
from pman.job.spec import JobSpec, RunOptions
from pman.job.state import JobState
from pman.jobdb.view import with_service_name
from pman.wire import HOST

#: How long an answer to `run` may wait for the disk, seconds.
COMMIT_TIMEOUT_S = 30.0


@action("run", role=Role.RUN, takes=RunOptions)
def run(request: ActionRequest, context: ActionContext) -> Outcome | Later:
    """Run `{"cmd", "auid", "jid", "threaded"?, "container"?, "compound"?, "idempotent"?}`.

    Threaded: true as soon as the job is durable and its backend has it, no `d_ret`. Not threaded:
    when it has ended, with the `d_ret` of `status`.
    Source: WIRE.md 4.2 and ARCHITECTURE, "Replies" and "Jobs".
    """
    spec = spec_of(request)
    backend = choose_backend(spec, context)
    check_place(backend.name, request.caller, context.settings)
    if not _is_there_already(spec, context):
        _check(spec, backend, context)
    if spec.dry_run:
        return Outcome(True, {"dryRun": backend.describe(spec), "backend": backend.name})
    fresh = new_job(spec, backend.name, context.now())
    fresh.idempotency = request.idempotency
    job, is_new = context.store.submit(
        fresh, idempotent=spec.idempotent, timeout_s=COMMIT_TIMEOUT_S
    )
    if is_new:
        submit(job, backend, context)
    if request.is_threaded():
        if spec.container is not None and backend.name != HOST:
            # The reply repeats `meta`; as in 2.2 it tells the name of the service, too.
            request.meta["container"] = with_service_name(spec.container, spec.jid)
        return Outcome(True, job=job, is_new=is_new)

    def subscribe(answer: Answer) -> None:
        def show(ended: Job) -> None:
            answer(lambda: Outcome(True, report([ended], context)))

        def hand_over(ended: Job) -> None:
            # The thread that sees containers end must not wait for the files of all of them.
            context.errands.submit(show, ended)

        context.store.when_final(job.name, show if spec.container is None else hand_over)

    return Later(subscribe)


def _is_there_already(spec: JobSpec, context: ActionContext) -> bool:
    """Return whether the request is answered with a former job, whatever can be run now."""
    return spec.idempotent and bool(context.store.find("jid", spec.jid))


def _check(spec: JobSpec, backend: Backend, context: ActionContext) -> None:
    """Refuse what the backend refuses, unless the same request has come at the same moment."""
    try:
        backend.check(spec)
    except PmanError:
        if not _is_there_already(spec, context):
            raise


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


def submit(job: Job, backend: Backend, context: ActionContext) -> None:
    """Hand a durable job to its backend; a job that is not taken ends FAILED.

    Raises:
        RequestError: It can't be taken as it is; nothing is kept of it.
        BackendError: It was not taken.
    """
    try:
        backend.submit(job)
    except RequestError:
        context.store.remove([job.name])
        raise
    except BackendError as exc:
        context.store.observe(
            Observation(
                name=job.name, state=JobState.FAILED, reason="submit_failed", message=exc.message
            )
        )
        raise
