"""`::progress 0.42 text`: what a job prints to say how far it is. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

#: Longest text of a progress that is kept, characters, about.
MAX_TEXT_LENGTH = 200

#: How a line of progress begins, and how much of it is looked at, characters.
_MARK = "::progress"
_MAX_LINE_LENGTH = 20 + MAX_TEXT_LENGTH

#: The number, and the rest. No two repetitions of the same character meet: what jobs print is not
#: to be trusted, and a search that goes back and forth would hold up all of pman.
_LINE = re.compile(r"::progress[ \t]+([0-9.]{1,14})(%?)([ \t].*)?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Progress(NamedTuple):
    """How far a job is. Attributes: share, 0 to 1; text, what it says of it."""

    share: float
    text: str


def last_progress(output: str, *, is_cut: bool) -> Progress | None:
    """Return what the last whole line of progress in `output` says, or None.

    Args:
        output: End of what a job has printed to stdout.
        is_cut: Whether more was printed before it, so that its first line may not be whole.
    """
    whole, _, _ = output.rpartition("\n")
    if is_cut:
        _, _, whole = whole.partition("\n")
    for line in reversed(whole.split("\n")):
        if line.startswith(_MARK) and (said := _read(line[:_MAX_LINE_LENGTH])) is not None:
            return said
    return None


def _read(line: str) -> Progress | None:
    found = _LINE.fullmatch(line.removesuffix("\r"))
    if found is None:
        return None
    number, percent, text = found.groups("")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:  # two points
        return None
    return Progress(share, _CONTROL.sub(" ", text.strip())) if share <= 1 else None
