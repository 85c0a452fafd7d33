"""A command line in words, as `shlex.split` finds them, in time that grows with its length. Pure.

`shlex` puts a word together letter by letter and copies it each time, so one of a mebibyte takes it
a minute.
"""

from __future__ import annotations

import re

#: Blanks, or a piece of a word: letters, a quoted text, a letter behind a backslash. Each begins
#: with another character, and no two repetitions of the same character meet.
_PIECE = re.compile(
    r"""(?P<blanks>[ \t\r\n]+)|(?P<bare>[^ \t\r\n\\'"]+)|'(?P<single>[^']*)'"""
    r"""|"(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"|\\(?P<escaped>.)""",
    re.DOTALL,
)
_ESCAPED_IN_QUOTES = re.compile(r'\\(["\\])')


def split_words(cmd: str) -> list[str]:
    """Return the words of a command line.

    Raises:
        ValueError: A quote is not closed, or nothing follows a backslash.
    """
    words: list[str] = []
    pieces: list[str] = []
    at = 0
    while at < len(cmd):
        found = _PIECE.match(cmd, at)
        if found is None:
            is_backslash = cmd[at] == "\\" or _ends_in_backslash(cmd, at)
            raise ValueError("No escaped character" if is_backslash else "No closing quotation")
        at = found.end()
        if found.lastgroup == "blanks":
            if pieces:
                words.append("".join(pieces))
                pieces = []
        elif found.lastgroup == "double":
            pieces.append(_ESCAPED_IN_QUOTES.sub(r"\1", found["double"]))
        else:
            pieces.append(found[found.lastgroup or 0])
    if pieces:
        words.append("".join(pieces))
    return words


def _ends_in_backslash(cmd: str, at: int) -> bool:
    """Tell whether the quoted text that begins here is cut behind a backslash."""
    count = len(cmd) - len(cmd.rstrip("\\"))
    return cmd[at] == '"' and min(count, len(cmd) - at - 1) % 2 == 1
