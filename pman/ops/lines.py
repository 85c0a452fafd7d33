"""A line of the log for each request, and for each change of a job's state."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pman import log
from pman.http.message import Request, Response
from pman.http.request_id import request_id
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb.store import JobStore

_access = logging.getLogger(log.ACCESS)
_jobs = logging.getLogger(log.JOBS)


#: Longest job id in the line of a request, characters. It may have megabytes, which a client would
#: send once, and have written each time the job is asked for by its name.
MAX_JID_LENGTH = 256


def log_request(
    request: Request, action: str, response: Response, found: Sequence[Job], seconds: float
) -> None:
    """Write the line of one request.

    Args:
        found: Jobs that it is about; named if it is one.
    """
    size = 0 if request.method == "HEAD" else len(response.body)
    fields: dict[str, Any] = {
        "method": request.method,
        "path": request.target,
        "action": action,
        "status": response.status,
        "seconds": round(seconds, 6),
        "bytes": size,
        "requestId": request_id(request),
    }
    if request.token:
        fields["token"] = request.token
    if request.peer:
        fields["peer"] = request.peer
    about = ""
    if len(found) == 1:
        job = found[0]
        jid = job.jid
        if len(jid) > MAX_JID_LENGTH:
            jid = jid[:MAX_JID_LENGTH] + "..."
        fields["job"], fields["jid"] = job.name, jid
        about = f", job {job.name} (jid {jid!r})"
    _access.info(
        "%s %s %s: %d, %d bytes in %.6f s, request %s%s",
        request.method,
        request.target,
        action,
        response.status,
        size,
        seconds,
        request.id,
        about,
        extra={"fields": fields},
    )


class JobLines:
    """Writes the lines of jobs.

    The request that a job came by is named in all its lines, until pman is started anew.
    """

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}  # by name, of jobs that are not final

    def watch(self, store: JobStore) -> None:
        """Write lines from now on, if anybody wants them."""
        if _jobs.isEnabledFor(logging.INFO):
            store.on_state(self.changed)
            store.on_exchanged(self._forget)

    def changed(self, job: Job) -> None:
        """Write the line of one change."""
        # Held, it is accepted as QUEUED. A later change may be the doing of some other request.
        is_accepted = job.attempt == 1 and (job.state is JobState.NEW or job.is_held)
        if is_accepted and (asked := log.current_request()):
            self._requests.setdefault(job.name, asked)
        fields: dict[str, Any] = {
            "job": job.name,
            "jid": job.jid,
            "backend": job.backend,
            "state": job.state.value,
        }
        if job.reason:
            fields["reason"] = job.reason
        if job.exit_code is not None:
            fields["exitCode"] = job.exit_code
        if job.signal is not None:
            fields["signal"] = job.signal
        fields["attempt"] = job.attempt
        known = self._requests
        asked = known.pop(job.name, "") if job.state.is_final else known.get(job.name, "")
        if asked:
            fields["requestId"] = asked
        _jobs.info(
            "job %s (jid %r) is %s%s",
            job.name,
            job.jid,
            job.state.value,
            f": {job.reason}" if job.reason else "",
            extra={"fields": fields},
        )

    def _forget(self, gone: Sequence[Job], _placed: Sequence[Job]) -> None:
        for job in gone:
            self._requests.pop(job.name, None)
