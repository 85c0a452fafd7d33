"""How long what a client sends with `run` may be: it is kept, and much of it is repeated. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pman.errors import RequestError, wrong

#: Longest job id and name of a user, bytes of UTF-8: each event of the job repeats them.
MAX_NAME_BYTES = 1024

#: Longest command line, bytes of UTF-8: it is split character by character.
MAX_CMD_BYTES = 1024 * 1024

#: Most of `argv` and `env` together, as execve(2) counts them, bytes. Linux takes a quarter of the
#: stack limit, 2 MiB mostly; the rest is for what the place adds.
MAX_WORDS_BYTES = 1024 * 1024
#: What each word takes beside its bytes: a NUL and a pointer.
_WORD_BYTES = 1 + 8

#: Longest `stdin`, bytes of UTF-8.
MAX_STDIN_BYTES = 1024 * 1024


def check_length(field: str, text: str, max_bytes: int) -> None:
    """Raise unless a text is short enough.

    Raises:
        RequestError: It isn't.
    """
    if len(text) > max_bytes or _size(text) > max_bytes:
        raise wrong(field, text, f"at most {max_bytes} bytes")


def check_words(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise unless a program could be given these.

    Raises:
        RequestError: They are too long; names the longer of the two.
    """
    sizes = {
        "argv": sum(_size(word) + _WORD_BYTES for word in argv),
        # One more for the `=` between.
        "env": sum(_size(name) + _size(env[name]) + 1 + _WORD_BYTES for name in env),
    }
    total = sum(sizes.values())
    if total > MAX_WORDS_BYTES:
        raise RequestError(
            f"argv and env have {total} bytes together, expected at most {MAX_WORDS_BYTES},"
            f" {_WORD_BYTES} for each word included",
            field=max(sizes, key=sizes.__getitem__),
        )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
