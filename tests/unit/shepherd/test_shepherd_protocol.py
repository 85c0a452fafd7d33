"""Messages between daemon and shepherd."""

from __future__ import annotations

import os

import msgspec
import pytest

from pman.shepherd.protocol import (
    Cancel,
    Command,
    Event,
    Hello,
    JobRecord,
    PartRecord,
    Refused,
    Settled,
    Snapshot,
    Start,
    Update,
    Welcome,
    decode_command,
    decode_event,
    encode,
    path_bytes,
    path_text,
)

JOB = JobRecord(name="j", folder="/f", boot="b", parts=[PartRecord("true", pid=3)])


@pytest.mark.parametrize(
    "command",
    [Hello({"A": "\xff"}, "/"), Start("j", ["a", ""], "/f"), Cancel("j", 1.5), Settled("j")],
)
def test_commands_arrive_as_sent(command: Command) -> None:
    assert decode_command(encode(command)) == command


@pytest.mark.parametrize(
    "event",
    [
        Welcome(7, [JOB]),
        Snapshot(JOB),
        Update(name="j", index=1, part=PartRecord("x", returncode=-9)),
        Update(name="j", is_ended=True, lost="why"),
        Refused("j", "why"),
    ],
)
def test_events_arrive_as_sent(event: Event) -> None:
    assert decode_event(encode(event)) == event


@pytest.mark.parametrize("raw", [b"", b"{", b"{}", b'{"op":"nosuch"}', b'{"op":"start"}', b"\xff"])
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_command(raw)


def test_fields_of_a_later_version_are_ignored() -> None:
    assert decode_command(b'{"op":"settled","name":"j","v":2,"new":2}') == Settled("j")


@pytest.mark.parametrize("path", ["/plain", "/é", "/b\udcff"])
def test_paths_of_any_bytes_survive(path: str) -> None:
    assert os.fsdecode(path_bytes(path_text(path))) == path


def test_an_update_changes_what_it_names_only() -> None:
    job = msgspec.json.decode(encode(JOB), type=JobRecord)
    job.apply(Update(name="j", is_canceled=True))
    job.apply(Update(name="j", part=PartRecord("true", pid=3, returncode=0)))
    assert job.is_canceled
    assert not job.is_ended
    assert job.parts == [PartRecord("true", pid=3, returncode=0)]
