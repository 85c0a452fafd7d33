"""The command `pman`: arguments -> settings -> daemon -> exit status.

Owns what belongs to the process: signals, standard streams, the texts of `--desc` and `--synopsis`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from pman import __version__, log
from pman.config import Show, WrongArguments, build_parser, parse_arguments
from pman.errors import ConfigError, PmanError
from pman.options import OPTIONS, SHOW_OPTIONS, Option
from pman.settings import Settings

#: Exit statuses.
EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

#: What `--version` prints.
VERSION_LINE = f"Version: {__version__}"

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

CYAN, YELLOW, RED, END = "\x1b[0;36m", "\x1b[1;33m", "\x1b[1;31m", "\x1b[0m"

#: Width of a line of a synopsis, up to its backslash.
SYNOPSIS_WIDTH = 56

LOGO = r"""
 _ __ _ __  __ _ _ _
| '_ \ '  \/ _` | ' \
| .__/_|_|_\__,_|_||_|
|_|
"""

ABOUT = """
    Runs command lines for others: on this machine, on Docker Swarm, on OpenShift.

    'pman' takes JSON over HTTP, starts what it is asked to, and knows afterwards what has
    become of it: state, exit code, output. It keeps that on disk. Jobs of this machine run
    on while 'pman' is stopped, and it finds them again.
"""

WARNING = """
    Whoever can reach the port can run commands as this user. Beyond 127.0.0.1, use
    '--enableTokenAuth' and '--tokenPath <FILE>'.
"""

BRIEF_EXAMPLE = """
            pman                                                    \\
                --port 5010                                         \\
                --rawmode 1                                         \\
                --http                                              \\
                --listeners 12                                      \\
                --verbosity 1                                       \\
                --ip 127.0.0.1
"""

DESCRIPTION = """
        A client POSTs {"payload": {"action": "run", "meta": {...}}} with a command line and
        an id of its choice, and then asks for the status of that id. Once 'run' is answered,
        the job is on disk: it survives the end of 'pman', however it comes.

        Every option below can also be given as an environment variable, PMAN_ and the flag
        in upper case with '_' for '-' (PMAN_MAXBODY for --maxBody), or in the file that
        --config names, as 'flag = value' without dashes. An argument wins over a variable, a
        variable over the file. Flags can be shortened as long as they are unambiguous.

        SIGTERM, SIGINT and the action 'quit' end 'pman' within 5 seconds, after the time of
        --drain; a second signal ends that time, and where there is none, 'pman' at once. The
        exit status is 0, 1 when it cannot start or had to give up, 2 when its configuration
        is wrong.
"""

EXAMPLES = """
    Start 'pman' with 12 listeners:

            pman --rawmode 1 --http --listeners 12

    Let other machines in, with a token:

            umask 077; echo "$TOKEN" > tokens
            pman --ip '*' --enableTokenAuth --tokenPath tokens

    Run a job, and ask what became of it:

            curl http://127.0.0.1:5010/api/v1/cmd -d '{"payload": {"action": "run",
                "meta": {"cmd": "uname -a", "auid": "me", "jid": "1", "threaded": true}}}'
            curl http://127.0.0.1:5010/api/v1/cmd -d '{"payload": {"action": "status",
                "meta": {"key": "jid", "value": "1"}}}'
"""


# --- texts ----------------------------------------------------------------------------------


def banner(logo: str, about: str, *, coloured: bool, warning: str = "") -> str:
    """Return what comes before `--desc` and `--synopsis`."""
    cyan, yellow, red, end = (CYAN, YELLOW, RED, END) if coloured else ("",) * 4
    version = f"    -- version {yellow}{__version__}{cyan} --"
    return f"{cyan}{logo}\n{version}\n{about}{end}" + (f"{red}{warning}{end}" if warning else "")


def synopsis(prog: str, tagline: str, options: Iterable[Option], example: str) -> str:
    """Return the sections NAME, SYNOPSIS and BRIEF EXAMPLE."""
    usages = [f"    [{_usage(option)}]" for option in (*options, *SHOW_OPTIONS)]
    lines = [f"            {line:<{SYNOPSIS_WIDTH}}\\" for line in (prog, *usages)]
    lines[-1] = lines[-1].rstrip(" \\")
    return (
        f"\n    NAME\n\n            {prog}\n\n        - {tagline}\n\n    SYNOPSIS\n\n"
        + "\n".join(lines)
        + f"\n\n    BRIEF EXAMPLE\n{example}"
    )


def description(text: str, options: Iterable[Option], examples: str) -> str:
    """Return the sections DESCRIPTION, ARGS and EXAMPLES."""
    arguments = [_argument(option) for option in (*options, *SHOW_OPTIONS)]
    return (
        f"\n    DESCRIPTION\n{text}\n    ARGS\n\n"
        + "\n\n".join(arguments)
        + f"\n\n    EXAMPLES\n{examples}"
    )


def _usage(option: Option) -> str:
    return option.flag if option.is_switch else f"{option.flag} <{option.metavar}>"


def _argument(option: Option) -> str:
    flags = "|".join((*option.aliases, _usage(option)))
    lines = [f"        [{flags}]", *_wrapped(option.help)]
    if not option.is_switch and option.shown_default:
        lines.append(f"        Default: {option.shown_default}.")
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    indent = " " * 8
    return textwrap.wrap(text, 92, initial_indent=indent, subsequent_indent=indent)


def text_of(show: Show, *, coloured: bool) -> str:
    """Return the text that a flag of `pman` asks for, without a line end."""
    if show is Show.HELP:
        return build_parser("pman", description="Run jobs for others.").format_help().rstrip()
    if show is Show.VERSION:
        return VERSION_LINE
    text = banner(LOGO, ABOUT, coloured=coloured, warning=WARNING)
    text += synopsis("pman", "process manager", OPTIONS, BRIEF_EXAMPLE)
    if show is Show.DESC:
        text += description(DESCRIPTION, OPTIONS, EXAMPLES)
    return text.rstrip()


def complaint(prog: str, error: ConfigError) -> str:
    """Return what to say about an error: one line, after the usage when the flags are wrong."""
    usage = error.usage if isinstance(error, WrongArguments) else ""
    return f"{usage}{prog}: error: {error}"


# --- the process ----------------------------------------------------------------------------


def keep_standard_streams() -> None:
    """Open /dev/null in place of a standard stream that is closed.

    Otherwise the next file or socket would get its number, and what libraries print there.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def say(text: str, stream: TextIO | None) -> None:
    """Print a line; a stream that nobody reads any more is no error."""
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)


def flush_output() -> None:
    """Write what is left in stdout, or drop it, lest the interpreter fail over it at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def run_command(
    prog: str, command: Callable[[Sequence[str]], int], argv: Sequence[str] | None
) -> int:
    """Carry out a command; say in one line what it could not do.

    Args:
        prog: Its name.
        command: Takes the arguments and returns the exit status.
        argv: Arguments without the name of the program; None for those of the process.
    Returns:
        Exit status.
    """
    keep_standard_streams()
    try:
        return command(sys.argv[1:] if argv is None else argv)
    except ConfigError as exc:
        say(complaint(prog, exc), sys.stderr)
        return EXIT_USAGE
    except PmanError as exc:
        say(f"{prog}: {exc}", sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:  # while nobody else has taken the signal over
        return 128 + signal.SIGINT
    finally:
        flush_output()


class SignalWatcher:
    """Turns the first SIGINT or SIGTERM into a request, and the last into the end.

    One between them cuts short what was to be done meanwhile.

    A thread reads what the interpreter writes for each signal: `request_stop` may take locks, which
    code that interrupts the main thread must not, and the last signal works whatever hangs.
    Source: https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
    """

    def __init__(self, request_stop: Callable[[], bool], hurry: Callable[[], bool]) -> None:
        """Take the signals over; in the main thread only.

        Args:
            request_stop: Asks for the end; tells whether nobody has before.
            hurry: Cuts short what is done before the stop; tells whether there was anything.
        """
        self._request_stop = request_stop
        self._hurry = hurry
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)  # the thread does the work
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def _watch(self) -> None:
        is_stopping = False
        while True:
            number = os.read(self._reader, 1)[0]
            if number not in STOP_SIGNALS:
                continue
            if not is_stopping:
                is_stopping = True
                if not self._request_stop():
                    self._hurry()  # the first one was a request to quit
            elif not self._hurry():
                os._exit(128 + number)


def serve(settings: Settings) -> int:
    """Run a daemon until it ends; return the exit status.

    Raises:
        PmanError: It cannot start.
    """
    # here, so that texts and wrong flags do not wait for it
    from pman.daemon import Daemon
    from pman.services.notify import Notifier

    log.set_up(settings.verbosity, settings.log_path, settings.log_format)
    daemon = Daemon(settings, Notifier.take_from(os.environ))
    SignalWatcher(daemon.request_stop, daemon.cut_drain)
    return daemon.run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pman`.

    Args:
        argv: Arguments without the name of the program; None for those of the process.
    Returns:
        Exit status: 0; 1 when it cannot start or had to give up; 2 when it was called wrongly.
    """
    return run_command("pman", _start_or_show, argv)


def _start_or_show(arguments: Sequence[str]) -> int:
    given = parse_arguments(arguments)
    if isinstance(given, Settings):
        return serve(given)
    say(text_of(given, coloured=log.has_colours(sys.stdout)), sys.stdout)
    return EXIT_OK
