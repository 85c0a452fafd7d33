"""`delete`: end jobs and forget them."""

from __future__ import annotations

import logging

import msgspec

from pman.actions import action
from pman.actions._ends import Countdown, on_each_end
from pman.actions._selection import discard, select
from pman.actions.base import ActionContext, ActionRequest, Answer, GiveUp, Later, Outcome
from pman.auth import Role
from pman.errors import PmanError
from pman.job.record import Job
from pman.jobdb.store import REMOVE_TIMEOUT_S

_log = logging.getLogger(__name__)

DELETED = "Job deleted successfully"
NOT_FOUND = "Not Found"


@action("delete", role=Role.RUN)
def delete(request: ActionRequest, context: ActionContext) -> Outcome | Later:
    """End and forget the jobs that match `{"value", "key"?: "jid"}`.

    Running ones get SIGTERM, after `--killGrace` seconds SIGKILL; the answer comes when their
    records and their output are gone. No match is answered with 404 and status false.
    Source: WIRE.md 15.4 for the words of `d_ret`.
    """
    wanted = msgspec.structs.replace(request, meta={"key": "jid", **request.meta})
    request.found = jobs = select(wanted, context, "delete")
    if not jobs:
        return Outcome(False, _answer("", NOT_FOUND), code=404)
    for job in jobs:
        if not job.state.is_final:
            context.queue.cancel(job, context.settings.kill_grace_s)

    def subscribe(answer: Answer) -> GiveUp:
        _Removal(jobs, context, answer).start()
        return lambda: None  # they are removed, whoever waits for it

    return Later(subscribe, is_work=True)


def _answer(job_id: str, words: str) -> dict[str, str]:
    return {"action": "Delete Job", "job_id": job_id, "status": words}


class _Removal:
    """Removes each job once it is final, then answers."""

    def __init__(self, jobs: list[Job], context: ActionContext, answer: Answer) -> None:
        self._jobs = jobs
        self._context = context
        self._problem = ""
        self._countdown = Countdown(len(jobs), lambda: answer(self._outcome))

    def start(self) -> None:
        # One that is gone is deleted by somebody else too; what is left of it goes.
        on_each_end(self._jobs, self._context, self._hand_over)

    def _hand_over(self, job: Job) -> None:
        # The thread that sees a job end must not wait for files or for the disk.
        self._context.errands.submit(self._remove, job)

    def _remove(self, job: Job) -> None:
        problem = "it could not be removed; the log of pman says why"
        store = self._context.store
        try:
            if not store.is_settled(job.name):
                # While the disk has it as a job to run, its backend must not forget it: after a
                # crash it would be run again.
                store.barrier(REMOVE_TIMEOUT_S)
            discard(job, self._context)
            store.remove([job.name])
            problem = ""
        except (PmanError, OSError) as exc:
            _log.error("job %s was not deleted: %s", job.name, exc)
            problem = str(exc)
        finally:
            if problem:  # any of several is good to show
                self._problem = problem
            self._countdown.tell()

    def _outcome(self) -> Outcome:
        job_id = self._jobs[0].jid
        if self._problem:
            return Outcome(False, _answer(job_id, self._problem), code=500)
        return Outcome(True, _answer(job_id, DELETED))
