"""Kinds of values that `OPTIONS` has: how the text of each is read and written."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOST_ONLY = "host"

#: What `--adminOnly` may hold.
RESTRICTABLE = ("quit", "DBctl", "host")

#: What `--container-env` may hold -> the backend; anything else is `HOST_ONLY`, as in 2.2.
CONTAINER_ENVIRONMENTS = {
    "swarm": "swarm",
    "openshift": "openshift",
    "kubernetes": "openshift",
    "host": HOST_ONLY,
}

#: Largest size that a flag takes, bytes.
MAX_SIZE = 1 << 50

#: Longest time that a flag takes, seconds (a year); what is longer overflows the system's timers.
MAX_SECONDS = 366 * 24 * 3600

#: Most days that a flag takes (a hundred years).
MAX_DAYS = 36_525


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
_SIZE = re.compile(r"(\d+)\s*(?:([kmgt])(?:i|ib)?)?", re.ASCII | re.IGNORECASE)
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
    return CONTAINER_ENVIRONMENTS.get(text.lower(), HOST_ONLY)


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _parse_job_limits(text: str) -> tuple[tuple[str, int], ...]:
    limits: dict[str, int] = {}
    for word in _parse_names(text):
        name, _, count = word.rpartition("=")
        if not _NUMBER.fullmatch(count) or int(count) < 0 or ("=" in word and not name):
            raise ValueError(word)
        backend = CONTAINER_ENVIRONMENTS[name.lower()] if name else ""
        limits[backend] = int(count)
    return tuple(limits.items())


def _parse_admin_only(text: str) -> tuple[str, ...]:
    if text.lower() == "none":
        return ()
    by_lower = {name.lower(): name for name in RESTRICTABLE}
    return tuple(by_lower[word.lower()] for word in _parse_names(text))


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


def choice(*names: str) -> Kind:
    """Return the kind of words that are one of `names`, in any case."""
    by_lower = {name.lower(): name for name in names}
    return Kind(f"one of {', '.join(names)}", lambda text: by_lower[text.lower()])


def seconds(floor_s: float = 0.0) -> Kind:
    """Return the kind of times; what is shorter than `floor_s` is taken as `floor_s`."""

    def parse(text: str) -> float:
        value = float(text)
        if not 0 <= value <= MAX_SECONDS:  # keeps nan out as well
            raise ValueError(text)
        return max(value, floor_s)

    return Kind("a number of seconds, 0 or more", parse, lambda value: f"{value:g}")


SWITCH = Kind(
    f"one of {', '.join(_TRUE + _FALSE)}", _parse_switch, lambda on: "on" if on else "off"
)
DAYS = Kind("a number of days, 0 or more", _parse_days, lambda value: f"{value:g}")
SIZE = Kind("a size such as 65536, 512k, 64MiB or 1Gi", _parse_size, _spell_size)
TEXT = Kind("a word", _parse_text)
PATH = Kind("a path", _parse_path)
ENVIRONMENT = Kind("a name", _parse_environment)
ORIGINS = Kind("origins such as https://example.org, with commas between", _parse_origins, ",".join)
NAMES = Kind("names, with commas between", _parse_names, ",".join)
JOB_LIMITS = Kind(
    "a number, or host=NUMBER, swarm=NUMBER or openshift=NUMBER, with commas between",
    _parse_job_limits,
    lambda limits: ",".join(f"{name}={most}" if name else str(most) for name, most in limits),
)
ADMIN_ONLY = Kind(
    f"of {', '.join(RESTRICTABLE)}, with commas between, or none",
    _parse_admin_only,
    lambda names: ",".join(names) or "none",
)
RAW_MODE = Kind("0 or 1", lambda text: {"0": False, "1": True}[text], lambda on: str(int(on)))
