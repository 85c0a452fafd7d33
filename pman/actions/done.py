"""`done`: which parts of the matching jobs have started and ended."""

from __future__ import annotations

from pman.actions import action
from pman.actions._selection import is_one_look, progress, select
from pman.actions.base import ActionContext, ActionRequest, Outcome


@action("done", is_quick=is_one_look, max_body_bytes=None)
def done(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer `{"key", "value"}` with start triggers and return codes; true if a job matches.

    Source: WIRE.md 4.4.
    """
    jobs = select(request, context, "done")
    return Outcome(bool(jobs), progress(jobs, context))
