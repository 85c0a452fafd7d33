"""The command `pman_do`: leaves a directive for a daemon of the same machine in a file.

Knows the form of a directive, not what the daemon does with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pman import log
from pman.cli import (
    EXIT_OK,
    VERSION_LINE,
    banner,
    description,
    run_command,
    say,
    synopsis,
)
from pman.config import Settings, Show, build_parser, parse_arguments, read_arguments
from pman.errors import ConfigError, StartError
from pman.option_kinds import PATH, TEXT, Kind, number, seconds
from pman.options import Option
from pman.wire import MAX_NESTING, is_nested_too_deeply

#: Directives that have a name.
OPERATIONS: dict[str, dict[str, Any]] = {"DBclean": {"action": "DBctl", "meta": {"do": "clear"}}}

#: What moves the daemon's default directive file; `pman_do` follows.
VARIABLES = ("PMAN_CONFIG", "PMAN_DBPATH", "PMAN_DIRECTIVEFILE", "XDG_STATE_HOME", "HOME")

#: Time between two looks whether the daemon has taken the file, seconds.
LOOK_PERIOD_S = 0.1

#: Columns of what is going on, and of its object. Source: WIRE.md 12, cli-025.
LABEL_WIDTH, VALUE_WIDTH = 50, 20

YELLOW, WHITE, END = "\x1b[1;33m", "\x1b[1;37m", "\x1b[0m"

#: JSON, read later: what is wrong with it deserves a message of its own.
MESSAGE = Kind("JSON", lambda text: text)

OPTIONS = (
    Option(
        flag="--saveTo",
        field="save_to",
        kind=PATH,
        metavar="FILE",
        aliases=("-s",),
        default="d_msg.json in the DBpath of pman",
        help="Directive file; the same as --directiveFile of pman.",
    ),
    Option(
        flag="--op",
        field="op",
        kind=TEXT,
        metavar="NAME",
        default="",
        help="Directive that has a name; there is DBclean, which forgets all jobs that have ended.",
    ),
    Option(
        flag="--msg",
        field="msg",
        kind=MESSAGE,
        metavar="JSON",
        default="",
        help="Directive, an object with 'action' and 'meta'; wins over --op.",
    ),
    Option(
        flag="--wait",
        field="wait_s",
        kind=seconds(),
        metavar="SECONDS",
        aliases=("-w",),
        default="0",
        help="Wait until pman has taken the file, at most this long.",
    ),
    Option(
        flag="--verbosity",
        field="verbosity",
        kind=number(0, 9),
        metavar="LEVEL",
        aliases=("-v",),
        default="1",
        help="0 is silent.",
    ),
)

LOGO = r"""
 _ __ _ __  __ _ _ _       __| |___
| '_ \ '  \/ _` | ' \     / _` / _ \
| .__/_|_|_\__,_|_||_|____\__,_\___/
|_|                  |____|
"""

ABOUT = """
    Leaves a directive for 'pman' in a file of the same machine.

    'pman' looks for that file once a second, removes it and carries it out. No port and no
    token are needed; instead, the file has to belong to the user that 'pman' runs as, and
    nobody else may be able to write it. 'pman_do' takes care of the latter.
"""

BRIEF_EXAMPLE = """
            pman_do --op DBclean
"""

DESCRIPTION = """
        The file is written completely or not at all. What 'pman' cannot carry out it renames
        to '<FILE>.rejected', and its log says why.

        The exit status is 0; 1 when the file cannot be written, 2 when the arguments are
        wrong. That 'pman' did not take the file within --wait is said, and is no failure.
"""

EXAMPLES = """
            pman_do --op DBclean --wait 5

            pman_do --saveTo /var/lib/pman/d_msg.json               \\
                --msg '{"action": "DBctl", "meta": {"do": "save"}}'
