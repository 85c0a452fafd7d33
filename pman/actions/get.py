"""`get`: the look-up of a GET request, asked for with POST."""

from __future__ import annotations

from pman.actions import action
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.errors import RequestError, shown
from pman.jobdb import view


@action("get", max_body_bytes=None)
def get(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer `{"path": "/..."}` with what lies there; `/` lists the jobs.

    Source: WIRE.md 4.6 and 5.
    """
    path = request.text("path", "get")
    if not path.startswith("/"):
        raise RequestError(f"path is {shown(path)}, expected a leading '/'", field="path")
    return Outcome(True, look_up(path, request, context))


def look_up(path: str, request: ActionRequest, context: ActionContext) -> object:
    """Return what lies at `path` below the root of the record tree.

    Args:
        path: Components behind a leading `/`; one trailing `/` is dropped; nothing is decoded.
    Raises:
        UnknownJob: The first component names no job.
    """
    components = path.removesuffix("/").split("/")[1:]
    tree = view.lookup(context.store, components, context.output.read_text)
    if isinstance(tree, dict) and any(components):  # not the list of all
        (name,) = tree
        job = context.store.get(name)
        request.found = None if job is None else [job]
    return tree
