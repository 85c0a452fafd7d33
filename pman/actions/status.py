"""`status`: how far the jobs are that match."""

from __future__ import annotations

from pman.actions import action
from pman.actions._selection import is_one_look, report, select
from pman.actions.base import ActionContext, ActionRequest, Outcome


@action("status", is_quick=is_one_look, max_body_bytes=None)
def status(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer `{"key", "value"}` with progress, `l_status` and `l_logs`; true if a job matches.

    Source: WIRE.md 9.
    """
    jobs = select(request, context, "status")
    return Outcome(bool(jobs), report(jobs, context))
