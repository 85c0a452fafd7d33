"""`DBctl`: save, load and clear the job DB."""

from __future__ import annotations

from pman.actions import action
from pman.actions._database import operate
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.auth import Role


@action("DBctl", role=Role.ADMIN, max_body_bytes=None)
def dbctl(request: ActionRequest, context: ActionContext) -> Outcome:
    """Carry out `{"do": "save" | "load" | "clear", "dbpath"?, "fileio"?: "json"}`.

    Answers with the list of jobs. Running jobs stay, whatever is done. Source: WIRE.md 4.7.
    """
    operate(request.need("do", "DBctl"), request, context)
    return Outcome(True, {name: {} for name in context.store.names()})
