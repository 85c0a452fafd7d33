"""`fileiosetup`: a word that 2.2 knew and could not carry out."""

from __future__ import annotations

from typing import NoReturn

from pman.actions import action
from pman.actions.base import ActionContext, ActionRequest
from pman.errors import NotSupported


@action("fileiosetup", max_body_bytes=None)
def fileiosetup(request: ActionRequest, context: ActionContext) -> NoReturn:
    """Refuse with 501. Source: WIRE.md 4."""
    raise NotSupported(
        "fileiosetup does nothing since pman 2.0 and is not carried out", field="action"
    )
