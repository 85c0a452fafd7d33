"""`wait`: answers when jobs have ended, or after a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from pman.actions import action
from pman.actions._ends import give, on_each_end
from pman.actions._named import JobIds, JobNames, named
from pman.actions.base import ActionContext, ActionRequest, Answer, GiveUp, Later, Outcome
from pman.job.record import Job
from pman.jobdb.jobview import job_view

#: Longest time that one request may wait, seconds: what lies between may give up earlier.
MAX_WAIT_S = 3600


class WaitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to wait for."""

    jid: JobIds = None
    job: JobNames = None
    mode: Annotated[
        Literal["all", "any"], msgspec.Meta(description="until all have ended, or one of them")
    ] = "all"
    timeout: Annotated[
        float, msgspec.Meta(ge=0, le=MAX_WAIT_S, description="most that it may take, seconds")
    ] = 60.0


@action("wait", takes=WaitRequest)
def wait(request: ActionRequest, context: ActionContext) -> Outcome | Later:
    """Answer `{"isDone", "jobs"}` once jobs have ended, or `timeout` is over; no listener is held.

    The status is `isDone`. A job that is deleted meanwhile counts as ended.
    """
    wanted = request.read_as(WaitRequest)
    request.found = named(wanted.jid, wanted.job, context)
    waiting = _Waiting(request.found, context, wanted.mode)
    if waiting.is_done or wanted.timeout == 0:
        return waiting.outcome()
    return Later(lambda answer: waiting.start(answer, wanted.timeout))


class _Waiting:
    """One request, and the jobs that have not ended."""

    def __init__(
        self, jobs: list[Job], context: ActionContext, mode: Literal["all", "any"]
    ) -> None:
        self._context = context
        self._jobs = {job.name: job for job in jobs}
        self._open = {job.name for job in jobs if not job.state.is_final}
        self._is_any = mode == "any"
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._stop_timer: Callable[[], None] = lambda: None
        self._take_back: GiveUp = lambda: None

    @property
    def is_done(self) -> bool:
        return not self._open or (self._is_any and len(self._open) < len(self._jobs))

    def start(self, answer: Answer, timeout_s: float) -> GiveUp:
        self._answer = answer
        self._stop_timer = self._context.timers.after(timeout_s, self._give_answer)
        ends_of = [self._jobs[name] for name in list(self._open)]
        self._take_back = on_each_end(ends_of, self._context, self._ended)
        if self._answer is None:  # answered meanwhile, perhaps before the last was subscribed to
            self._take_back()
        return self._give_up

    def outcome(self) -> Outcome:
        """Say how it stands."""
        with self._lock:
            is_done = self.is_done
            shown = [self._context.store.get(name) or job for name, job in self._jobs.items()]
        answer: dict[str, Any] = {
            "isDone": is_done,
            "jobs": [job_view(job) for job in shown],
        }
        return Outcome(is_done, answer)

    def _ended(self, job: Job) -> None:
        with self._lock:
            self._open.discard(job.name)
            self._jobs[job.name] = job
            if not self.is_done:
                return
        self._give_answer()

    def _give_answer(self) -> None:
        """Answer, once; from the thread that sees the end, or the timer's."""
        answer = self._leave()
        if answer is not None:
            give(self.outcome, len(self._jobs), answer, self._context)

    def _give_up(self) -> None:
        self._leave()

    def _leave(self) -> Answer | None:
        """Wait no longer; return who is to be answered, None if somebody else does so."""
        with self._lock:
            answer, self._answer = self._answer, None
        if answer is not None:
            self._stop_timer()
            self._take_back()
        return answer
