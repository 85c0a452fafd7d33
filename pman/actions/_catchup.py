"""`CatchUp`: an outcome that is made once the files of a job have what it has printed by now."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pman.actions.base import ActionContext, Answer, GiveUp, Outcome
from pman.job.record import Job

#: How long an engine may take to give what there is before it is done without, seconds.
CATCH_UP_S = 20.0


class CatchUp:
    """Waits in no thread; answers once, from one that may take its time."""

    def __init__(self, make: Callable[[], Outcome], context: ActionContext) -> None:
        """Prepare.

        Args:
            make: Makes the outcome, from what is there then.
        """
        self._make = make
        self._context = context
        self._lock = threading.Lock()
        self._is_over = False
        self._answer: Answer | None = None
        self._stop_timer: Callable[[], None] = lambda: None

    def begin(self, job: Job) -> bool:
        """Have the files filled; return whether that is to be waited for."""
        backend = self._context.backends.get(job.backend)
        return backend is not None and backend.catch_up(job, self._tell)

    def subscribe(self, answer: Answer) -> GiveUp:
        """Have `answer` called with what makes the outcome, as `Later` does."""
        with self._lock:
            self._answer = answer
            is_over = self._is_over
            if not is_over:
                self._stop_timer = self._context.timers.after(CATCH_UP_S, self._tell)
        if is_over:
            self._give_answer()
        return self._give_up

    def _tell(self) -> None:
        with self._lock:
            self._is_over = True
        self._give_answer()

    def _give_up(self) -> None:
        self._leave()

    def _give_answer(self) -> None:
        answer = self._leave()
        if answer is not None:
            # Whoever tells must not wait until files are read.
            self._context.errands.submit(answer, self._make)

    def _leave(self) -> Answer | None:
        """Wait no longer; return who is to be answered, None if nobody is, or was already."""
        with self._lock:
            answer, self._answer = self._answer, None
            stop_timer = self._stop_timer
        if answer is not None:
            stop_timer()
        return answer
