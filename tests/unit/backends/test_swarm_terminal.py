"""Output of services that a manager has given a terminal."""

from __future__ import annotations

import pytest

from pman.backends._swarm.logs import Demultiplexer


@pytest.mark.parametrize(
    ("sent", "printed"),
    [
        (b"one\r\ntwo\r\n", b"one\ntwo\n"),
        (b"10%\r20%\r\r\n", b"10%\r20%\r\n"),
        (b"\r\n\r\n", b"\n\n"),
        (b"no end\r", b"no end\r"),
        (b"", b""),
    ],
)
def test_lines_end_as_the_command_ended_them_wherever_they_are_cut(
    sent: bytes, printed: bytes
) -> None:
    for cut in range(len(sent) + 1):
        output = Demultiplexer(is_plain=True)
        pieces = [*output.feed(sent[:cut]), *output.feed(sent[cut:]), *output.finish()]
        assert b"".join(raw for _, raw in pieces) == printed
        assert {stream for stream, _ in pieces} <= {"stdout"}
