"""Reads `Settings` from defaults < file < environment < arguments."""

from __future__ import annotations

import argparse
import difflib
import enum
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import configobj

from pman.errors import ConfigError, shown
from pman.options import OPTIONS, SHOW_OPTIONS, Option
from pman.settings import Settings, default_db_path

__all__ = ["Settings", "default_db_path", "parse_arguments", "read_config_file"]


class Show(enum.Enum):
    """A text that was asked for, in the order in which they win."""

    HELP = "help"
    DESC = "desc"
    SYNOPSIS = "synopsis"
    VERSION = "version"


#: Flags that ask for a text; neither variables nor keys.

_BY_KEY = {option.key: option for option in OPTIONS if option.field != "config_file"}

#: Sections that the configuration file may have: it can hold the tokens too.
TOKEN_SECTIONS = ("AUTH TOKENS", "AUTH RIGHTS")

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
    """Return {field: value} of the variables that are set and not empty."""
    values = {}
    for option in OPTIONS:
        for variable in (option.old_variable, option.variable):  # the later one wins
            text = environ.get(variable, "") if variable else ""
            if not text.strip() or (option.field == "port" and _SERVICE_LINK.fullmatch(text)):
                continue
            values[option.field] = option.read(text, variable)
    return values


def read_config_file(path: Path) -> dict[str, Any]:
    """Return {field: value} of a configuration file.

    Raises:
        ConfigError: It cannot be read, is not an INI file, or holds an unknown key or a bad value.
    """
    values = {}
    for key, given in _read_ini(path).items():
        if key in TOKEN_SECTIONS:
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
