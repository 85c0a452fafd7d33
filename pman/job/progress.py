"""`::progress 0.42 text`: what a job prints to say how far it is. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

#: Longest text of a progress that is kept, characters.
MAX_TEXT_LENGTH = 200

#: A line of a job: a share from 0 to 1 or a percentage, and maybe a text.
_LINE = re.compile(
    r"^::progress[ \t]+(?:(?P<share>[01](?:\.[0-9]{0,9})?|\.[0-9]{1,9})"
    r"|(?P<percent>[0-9]{1,3}(?:\.[0-9]{0,9})?)%)(?:[ \t]+(?P<text>[^\r\n]*?))?[ \t]*\r?$",
    re.MULTILINE,
)
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
    for found in reversed(list(_LINE.finditer(whole))):
        percent = found["percent"]
        share = float(found["share"]) if percent is None else float(percent) / 100
        if share <= 1:
            text = _CONTROL.sub(" ", found["text"] or "")[:MAX_TEXT_LENGTH]
            return Progress(share, text)
    return None
