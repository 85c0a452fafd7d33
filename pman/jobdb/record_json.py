"""A `Job` as JSON, as it lies in `pman.db` and in the snapshot; and what name it may have."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pman.errors import RequestError, SnapshotError
from pman.job.record import Job

#: Job folder name; anything else is never used as a path. Source: WIRE.md 8.2.
_JOB_NAME = re.compile(r"[0-9]{14}\.[0-9]{6}_[0-9a-f-]{36}")

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
        SnapshotError: It is not one.
    """
    try:
        return _decode(raw)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise SnapshotError(f"not a job record: {exc}") from exc


def scrub(value: Any) -> Any:
    """Return a JSON value with `?` for each half of a surrogate pair that stands alone."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {scrub(key): scrub(item) for key, item in value.items()}
    if isinstance(value, list):
        return [scrub(item) for item in value]
    return value
