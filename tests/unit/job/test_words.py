"""Command lines in words: as `shlex` does it, but soon."""

from __future__ import annotations

import itertools
import random
import shlex
from collections.abc import Callable

import pytest

from pman.job.words import split_words

CHARACTERS = "a \n'\"\\#é"


def words_or_error(split: Callable[[str], list[str]], cmd: str) -> list[str] | str:
    try:
        return split(cmd)
    except ValueError as exc:
        return str(exc)


@pytest.mark.parametrize("length", range(6))
def test_every_short_line_is_split_as_shlex_does(length: int) -> None:
    for letters in itertools.product(CHARACTERS, repeat=length):
        cmd = "".join(letters)
        assert words_or_error(split_words, cmd) == words_or_error(shlex.split, cmd), repr(cmd)


def test_long_lines_are_split_as_shlex_does() -> None:
    chance = random.Random(1)
    for _ in range(500):
        cmd = "".join(chance.choices(CHARACTERS + "bc;$`\t\r\0", k=200))
        assert words_or_error(split_words, cmd) == words_or_error(shlex.split, cmd), repr(cmd)


@pytest.mark.parametrize("cmd", ["x" * (1 << 20), f'"{"x" * (1 << 20)}"', "\\x" * (1 << 19)])
def test_a_long_word_takes_no_minute(cmd: str) -> None:
    assert [len(word) for word in split_words(cmd)] in ([1 << 20], [1 << 19])
