"""A log is passed on at once, but for what may be the words that there is no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pman.backends._openshift.logs import chunks_of

GONE = b"unable to retrieve container logs for docker://" + b"0123456789abcdef" * 4
NO_SUCH = b"rpc error: code = Unknown desc = Error: No such container: " + b"0f" * 32 + b"\n"


class Log:
    """A log that comes in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def chunks(self) -> Iterator[bytes]:
        yield from self._pieces


def pieces(*given: bytes) -> list[bytes]:
    log: Any = Log(*given)
    return list(chunks_of(log))


def test_what_comes_is_passed_on_at_once() -> None:
    assert pieces(b"one\n", b"two\n") == [b"one\n", b"two\n"]


@pytest.mark.parametrize("words", [GONE, NO_SUCH])
def test_the_words_are_left_out_wherever_they_are_cut(words: bytes) -> None:
    whole = b"line\n" + words
    for cut in range(len(whole) + 1):
        assert b"".join(pieces(whole[:cut], whole[cut:])) == b"line\n"


def test_words_of_the_command_that_look_alike_stay() -> None:
    for said in (GONE + b" it says\n", b"rpc error: code = 3\n", b"my u", GONE[:30]):
        assert b"".join(pieces(said)) == said
        assert b"".join(pieces(said, b"x" * 1000)) == said + b"x" * 1000
        assert b"".join(pieces(*(bytes([each]) for each in said))) == said
