"""The PUT form: the job DB, by another road."""

from __future__ import annotations

from pman.actions._database import operate
from pman.actions._rights import check_right
from pman.actions._selection import select
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.auth import Role
from pman.errors import RequestError


def put_run(request: ActionRequest, context: ActionContext) -> Outcome:
    """Carry out `{"context": "db", "operation"?, "dbpath"?, "key"?, "value"?}`.

    `operation` is `save` (the default), `load` or `clear`. With `key` and `value` only the jobs
    that match take part. Another context is ignored, as in 2.2. Needs the same rights as `DBctl`.
    Source: WIRE.md 6.
    """
    check_right("DBctl", Role.ADMIN, request.caller, context.settings)
    if request.text("context", "PUT").lower() != "db":
        return Outcome(True)
    selection = None
    if "key" in request.meta:
        selection = select(request, context, "PUT")
        if request.meta.get("operation", "save") == "load":
            raise RequestError("key is given, and load takes whole trees only", field="key")
    operate(request.meta.get("operation", "save"), request, context, selection)
    return Outcome(True)
