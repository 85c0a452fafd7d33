"""`info`: what the parts of the matching jobs were started with and what came of them."""

from __future__ import annotations

from pman.actions import action
from pman.actions._selection import select
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.jobdb import view


@action("info", max_body_bytes=None)
def info(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer `{"key", "value"}` with `startInfo` and `endInfo` of each job; true if one matches.

    Source: WIRE.md 4.5.
    """
    jobs = select(request, context, "info")
    if not jobs:
        return Outcome(False, {"-1": {"noJobFound": {"endInfo": {"allJobsDone": None}}}})
    shown = {}
    for n, job in enumerate(jobs):
        for which, leaf in enumerate(("startInfo", "endInfo")):
            shown[f"{n}.{which}"] = view.look_into(job, (leaf,), context.output.read_text)
    return Outcome(True, shown)