"""


def text_of(show: Show, *, coloured: bool) -> str:
    """Return the text that a flag of `pman_do` asks for, without a line end."""
    if show is Show.HELP:
        return (
            build_parser("pman_do", OPTIONS, "Leave a directive for pman.").format_help().rstrip()
        )
    if show is Show.VERSION:
        return VERSION_LINE
    text = banner(LOGO, ABOUT, coloured=coloured)
    text += synopsis("pman_do", "leaves directives for pman", OPTIONS, BRIEF_EXAMPLE)
    if show is Show.DESC:
        text += description(DESCRIPTION, OPTIONS, EXAMPLES)
    return text.rstrip()


# --- the directive --------------------------------------------------------------------------


def choose_directive(message: str | None, operation: str | None) -> dict[str, Any] | None:
    """Return the directive that `--msg` or `--op` names, None when there is neither.

    Raises:
        ConfigError: The message is not a JSON object, or there is no such operation.
    """
    if message is not None:
        return parse_message(message)
    if operation is None:
        return None
    if operation not in OPERATIONS:
        raise ConfigError(f"--op is {operation!r}, expected one of {', '.join(OPERATIONS)}")
    return OPERATIONS[operation]


def parse_message(message: str) -> dict[str, Any]:
    """Return the object that `--msg` holds.

    Raises:
        ConfigError: It is not JSON, not an object, or nested too deeply.
    """
    try:
        document = json.loads(message, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"--msg is not JSON: {exc}") from exc
    if is_nested_too_deeply(document):
        raise ConfigError(f"--msg is nested too deeply, expected at most {MAX_NESTING} levels")
    if not isinstance(document, dict):
        raise ConfigError(f"--msg is a JSON {type(document).__name__}, expected an object")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a value of JSON")


def default_path(environ: Mapping[str, str]) -> Path:
    """Return the directive file of a daemon that is started in this environment.

    Raises:
        ConfigError: The environment or the configuration file is wrong.
    """
    # other variables of the daemon may be wrong without any harm here
    settings = parse_arguments([], {name: environ[name] for name in VARIABLES if name in environ})
    assert isinstance(settings, Settings)
    return settings.directive_path


# --- the file -------------------------------------------------------------------------------


def write_directive(text: str, path: Path) -> int:
    """Put a directive in its place, complete, for us alone to write.

    Args:
        text: The JSON.
        path: Target; what is there is replaced.
    Returns:
        The inode of the file.
    Raises:
        StartError: It cannot be written.
    """
    private = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode("ascii"))
                file.flush()
                os.fsync(descriptor)
                inode = os.fstat(descriptor).st_ino
            private.replace(path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                private.unlink()
            raise
    except OSError as exc:
        raise StartError(f"cannot write {str(path)!r}: {exc.strerror}") from exc
    return inode


def wait_until_taken(path: Path, inode: int, timeout_s: float) -> bool:
    """Wait until a file is gone, or another one is in its place.

    Args:
        path: Where it was written.
        inode: Which one it is.
        timeout_s: How long to wait at most.
    Returns:
        Whether it is gone.
    """
    deadline = time.monotonic() + timeout_s
    never = (
        threading.Event()
    )  # its wait is a pause that ends on time; a file has no event to wait on
    while _inode(path) == inode:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        never.wait(min(LOOK_PERIOD_S, left))
    return True


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None


# --- the command ----------------------------------------------------------------------------


class Reporter:
    """Says what is going on, in the form of 2.2, unless it is to be silent."""

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent
        is_coloured = log.has_colours(sys.stdout)
        self._yellow, self._white, self._end = (YELLOW, WHITE, END) if is_coloured else ("", "", "")

    def show_message(self, text: str) -> None:
        """Show the directive."""
        self._say(f"{self._yellow}\n---->\nmsg to write = \n{text}\n---->{self._end}")

    def step(self, label: str, value: str) -> None:
        """Show what is done, and to what."""
        self._say(f"{self._white}{label:>{LABEL_WIDTH}}{value}{self._end}")

    def _say(self, text: str) -> None:
        if not self._is_silent:
            say(text, sys.stdout)


def run(values: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Write the directive and wait for the daemon.

    Args:
        values: {field: value} of the arguments that were given.
        environ: Environment variables.
    Raises:
        ConfigError: The arguments are wrong.
        StartError: The directive cannot be written.
    """
    directive = choose_directive(values.get("msg"), values.get("op"))
    if directive is None:
        return
    path = values.get("save_to")
    if path is None:
        path = default_path(environ)
        make_private_folder(path.parent)
    reporter = Reporter(is_silent=values.get("verbosity", 1) == 0)
    text = json.dumps(directive, indent=4)
    reporter.show_message(text)
    reporter.step("Writing directive file...", f"{f'[ {path} ]':>{VALUE_WIDTH}}")
    inode = write_directive(text, path)
    timeout_s = values.get("wait_s", 0)
    if timeout_s:
        limit = f"[ {timeout_s:g} seconds ]"
        reporter.step("Starting wait timer for ...", f"{limit:>{VALUE_WIDTH}}")
        is_taken = wait_until_taken(path, inode, timeout_s)
        reporter.step("Timer ...", "[ done ]")
        outcome = "[ taken by pman ]" if is_taken else "[ still there: pman did not take it ]"
        reporter.step("Directive file ...", outcome)


def make_private_folder(folder: Path) -> None:
    """Make the folder of the default directive file, where no daemon has run yet.

    Raises:
        StartError: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StartError(f"cannot make folder {str(folder)!r}: {exc.strerror}") from exc


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pman_do`.

    Args:
        argv: Arguments without the name of the program; None for those of the process.
    Returns:
        Exit status: 0; 1 when the file cannot be written; 2 when it was called wrongly.
    """
    return run_command("pman_do", _run_or_show, argv)


def _run_or_show(arguments: Sequence[str]) -> int:
    values = read_arguments(build_parser("pman_do", OPTIONS), arguments, OPTIONS)
    if isinstance(values, Show):
        say(text_of(values, coloured=log.has_colours(sys.stdout)), sys.stdout)
    else:
        run(values, os.environ)
    return EXIT_OK
