"""A `Job` as JSON, as it lies in `pman.db` and in the snapshot; what it may hold, and its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from pman.errors import RequestError, SnapshotError
from pman.job.record import Job

#: Job folder name; anything else is never used as a path. Source: WIRE.md 8.2.
_JOB_NAME = re.compile(r"[0-9]{14}\.[0-9]{6}_[0-9a-f-]{36}")

#: Latest moment that a record may hold, UTC epoch seconds: in every time zone its year has four
#: digits, so that `localtime` takes it, and what we spell can be read again.
LATEST_S = 253_402_214_400.0

#: What a record may raise that holds something which cannot be spelled out.
UNSPELLABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Job).decode


def is_job_name(text: str) -> bool:
    """Return whether `text` is a job folder name, and so is safe as a part of a path."""
    return _JOB_NAME.fullmatch(text) is not None


def encode_record(job: Job) -> bytes:
    """Return a job as JSON.

    Raises:
        RequestError: Its `container` block is nested too deeply.
    """
    try:
        return _encode(job)
    except UnicodeEncodeError:  # half a surrogate pair: text that no UTF-8 can hold
        return _encode(scrub(msgspec.to_builtins(job)))
    except RecursionError as exc:
        raise RequestError("the container block is nested too deeply", field="container") from exc


def decode_record(raw: bytes) -> Job:
    """Return the job that `encode_record` made.

    Raises:
        SnapshotError: It is not one, or one that cannot be used.
    """
    try:
        job = _decode(raw)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise SnapshotError(f"not a job record: {exc}") from exc
    check_moments(job)
    return job


def as_kept(job: Job) -> Job:
    """Return a job of unknown origin as a later start will read it.

    Raises:
        PmanError: It cannot be kept, or not be read again.
    """
    check_moments(job)  # first: JSON has no word for what is not a number
    return decode_record(encode_record(job))


def check_moments(job: Job) -> None:
    """Raise unless every moment of a job can be spelled as a local time.

    Raises:
        SnapshotError: One is before 1970, after the year 9999, or not a number.
    """
    for moment in _moments(job):
        if moment is not None and not 0 <= moment <= LATEST_S:
            raise SnapshotError(f"it holds the moment {moment!r}, expected 0 to {LATEST_S}")


def _moments(job: Job) -> Iterator[float | None]:
    yield job.accepted_at
    yield job.started_at
    yield job.ended_at
    yield job.imported_at
    for part in job.parts:
        yield part.started_at
        yield part.ended_at


def scrub(value: Any) -> Any:
    """Return a JSON value with `?` for each half of a surrogate pair that stands alone."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {scrub(key): scrub(item) for key, item in value.items()}
    if isinstance(value, list):
        return [scrub(item) for item in value]
    return value
