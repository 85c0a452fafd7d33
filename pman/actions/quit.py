"""`quit`: an orderly end of the daemon."""

from __future__ import annotations

from pman.actions import action
from pman.actions.base import SNAPSHOT_TIMEOUT_S, ActionContext, ActionRequest, Outcome
from pman.auth import Role


@action("quit", role=Role.ADMIN, max_body_bytes=None)
def quit_daemon(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer true, then stop. Host jobs run on.

    With the key `saveDB`, whatever its value, the readable snapshot is written first.
    Source: WIRE.md 4.8.
    """
    if "saveDB" in request.meta:
        context.snapshots.save_now(SNAPSHOT_TIMEOUT_S)
    context.request_stop()
    return Outcome(True, {})
