"""`Settings`: every knob of the daemon, from defaults < file < environment < arguments.

`OPTIONS` is the one table that flags, help texts, environment variables and the keys of the file
come from. Knows nothing of what the knobs do.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import enum
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import configobj

from pman.errors import ConfigError, shown

# --- where things are when nobody says otherwise --------------------------------------------


def default_db_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the job DB lives when nobody says otherwise.

    Raises:
        ConfigError: This user has no home directory.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/pman")
    state_home = environ.get("XDG_STATE_HOME")
    if state_home and Path(state_home).is_absolute():
        return Path(state_home) / "pman"
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError as exc:
        raise ConfigError(
            f"user {os.geteuid()} has no home directory, expected --DBpath or XDG_STATE_HOME"
        ) from exc
    return home / ".local" / "state" / "pman"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked configuration of one daemon. Sizes are bytes, times are seconds."""

    ip: str = "127.0.0.1"
    port: int = 5010  #: 0 asks the system for a free one
    protocol: str = "tcp"  #: tcp | ipc; anything else is refused at the start
    rawmode: bool = True  #: HTTP over a raw ROUTER; False: ZMTP peers
    listeners: int = 4
    http: bool = False  #: content type application/html instead of application/json
    debug_to_file: bool = False
    debug_file: Path | None = None
    listener_sleep_s: float = 0.1  #: accepted for 2.2's sake; has no effect
    directive_file: Path | None = None  #: None: d_msg.json in db_path
    db_path: Path = dataclasses.field(default_factory=default_db_path)
    db_save_period_s: float = 60.0
    container_env: str = "swarm"  #: backend of jobs with a container block
    disable_host_jobs: bool = False
    enable_token_auth: bool = False
    token_path: Path | None = None  #: None: socket_config.cfg in the working directory
    verbosity: int = 1
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 64 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    max_connections: int = 10_000
    header_timeout_s: float = 30.0  #: from the first byte of a request to its last
    idle_timeout_s: float = 300.0  #: between requests
    max_incoming_bytes: int = 1024 * 1024 * 1024  #: of unfinished requests, all clients together
    max_unread_bytes: int = 16 * 1024 * 1024  #: of replies to one client that does not read
    max_inline_output_bytes: int = 1024 * 1024  #: of one stream in one reply
    max_output_bytes: int = 1024 * 1024 * 1024  #: of one stream of one part of a host job; 0: all
    keep_jobs: int = 100_000  #: finished ones; 0: all
    keep_days: float = 30.0  #: since the end of a job; 0: for ever
    keep_bytes: int = 10 * 1024 * 1024 * 1024  #: of output of finished jobs; 0: all
    kill_grace_s: float = 10.0  #: from SIGTERM to SIGKILL
    kill_jobs_on_exit: bool = False
    pending_timeout_s: float = 300.0
    keep_finished_s: float = 0.0  #: from the end of a container job to the removal of its object
    orphan_grace_s: float = 60.0  #: how long an engine's object of ours without a job is left
    store_base: str | None = None  #: replaces the parent of shareDir, on the engine's side
    swarm_manager: str = "native"  #: native | container, as in 2.2
    project: str | None = None  #: namespace; None: that of the pod that pman runs in, or myproject
    kubeconfig: Path | None = None  #: None: what the client library finds, or the service account
    storage_type: str = "emptyDir"  #: emptyDir | hostPath | pvc | claim | swift
    share_claim: str | None = None  #: claim that storage type pvc mounts
    claim_size_bytes: int = 2 * 1024 * 1024 * 1024
    claim_access_mode: str = "ReadWriteMany"
    storage_class: str | None = None  #: None: the cluster's default
    swift_image: str = "fnndsc/pman-swift-publisher"
    swift_secret: str = "swift-credentials"  # noqa: S105  the name of one
    kubecfg_secret: str = "kubecfg"  # noqa: S105  the name of one
    job_deadline_s: float = 0.0  #: activeDeadlineSeconds; 0: none
    job_ttl_s: float = (
        7 * 24 * 3600.0
    )  #: ttlSecondsAfterFinished, should pman not come back; 0: none
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    job_uid: int | None = None  #: runAsUser; None: the cluster's choice
    job_gid: int | None = None  #: runAsGroup and fsGroup; None: the cluster's choice
    config_file: Path | None = None

    @property
    def exit_grace_s(self) -> float | None:
        """How long host jobs may take to end when the daemon stops; None: they run on."""
        return self.kill_grace_s if self.kill_jobs_on_exit else None

    @property
    def directive_path(self) -> Path:
        """The directive file, whether or not one was named."""
        return self.directive_file or self.db_path / "d_msg.json"

    @property
    def log_path(self) -> Path | None:
        """The file that takes the log, or None for stdout."""
        if not self.debug_to_file:
            return None
        if self.debug_file is not None:
            return self.debug_file
        home = os.environ.get("HOME")
        return Path(home, "tmp", "debug-pman.log") if home else self.db_path / "debug-pman.log"


