"""`Observation`: what a backend saw of one job."""

from __future__ import annotations

from typing import Any

import msgspec

from pman.job.record import Hold, HostFacts, Part, Worker
from pman.job.state import JobState


class Observation(msgspec.Struct, kw_only=True):
    """What a backend saw of one job; None means "as before".

    Attributes are those of `Job`, and replace its values. An observation that would leave a final
    state is ignored, so that a backend may report the same thing twice.
    """

    name: str
    state: JobState | None = None
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    parts: list[Part] | None = None
    workers: list[Worker] | None = None
    handle: dict[str, Any] | None = None
    facts: HostFacts | None = None
    extra: dict[str, Any] | None = None
    hold: Hold | None = None
    after: list[str] | None = None
    progress: float | None = None
    progress_text: str | None = None
