"""Makes a `Job` small: values that many jobs, or fields of one, have in common are kept once."""

from __future__ import annotations

import functools

from pman.job.record import HostFacts, Job

#: Values of a kind that are remembered; few are used at a time.
REMEMBERED = 1024


@functools.lru_cache(REMEMBERED)
def _same_text(text: str) -> str:
    """Return an equal text, the same object for equal ones. `sys.intern` may keep it for ever."""
    return text


@functools.lru_cache(REMEMBERED)
def _same_facts(facts: HostFacts) -> HostFacts:
    return facts


def compact(job: Job) -> None:
    """Replace values of a job by equal ones that are shared; for its owner alone to see or not."""
    job.auid = _same_text(job.auid)
    job.backend = _same_text(job.backend)
    job.reason = _same_text(job.reason)
    job.message = _same_text(job.message)
    if job.facts is not None:
        job.facts = _same_facts(job.facts)
    if job.handle is not None:
        for key, value in job.handle.items():
            if isinstance(value, str):
                job.handle[key] = _same_text(value)
    for part in job.parts:
        if part.cmd == job.cmd:
            part.cmd = job.cmd
        if part.started_at == job.started_at:
            part.started_at = job.started_at
        if part.ended_at == job.ended_at:
            part.ended_at = job.ended_at
