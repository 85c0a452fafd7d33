"""An `Event` as it lies in `pman.db`: an array, as there are several to each job."""

from __future__ import annotations

import msgspec

from pman.errors import SnapshotError
from pman.job.event import Event
from pman.jobdb.record_json import scrub


class _Row(Event, array_like=True, gc=False):
    """The fields of an event in their order; those behind the last one known are ignored."""


class _Head(msgspec.Struct, array_like=True, gc=False):
    """The first fields of a row."""

    seq: int
    at: float
    kind: str
    job: str
    jid: str
    auid: str


_encode = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode = msgspec.json.Decoder(_Row).decode


def encode_event(event: Event) -> bytes:
    """Return an event as JSON; half surrogate pairs, which no UTF-8 can hold, become `?` in it."""
    try:
        return _encode(msgspec.structs.astuple(event))
    except UnicodeEncodeError:
        for name in event.__struct_fields__:
            value = getattr(event, name)
            if isinstance(value, (str, dict)):
                setattr(event, name, scrub(value))
        return _encode(msgspec.structs.astuple(event))


def decode_event(raw: bytes) -> Event:
    """Return the event that `encode_event` made.

    Raises:
        SnapshotError: It is not one.
    """
    try:
        return Event(*msgspec.structs.astuple(_decode(raw)))
    except msgspec.DecodeError as exc:
        raise SnapshotError(f"not an event: {exc}") from exc


def auid_in(raw: bytes) -> str | None:
    """Return the user in what `encode_event` made; None if it cannot be read."""
    try:
        return _decode_head(raw).auid
    except msgspec.DecodeError:
        return None