# --- kinds of values ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
    """How the text of a value is read.

    Attributes:
        expected: Completes the sentence "--port is 'x', expected ...".
        parse: Makes the value; raises ValueError for text that it cannot be made from.
        spell: Makes text that `parse` would read.
    """

    expected: str
    parse: Callable[[str], Any]
    spell: Callable[[Any], str] = str


_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"(\d+)\s*(?:([kmgt])(?:ib)?)?", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)


def _parse_switch(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(text)
    return word in _TRUE


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    size = int(match[1]) << _UNITS[(match[2] or "").lower()]
    if size > MAX_SIZE:
        raise ValueError(text)
    return size


def _spell_size(size: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def _parse_days(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_DAYS:  # keeps nan out as well
        raise ValueError(text)
    return value


def _parse_text(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(text)
    return text


def _parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(text)
    try:
        return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100  links are kept
    except RuntimeError as exc:
        raise ValueError(text) from exc


def _parse_environment(text: str) -> str:
    word = text.lower()
    return word if word in CONTAINER_ENVIRONMENTS else HOST_ONLY


def _parse_origins(text: str) -> tuple[str, ...]:
    origins = tuple(word.strip() for word in text.split(",") if word.strip())
    for origin in origins:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/]+", origin, re.IGNORECASE):
            raise ValueError(origin)
    return origins


def number(low: int, high: int) -> Kind:
    """Return the kind of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return Kind(f"a number from {low} to {high}", parse)


def seconds(floor_s: float = 0.0) -> Kind:
    """Return the kind of times; what is shorter than `floor_s` is taken as `floor_s`."""

    def parse(text: str) -> float:
        value = float(text)
        if not 0 <= value <= MAX_SECONDS:  # keeps nan out as well
            raise ValueError(text)
        return max(value, floor_s)

    return Kind("a number of seconds, 0 or more", parse, lambda value: f"{value:g}")


#: Names of backends that `--container-env` may hold; anything else is `HOST_ONLY`, as in 2.2.
CONTAINER_ENVIRONMENTS = ("swarm", "openshift", "kubernetes", "host")
HOST_ONLY = "host"

#: Largest size that a flag takes, bytes.
MAX_SIZE = 1 << 50

#: Longest time that a flag takes, seconds (a year); what is longer overflows the system's timers.
MAX_SECONDS = 366 * 24 * 3600

#: Most days that a flag takes (a hundred years).
MAX_DAYS = 36_525

SWITCH = Kind(
    f"one of {', '.join(_TRUE + _FALSE)}", _parse_switch, lambda on: "on" if on else "off"
)
DAYS = Kind("a number of days, 0 or more", _parse_days, lambda value: f"{value:g}")
SIZE = Kind("a size such as 65536, 512k, 64MiB or 1GiB", _parse_size, _spell_size)
TEXT = Kind("a word", _parse_text)
PATH = Kind("a path", _parse_path)
ENVIRONMENT = Kind("a name", _parse_environment)
ORIGINS = Kind("origins such as https://example.org, with commas between", _parse_origins, ",".join)
RAW_MODE = Kind("0 or 1", lambda text: {"0": False, "1": True}[text], lambda on: str(int(on)))


# --- the table ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """One knob.

    Attributes:
        flag: Long flag; its other names are made from it.
        field: Field of `Settings`, or of the parsed arguments.
        kind: How its text is read.
        help: One or two sentences.
        group: Heading in `--help`; "" for none.
        metavar: Stands for the value in texts; "" for switches.
        default: Text for the default where `Settings` cannot tell; "" for none.
        aliases: Short flags.
        is_new: True for what 2.2 did not have.
        is_list: May be given more than once.
    """

    flag: str
    field: str
    kind: Kind = SWITCH
    help: str
    group: str = ""
    metavar: str = ""
    default: str | None = None
    aliases: tuple[str, ...] = ()
    is_new: bool = False
    is_list: bool = False

    @property
    def key(self) -> str:
        """Name in the configuration file."""
        return self.flag.removeprefix("--")

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return "PMAN_" + self.key.upper().replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """True when the flag stands alone."""
        return self.kind is SWITCH

    @property
    def shown_default(self) -> str:
        """The default as a person would write it, "" when there is none."""
        if self.default is not None:
            return self.default
        return self.kind.spell(_DEFAULTS[self.field])

    def read(self, text: str, given_as: str) -> Any:
        """Make the value from text.

        Args:
            text: What was given.
            given_as: Where, for the message: `--port`, `PMAN_PORT`, `port in FILE`.
        Raises:
            ConfigError: The text is not of this kind.
        """
        try:
            return self.kind.parse(text.strip())
        except (ValueError, KeyError) as exc:
            raise ConfigError(
                f"{given_as} is {shown(text)}, expected {self.kind.expected}", field=self.key
            ) from exc


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}

OPTIONS: tuple[Option, ...] = (
    Option(
        flag="--ip",
        field="ip",
        kind=TEXT,
        metavar="ADDRESS",
        group="Listening",
        help="Address to listen on: an IP address, the name of an interface, or '*' for all. With"
        " --protocol ipc, the path of the socket file (else pman-PORT.sock in the DBpath).",
    ),
    Option(
        flag="--port",
        field="port",
        kind=number(0, 65535),
        metavar="PORT",
        group="Listening",
        help="Port to listen on; 0 takes a free one and the log says which.",
    ),
    Option(
        flag="--protocol",
        field="protocol",
        kind=TEXT,  # what it may be is checked where it listens: not 2 but 1 is the exit status
        metavar="NAME",
        group="Listening",
        help="Transport: tcp, or ipc for a socket file on this machine.",
    ),
    Option(
        flag="--rawmode",
        field="rawmode",
        kind=RAW_MODE,
        metavar="MODE",
        group="Listening",
        help="1 speaks HTTP; 0 speaks ZMTP to ZeroMQ peers.",
    ),
    Option(
        flag="--listeners",
        field="listeners",
        kind=number(1, 1024),
        metavar="COUNT",
        group="Listening",
        help="Threads that carry out requests.",
    ),
    Option(
        flag="--listenerSleep",
        field="listener_sleep_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Listening",
        help="Has no effect; taken because older versions had it.",
    ),
    Option(
        flag="--http",
        field="http",
        group="Replies",
        help="Send replies with content type application/html instead of application/json.",
    ),
    Option(
        flag="--corsOrigin",
        field="cors_origins",
        kind=ORIGINS,
        metavar="ORIGIN",
        default="",
        group="Replies",
        is_new=True,
        is_list=True,
        help="Origin whose pages may use pman from a browser; those of all others are refused."
        " Can be repeated, or hold several with commas between.",
    ),
    Option(
        flag="--maxInlineOutput",
        field="max_inline_output_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Replies",
        is_new=True,
        help="Most of one output stream of a job that a reply holds; the end is kept.",
    ),
    Option(
        flag="--maxBody",
        field="max_body_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Longest body of a request, and longest directive.",
    ),
    Option(
        flag="--maxHeader",
        field="max_header_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Longest head of a request.",
    ),
    Option(
        flag="--maxConnections",
        field="max_connections",
        kind=number(1, 1_000_000),
        metavar="COUNT",
        group="Limits",
        is_new=True,
        help="Most connections at a time.",
    ),
    Option(
        flag="--headerTimeout",
        field="header_timeout_s",
        kind=seconds(0.1),
        metavar="SECONDS",
        group="Limits",
        is_new=True,
        help="Longest time from the first byte of a request to its last.",
    ),
    Option(
        flag="--idleTimeout",
        field="idle_timeout_s",
        kind=seconds(0.1),
        metavar="SECONDS",
        group="Limits",
        is_new=True,
        help="Longest time that a connection may stay open between requests.",
    ),
    Option(
        flag="--maxIncoming",
        field="max_incoming_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Most bytes of unanswered requests kept for all clients together.",
    ),
    Option(
        flag="--maxUnread",
        field="max_unread_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Most bytes of replies kept for a client that does not read them.",
    ),
    Option(
        flag="--DBpath",
        field="db_path",
        kind=PATH,
        metavar="FOLDER",
        default="$XDG_STATE_HOME/pman, else ~/.local/state/pman; /var/lib/pman for root",
        group="Job DB",
        help="Folder of the job DB.",
    ),
    Option(
        flag="--DBsavePeriod",
        field="db_save_period_s",
        kind=seconds(0.1),
        metavar="SECONDS",
        group="Job DB",
        help="Time between two writes of the readable snapshot; less than 0.1 is taken as 0.1. Jobs"
        " are safe without it.",
    ),
    Option(
        flag="--directiveFile",
        field="directive_file",
        kind=PATH,
        metavar="FILE",
        default="d_msg.json in the DBpath",
        group="Job DB",
        help="File that is looked for once a second, carried out as a request, and removed.",
    ),
    Option(
        flag="--container-env",
        field="container_env",
        kind=ENVIRONMENT,
        metavar="NAME",
        group="Jobs",
        help="Where jobs with a container block run: swarm, openshift or kubernetes; anything else:"
        " host only.",
    ),
    Option(
        flag="--disableHostJobs",
        field="disable_host_jobs",
        group="Jobs",
        is_new=True,
        help="Refuse jobs that would run on this machine outside of a container.",
    ),
    Option(
        flag="--killGrace",
        field="kill_grace_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Jobs",
        is_new=True,
        help="Time from SIGTERM to SIGKILL when a job is cancelled.",
    ),
    Option(
        flag="--killJobsOnExit",
        field="kill_jobs_on_exit",
        group="Jobs",
        is_new=True,
        help="Cancel the host jobs when the daemon stops, and wait for their end. Without it they"
        " run on, and the next daemon takes them over.",
    ),
    Option(
        flag="--keepJobs",
        field="keep_jobs",
        kind=number(0, 1_000_000_000),
        metavar="COUNT",
        group="Jobs",
        is_new=True,
        help="Most finished jobs that are kept: beyond that those that ended first are forgotten,"
        " with their output. 0 keeps all.",
    ),
    Option(
        flag="--keepDays",
        field="keep_days",
        kind=DAYS,
        metavar="DAYS",
        group="Jobs",
        is_new=True,
        help="How long a job is kept after its end. 0 keeps it for ever.",
    ),
    Option(
        flag="--keepBytes",
        field="keep_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Jobs",
        is_new=True,
        help="Most output of finished jobs that is kept: beyond that those that ended first are"
        " forgotten. 0 keeps all.",
    ),
    Option(
        flag="--maxOutput",
        field="max_output_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Jobs",
        is_new=True,
        help="Most of one output stream of a host job that is kept: past it the middle is dropped"
        " and the job goes on. 0 keeps all.",
    ),
    Option(
        flag="--pendingTimeout",
        field="pending_timeout_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Jobs",
        is_new=True,
        help="How long a job that cannot start may wait for what it needs before it has failed.",
    ),
    Option(
        flag="--enableTokenAuth",
        field="enable_token_auth",
        group="Security",
        help="Carry out only requests that hold a token of --tokenPath.",
    ),
    Option(
        flag="--tokenPath",
        field="token_path",
        kind=PATH,
        metavar="FILE",
        default="socket_config.cfg in the working directory",
        group="Security",
        help="INI file with tokens in its section [AUTH TOKENS], or file with one token on a line.",
    ),
    Option(
        flag="--verbosity",
        field="verbosity",
        kind=number(0, 9),
        metavar="LEVEL",
        aliases=("-v",),
        group="Log",
        help="0 logs errors only, 1 what happens, 2 details, 3 those of the libraries as well.",
    ),
    Option(
        flag="--debugToFile",
        field="debug_to_file",
        group="Log",
        help="Write the log to --debugFile instead of stdout.",
    ),
    Option(
        flag="--debugFile",
        field="debug_file",
        kind=PATH,
        metavar="FILE",
        default="$HOME/tmp/debug-pman.log",
        group="Log",
        help="File for --debugToFile; its folder is created.",
    ),
    Option(
        flag="--config",
        field="config_file",
        kind=PATH,
        metavar="FILE",
        default="",
        group="Configuration",
        is_new=True,
        help="INI file with lines 'flag = value', flags without their dashes. Environment variables"
        " win over it, arguments over both.",
    ),
)


class Show(enum.Enum):
    """A text that was asked for, in the order in which they win."""

    HELP = "help"
    DESC = "desc"
    SYNOPSIS = "synopsis"
    VERSION = "version"


#: Flags that ask for a text; neither variables nor keys.
SHOW_OPTIONS: tuple[Option, ...] = (
    Option(flag="--help", field="help", aliases=("-h",), help="Show the flags."),
    Option(flag="--desc", field="desc", aliases=("-x",), help="Show the long description."),
    Option(
        flag="--synopsis", field="synopsis", aliases=("-y",), help="Show the short description."
    ),
    Option(flag="--version", field="version", help="Show the version."),
)

_BY_KEY = {option.key: option for option in OPTIONS if option.field != "config_file"}

#: A section that the configuration file may have: it can hold the tokens too.
TOKEN_SECTION = "AUTH TOKENS"  # noqa: S105  a heading

#: What Kubernetes puts into PMAN_PORT, for any service that is called pman.
#: Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+")


# --- arguments ------------------------------------------------------------------------------


class WrongArguments(ConfigError):
    """The arguments are not flags of this program.

    Attributes:
        usage: The flags there are, a few lines with a line end.
    """

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `WrongArguments` and prints nothing."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise WrongArguments(message, self.format_usage())


def build_parser(
    prog: str, options: Sequence[Option] = OPTIONS, description: str | None = None
) -> Parser:
    """Make the parser of `options` and of `SHOW_OPTIONS`; its values are texts, unread."""
    parser = Parser(prog=prog, description=description, add_help=False)
    groups: dict[str, Any] = {"": parser}
    for option in (*options, *SHOW_OPTIONS):
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        flags = (*option.aliases, option.flag)
        text = _help_text(option).replace("%", "%%")
        if option.is_switch:
            groups[option.group].add_argument(
                *flags, dest=option.field, action="store_true", help=text
            )
        else:
            groups[option.group].add_argument(
                *flags,
                dest=option.field,
                action="append" if option.is_list else "store",
                metavar=option.metavar,
                help=text,
            )
    return parser


def _help_text(option: Option) -> str:
    if option in SHOW_OPTIONS or option.is_switch or not option.shown_default:
        return option.help
    return f"{option.help} (default: {option.shown_default})"


def read_arguments(
    parser: Parser, argv: Sequence[str], options: Iterable[Option]
) -> dict[str, Any] | Show:
    """Return {field: value} of what was given, or the text that was asked for.

    Raises:
        ConfigError: An argument is unknown, incomplete or of the wrong kind.
    """
    known, unknown = parser.parse_known_args(argv)
    if known.help:
        return Show.HELP
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    for show in Show:
        if getattr(known, show.value):
            return show
    values: dict[str, Any] = {}
    for option in options:
        given = getattr(known, option.field)
        if option.is_switch:
            values |= {option.field: True} if given else {}
        elif given is not None:
            text = ",".join(given) if option.is_list else given
            values[option.field] = option.read(text, option.flag)
    return values


def _complete(argv: Sequence[str]) -> list[str]:
    """Spell out flags that were unambiguous in 2.2, which had fewer of them."""
    old = [option.flag for option in (*OPTIONS, *SHOW_OPTIONS) if not option.is_new]
    completed = list(argv)
    for index, argument in enumerate(argv):
        if argument == "--":
            break
        flag, equals, value = argument.partition("=")
        matches = [name for name in old if name.startswith(flag)]
        if flag.startswith("--") and len(matches) == 1:
            completed[index] = matches[0] + equals + value
    return completed


# --- environment and file -------------------------------------------------------------------


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return {field: value} of the `PMAN_` variables that are set and not empty."""
    values = {}
    for option in OPTIONS:
        text = environ.get(option.variable, "")
        if not text.strip() or (option.field == "port" and _SERVICE_LINK.fullmatch(text)):
            continue
        values[option.field] = option.read(text, option.variable)
    return values


def read_config_file(path: Path) -> dict[str, Any]:
    """Return {field: value} of a configuration file.

    Raises:
        ConfigError: It cannot be read, is not an INI file, or holds an unknown key or a bad value.
    """
    values = {}
    for key, given in _read_ini(path).items():
        if key == TOKEN_SECTION:
            continue
        option = _BY_KEY.get(key)
        if option is None:
            raise ConfigError(f"key {key!r} in {path} is unknown{_nearest(key)}", field=key)
        if isinstance(given, list) and option.is_list:
            given = ",".join(given)
        if not isinstance(given, str):
            raise ConfigError(
                f"{key} in {path} is {shown(given)}, expected one value, in quotes where it holds a"
                " comma",
                field=key,
            )
        values[option.field] = option.read(given, f"{key} in {path}")
    return values


def _read_ini(path: Path) -> dict[str, Any]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        parsed = configobj.ConfigObj(lines, interpolation=False, raise_errors=True)
    except OSError as exc:
        raise ConfigError(f"--config {path} cannot be read: {exc.strerror}") from exc
    except (configobj.ConfigObjError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--config {path} is not an INI file: {exc}") from exc
    return dict(parsed)


def _nearest(key: str) -> str:
    spelled = {name.lower(): name for name in _BY_KEY}
    near = difflib.get_close_matches(key.lower().lstrip("-"), spelled, n=1)
    return f", did you mean {spelled[near[0]]!r}" if near else ", expected a flag without dashes"


# --- all of it ------------------------------------------------------------------------------


def parse_arguments(
    argv: Sequence[str], environ: Mapping[str, str] = os.environ
) -> Settings | Show:
    """Return the settings that arguments, environment and file lead to, or a text to show.

    Args:
        argv: Arguments without the name of the program.
        environ: Environment variables.
    Raises:
        ConfigError: Something given is wrong; the message names what, where, and what was expected.
    """
    given = read_arguments(build_parser("pman"), _complete(argv), OPTIONS)
    if isinstance(given, Show):
        return given
    values = _read_environment(environ) | given
    config_file = values.get("config_file")
    if config_file is not None:
        values = read_config_file(config_file) | values
    if "db_path" not in values:
        values["db_path"] = default_db_path(environ)
    return Settings(**values)
