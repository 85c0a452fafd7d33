"""Splits a command line at the `;` between its top-level commands, by the grammar of POSIX sh.

A recursive-descent reader of that grammar which keeps nothing but the positions of those `;`. What
it is not sure of it does not split: one shell then runs the command line as it is.
Source: POSIX.1-2017, Shell Command Language, sections 2.2 (quoting), 2.3 (tokens), 2.10 (grammar).
"""

from __future__ import annotations

import enum
import re

#: Constructs inside constructs that are followed; deeper ones run as one command.
MAX_DEPTH = 50

BLANKS = " \t"
#: Characters that end an unquoted word.
META = frozenset(" \t\n;&|<>()")
#: Reserved words of POSIX, without `in`, which is one in `for` and `case` only.
POSIX_RESERVED = {"if", "then", "elif", "else", "fi", "case", "esac", "{", "}", "!"}
POSIX_RESERVED |= {"for", "while", "until", "do", "done"}
#: Those of POSIX, and of shells that some systems have as /bin/sh.
RESERVED = POSIX_RESERVED | {"[[", "function", "select", "coproc"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def split_compound(cmd: str) -> list[str]:
    """Split a command line into the commands between its top-level `;`.

    Args:
        cmd: Command line for `/bin/sh -c`.
    Returns:
        The pieces, at least one, blanks and empty pieces kept; joined by ";" they are `cmd` again.
        `[cmd]` when a piece would not be a whole command, or when that is not certain
        (here-documents, constructs that shells read differently).
    """
    reader = _Reader(cmd)
    try:
        reader.read_program()
    except _UnsureError:
        return [cmd]
    ends = [*reader.cuts, len(cmd)]
    starts = [0, *(cut + 1 for cut in reader.cuts)]
    return [cmd[start:end] for start, end in zip(starts, ends, strict=True)]


class _UnsureError(Exception):
    """The text is no whole command, or not one that every shell reads alike."""


class _At(enum.Enum):
    """Where in a command the reader stands."""

    START = enum.auto()  #: reserved words count
    PREFIXED = enum.auto()  #: after a redirection that opens a simple command
    NAME = enum.auto()  #: after the first word, if that could be the name of a function
    WORDS = enum.auto()  #: further on in a simple command
    COMPOUND = enum.auto()  #: after a compound command


class _Reader:
    """Reads one command line; `cuts` are the positions of its top-level `;`."""

    def __init__(self, text: str) -> None:
        self.cuts: list[int] = []
        self._text = text
        self._at = 0
        self._depth = 0

    def read_program(self) -> None:
        """Read the whole text.

        Raises:
            _UnsureError: It is not to be split.
        """
        self._list("")

    # --- characters -------------------------------------------------------------------------

    def _peek(self, length: int = 1) -> str:
        return self._text[self._at : self._at + length]

    def _take(self, expected: str) -> bool:
        found = self._text.startswith(expected, self._at)
        if found:
            self._at += len(expected)
        return found

    def _find(self, char: str) -> int:
        """Return where `char` is next."""
        found = self._text.find(char, self._at)
        if found < 0:
            raise _UnsureError
        return found

    def _skip_blanks(self) -> None:
        """Skip blanks, and line continuations that follow one.

        A continuation without a blank before it may join two characters into one token (`;` and
        `;`, `i` and `f`): that is not followed.
        """
        while (char := self._peek()) and char in BLANKS:
            self._at += 1
            while self._take("\\\n"):
                pass

    def _skip_lines(self) -> None:
        """Skip blanks, newlines and comments."""
        self._skip_blanks()
        while (char := self._peek()) and char in "\n#":
            self._at = self._line_end() if char == "#" else self._at + 1
            self._skip_blanks()

    def _line_end(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _go_deeper(self) -> None:
        """Count one more construct inside others; whoever passes its end counts back."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _UnsureError

    # --- lists of commands ------------------------------------------------------------------

    def _list(self, *closers: str) -> str:
        """Read commands up to one of `closers`, which is consumed and returned.

        A closer is a reserved word where a command could start, ")", ";;", or "" for the end.
        """
        self._go_deeper()
        here = _At.START
        is_needed = False  # a command must follow: after `!`, `|`, `&&`, `||`, `name()`
        while True:
            self._skip_blanks()
            char = self._peek()
            closed = None
            if char in ("", ")", "\n", "#", ";"):
                if is_needed and char not in ("\n", "#"):
                    raise _UnsureError
                closed = self._end_or_separator(char, closers)
                here = here if char == "#" else _At.START
            elif char in "&|":
                if here is _At.START:
                    raise _UnsureError
                is_needed = self._operator(char)
                here = _At.START
            elif char in "<>":
                self._redirection()
                here = _At.PREFIXED if here is _At.START else here
                here = _At.WORDS if here is _At.NAME else here
                is_needed = False
            elif char == "(":
                here, is_needed = self._parenthesis(here)
            else:
                here, is_needed, closed = self._word_at(here, is_needed, closers)
            if closed is not None:
                self._depth -= 1
                return closed

    def _end_or_separator(self, char: str, closers: tuple[str, ...]) -> str | None:
        """Pass the end of a command; return the closer, if that is what it was."""
        if char == "#":
            self._at = self._line_end()
            return None
        if char == "\n":
            self._at += 1
            return None
        if char == ";" and self._peek(2) not in (";;", ";&", ";\\"):
            if self._depth == 1:
                self.cuts.append(self._at)
            self._at += 1
            return None
        closer = ";;" if self._peek(2) == ";;" else char
        if closer not in closers:
            raise _UnsureError
        self._at += len(closer)
        return closer

    def _operator(self, char: str) -> bool:
        """Pass `&`, `&&`, `|` or `||`; return whether a command must follow."""
        self._at += 1
        if self._take(char):
            return True
        if self._peek() in ("\\", "&", "|"):
            raise _UnsureError
        return char == "|"

    def _redirection(self) -> None:
        """Pass a redirection with its target."""
        if self._peek(2) in ("<<", "<(", ">("):
            raise _UnsureError
        if not any(self._take(operator) for operator in (">>", ">&", "<&", ">|", "<>")):
            self._at += 1
        self._skip_blanks()
        self._word()

    def _parenthesis(self, here: _At) -> tuple[_At, bool]:
        """Pass a subshell, or the `()` of a function; return what `_list` goes on with."""
        self._at += 1
        if here is _At.START:
            self._list(")")
            return _At.COMPOUND, False
        if here is not _At.NAME:
            raise _UnsureError
        self._skip_blanks()
        if not self._take(")"):
            raise _UnsureError
        self._skip_lines()
        return _At.START, True

    def _word_at(
        self, here: _At, is_needed: bool, closers: tuple[str, ...]
    ) -> tuple[_At, bool, str | None]:
        """Pass a word and what it opens; return what `_list` goes on with, and the closer."""
        word, is_plain = self._word()
        if is_plain and word.isascii() and word.isdigit() and self._peek() in ("<", ">"):
            return here, is_needed, None  # the number of a redirection
        is_reserved = is_plain and word in RESERVED
        if here is _At.COMPOUND or (here is _At.START and is_reserved):
            if is_plain and word in closers:
                if is_needed:
                    raise _UnsureError
                return here, False, word
            if here is _At.COMPOUND:
                raise _UnsureError
            if word == "!":
                return _At.START, True, None
            self._compound(word)
            return _At.COMPOUND, False, None
        if here is _At.PREFIXED and is_reserved:
            raise _UnsureError
        is_name = here is _At.START and is_plain and _NAME.match(word) is not None
        return (_At.NAME if is_name else _At.WORDS), False, None

    # --- compound commands ------------------------------------------------------------------

    def _compound(self, word: str) -> None:
        """Read the rest of the compound command that `word` opens."""
        if word == "{":
            self._list("}")
        elif word == "if":
            self._if()
        elif word in ("while", "until"):
            self._list("do")
            self._list("done")
        elif word == "for":
            self._for()
        elif word == "case":
            self._case()
        else:
            raise _UnsureError

    def _if(self) -> None:
        closer = "elif"
        while closer == "elif":
            self._list("then")
            closer = self._list("elif", "else", "fi")
        if closer == "else":
            self._list("fi")

    def _for(self) -> None:
        self._skip_blanks()
        name, is_plain = self._word()
        if not is_plain or _NAME.match(name) is None:
            raise _UnsureError
        self._skip_lines()
        if self._take(";"):
            self._skip_lines()
        elif self._peek(2) == "in" and self._is_word_end(self._at + 2):
            self._at += 2
            self._words_of_for()
        if self._word() != ("do", True):
            raise _UnsureError
        self._list("done")

    def _words_of_for(self) -> None:
        """Pass the words after `in`, up to where `do` must be."""
        self._skip_blanks()
        while self._peek() not in (";", "\n"):
            self._word()
            self._skip_blanks()
        self._at += 1
        self._skip_lines()

    def _is_word_end(self, at: int) -> bool:
        return at >= len(self._text) or self._text[at] in META

    def _case(self) -> None:
        self._skip_blanks()
        self._word()
        self._skip_lines()
        if self._word() != ("in", True):
            raise _UnsureError
        closer = ";;"
        while closer == ";;":
            self._skip_lines()
            if not self._take("(") and self._peek(4) == "esac" and self._is_word_end(self._at + 4):
                self._at += 4
                return
            self._patterns()
            closer = self._list(";;", "esac")

    def _patterns(self) -> None:
        """Pass `pattern | pattern )`."""
        while True:
            self._skip_blanks()
            self._word()
            self._skip_blanks()
            if self._take(")"):
                return
            if not self._take("|"):
                raise _UnsureError

    # --- words ------------------------------------------------------------------------------

    def _word(self) -> tuple[str, bool]:
        """Read one word; return it and whether it holds nothing quoted or expanded."""
        start = self._at
        is_plain = True
        if self._peek() == "#":
            raise _UnsureError  # a comment where a word must be
        while not self._is_word_end(self._at):
            char = self._peek()
            self._at += 1
            if char in "\\'\"$`":
                is_plain = False
                self._quoting(char)
        if self._at == start:
            raise _UnsureError
        return self._text[start : self._at], is_plain

    def _quoting(self, char: str) -> None:
        """Pass what `char`, just read outside double quotes, begins."""
        if char == "\\":
            self._escaped()
        elif char == "'":
            self._at = self._find("'") + 1
        elif char == '"':
            self._double_quotes()
        elif char == "`":
            self._backquotes()
        elif self._peek() == "'":
            raise _UnsureError  # $'…' is a quote of its own in some shells only
        else:
            self._expansion()

    def _escaped(self) -> None:
        if self._peek() in ("", "\n"):
            raise _UnsureError
        self._at += 1

    def _double_quotes(self) -> None:
        while (char := self._next()) != '"':
            if char == "\\":
                self._next()
            elif char == "`":
                self._backquotes()
            elif char == "$":
                self._expansion(is_quoted=True)

    def _backquotes(self) -> None:
        while (char := self._next()) != "`":
            if char == "\\":
                self._next()

    def _next(self) -> str:
        """Read the next character, whatever it is."""
        char = self._peek()
        if not char:
            raise _UnsureError
        self._at += 1
        return char

    def _expansion(self, *, is_quoted: bool = False) -> None:
        """Pass what a `$`, just read, begins."""
        if self._peek(2) == "\\\n":
            raise _UnsureError
        self._go_deeper()
        if self._take("(("):
            self._arithmetic()
        elif self._take("("):
            self._list(")")
        elif self._take("{"):
            self._braces(is_quoted=is_quoted)
        self._depth -= 1

    def _arithmetic(self) -> None:
        """Pass the rest of `$((…))`; `$((` that opens a subshell is not followed."""
        depth = 0
        while depth >= 0:
            char = self._next()
            if char in "'\"\\`#;\n":
                raise _UnsureError
            if char == "$":
                self._expansion(is_quoted=True)
            depth += (char == "(") - (char == ")")
        if not self._take(")"):
            raise _UnsureError

    def _braces(self, *, is_quoted: bool) -> None:
        """Pass the rest of `${…}`."""
        while (char := self._next()) != "}":
            # Shells differ in what quotes mean here inside double quotes, and in newlines.
            if char == "\n" or (is_quoted and char in "'\""):
                raise _UnsureError
            if is_quoted and char == "$":
                self._expansion(is_quoted=True)
            elif char in "\\'\"$`":
                self._quoting(char)
