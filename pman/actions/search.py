"""`search`: leaves of the records that match."""

from __future__ import annotations

from pman.actions import action
from pman.actions._selection import select
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.errors import RequestError, shown
from pman.jobdb import view


@action("search", max_body_bytes=None)
def search(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer `{"key", "value", "path"? | "job"?, "field"?, "when"?}` with a look-up per match.

    Source: WIRE.md 4.3; true if a job matches.
    """
    path = _path(request)
    jobs = select(request, context, "search")
    read = context.output.read_text
    return Outcome(
        bool(jobs), {str(n): view.look_into(job, path, read) for n, job in enumerate(jobs)}
    )


def _path(request: ActionRequest) -> tuple[str, ...]:
    """Return what to look up below each matching job.

    Raises:
        RequestError: `path` does not start with a slash, or `job` came without `field`.
    """
    meta = request.meta
    if "job" in meta:
        part = str(meta["job"])
        field = request.text("field", "search with job")
        when = meta.get("when", "end")
        if when not in ("start", "end"):
            raise RequestError(f"when is {shown(when)}, expected 'start' or 'end'", field="when")
        return (when, part, f"{when}Info", part, field)
    if "path" in meta:
        path = request.text("path", "search")
        if path and not path.startswith("/"):
            raise RequestError(f"path is {shown(path)}, expected a leading '/'", field="path")
        path = path.removesuffix("/")
        return tuple(path.split("/")[1:])
    return (request.text("key", "search"),)
