"""The logs of a job in the form of 2.2's `status`. Source: WIRE.md 15.3."""

from __future__ import annotations

from pman.backends._openshift.storage import INIT, PUBLISH, STREAMS
from pman.job.record import Job
from pman.output import OutputFiles, joined


def log_text(output: OutputFiles, job: Job) -> str:
    """Return `<pod>:` and its log for each pod, glued together.

    Where a container filled the share before, its log comes first and each has a heading.

    Raises:
        SnapshotError: A log is there and can't be read.
    """
    return joined(_pod_text(output, job, number) for number in range(len(job.workers)))


def _pod_text(output: OutputFiles, job: Job, number: int) -> str:
    def text(stream: str) -> str:
        return output.read_text(job.run_name, number, stream)

    pod = f"{job.workers[number].name}:"
    containers = (job.handle or {}).get("containers", [])
    if INIT not in containers or containers[0] != INIT:
        return pod + text("stdout")
    return (
        f"{pod}init_container log:{text(STREAMS[INIT])}plugin_container log:{text('stdout')}"
        f"publish_container log:{text(STREAMS[PUBLISH])}"
    )
