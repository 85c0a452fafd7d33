"""Frames of output, cut at every byte."""

from __future__ import annotations

import struct

import pytest

from pman.backends._swarm.logs import Demultiplexer
from pman.errors import BackendUnavailable


def frame(stream: int, raw: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">BxxxL", stream, len(raw)) + raw


WIRE = frame(1, b"one\n") + frame(2, b"two\n") + frame(1, b"") + frame(1, b"three") + frame(0, b"!")


def joined(pieces: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """Return what each stream holds."""
    streams: dict[str, bytes] = {}
    for stream, raw in pieces:
        streams[stream] = streams.get(stream, b"") + raw
    return streams


@pytest.mark.parametrize("cut", range(len(WIRE) + 1))
def test_output_is_the_same_wherever_it_is_cut(cut: int) -> None:
    taken = Demultiplexer()
    pieces = taken.feed(WIRE[:cut]) + taken.feed(WIRE[cut:])
    taken.finish()
    assert joined(pieces) == {"stdout": b"one\nthree!", "stderr": b"two\n"}
    assert taken.errors == b""


def test_single_bytes() -> None:
    taken = Demultiplexer()
    pieces = [piece for byte in WIRE for piece in taken.feed(bytes([byte]))]
    assert joined(pieces) == {"stdout": b"one\nthree!", "stderr": b"two\n"}


def test_neighbours_of_one_stream_are_joined() -> None:
    pieces = Demultiplexer().feed(frame(1, b"a") + frame(1, b"b") + frame(2, b"c"))
    assert pieces == [("stdout", b"ab"), ("stderr", b"c")]


def test_a_large_frame_is_passed_on_bit_by_bit() -> None:
    taken = Demultiplexer()
    wire = frame(2, b"x" * 100_000)
    assert taken.feed(wire[:1008]) == [("stderr", b"x" * 1000)]
    assert taken.feed(wire[1008:]) == [("stderr", b"x" * 99_000)]


@pytest.mark.parametrize("cut", range(1, 13))
def test_output_that_breaks_off_is_noticed(cut: int) -> None:
    taken = Demultiplexer()
    wire = frame(1, b"hello")
    taken.feed(wire[:cut])
    with pytest.raises(BackendUnavailable, match="broke off"):
        taken.finish()


def test_the_engines_own_errors_are_no_output() -> None:
    taken = Demultiplexer()
    wire = frame(1, b"a") + frame(3, b"Error grabbing logs: rpc error") + frame(3, b"x" * 10_000)
    assert taken.feed(wire) == [("stdout", b"a")]
    assert taken.errors.startswith(b"Error grabbing logs: rpc error")
    assert len(taken.errors) == 4096
