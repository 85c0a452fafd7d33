"""Who may ask, and for what: tokens from a file, and the check of a request against them.

Knows neither sockets nor replies.
"""

from __future__ import annotations

import difflib
import enum
import hashlib
import hmac
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import configobj
import msgspec

from pman import log
from pman.errors import NotAuthorized, StartError, shown
from pman.http.message import Request

_log = logging.getLogger(__name__)

#: Where tokens are looked for when nobody says otherwise.
DEFAULT_TOKEN_PATH = Path("socket_config.cfg")

#: Section of an INI file whose values are the tokens. Source: WIRE.md, section 10.
SECTION = "AUTH TOKENS"

#: Section beside it with a subsection for each token that has not all rights.
RIGHTS_SECTION = "AUTH RIGHTS"

#: How near to `RIGHTS_SECTION` a name may come before it is taken for a slip, 0 to 1.
NEARNESS = 0.8

#: Headers whose values a reply does not repeat, lower case.
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})

#: Shortest time between two looks at the file, seconds.
STAT_PERIOD_S = 1.0

#: Largest token file, bytes; a path given by mistake is not read into memory.
MAX_FILE_BYTES = 1024 * 1024

_SECTION_LINE = re.compile(rf"^[ \t]*\[\s*(?:{SECTION}|{RIGHTS_SECTION})\s*\]", re.MULTILINE)

#: What tells two versions of a file apart.
Identity = tuple[int, int, int, int]


def header_lines(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Return headers as they may be shown, a line each: secrets are `***`, the rest as it was."""
    return [
        f"{name}: {log.MASK if name.lower() in SECRET_HEADERS else value}\r"
        for name, value in headers
    ]


class Role(enum.IntEnum):
    """What the owner of a token may do; each includes those before it."""

    READ = 1  #: look at jobs
    RUN = 2  #: start and end jobs
    ADMIN = 3  #: all


class Caller(msgspec.Struct, frozen=True):
    """Who asks.

    Attributes:
        name: Of the token in its file, for the log; "" without one.
        role: What it may do.
        auid: If not None, only jobs of this user exist for it.
    """

    name: str = ""
    role: Role = Role.ADMIN
    auid: str | None = None


#: Who asks where no token is needed.
ALL_RIGHTS = Caller()

_ROLES = {role.name.lower(): role for role in Role}


class TokenAuth:
    """Checks tokens against those of a file, which is read again when it changes. Thread-safe.

    A new version of the file that cannot be used leaves the tokens as they were.
    """

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the tokens.

        Args:
            path: INI file with `[AUTH TOKENS]` and perhaps `[AUTH RIGHTS]`, or a file with one
                token a line; None for `socket_config.cfg` in the working directory.
            clock: Monotonic seconds.
        Raises:
            StartError: There is no such file, it holds no tokens, its rights can't be read, or
                others may write it.
        """
        # absolute, lest a change of the working directory lead to another file
        self._path = (path or DEFAULT_TOKEN_PATH).absolute()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: Identity | None = None
        self._known: tuple[tuple[bytes, Caller], ...] = ()
        self._next_look = 0.0
        self._load()

    @property
    def callers(self) -> list[Caller]:
        """The owners of the tokens, in the order of the file."""
        return [caller for _, caller in self._known]

    def check(self, request: Request) -> Caller:
        """Return who asks.

        Raises:
            NotAuthorized: It has no valid token; says what is wrong, never the token.
        """
        self._maybe_reload()
        digest = _digest(_token_of(request))
        known = self._known  # one look: another thread may put new ones in their place
        # every one is compared, so that the time says nothing about which one is near
        matches = [hmac.compare_digest(digest, each) for each, _ in known]
        if True not in matches:
            raise NotAuthorized("the token is not one that this pman knows", field="Authorization")
        return known[matches.index(True)][1]

    @property
    def is_due(self) -> bool:
        """True when the next `check` looks at the file."""
        return self._clock() >= self._next_look

    # --- the file -------------------------------------------------------------------------

    def _maybe_reload(self) -> None:
        if self._clock() < self._next_look or not self._lock.acquire(blocking=False):
            return  # looked lately, or another thread is looking
        try:
            self._next_look = self._clock() + STAT_PERIOD_S
            if self._look() != self._seen:
                self._load()
                _log.info("tokens were read again from %s", self._path)
        except StartError as exc:
            _log.error("%s; the former tokens stay valid", exc)
        finally:
            self._lock.release()

    def _look(self) -> Identity | None:
        try:
            return _identity(self._path.stat())
        except OSError:
            return None

    def _load(self) -> None:
        """Take the tokens of the file; remember it as seen even when it is bad."""
        self._seen = self._look()
        raw, status = _read(self._path)
        self._seen = _identity(status)
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartError(
                f"token file {str(self._path)!r} can be written by others: its mode is"
                f" {stat.S_IMODE(status.st_mode):04o}, expected 0600 or 0640"
            )
        if status.st_mode & stat.S_IROTH:
            _log.warning("token file %s can be read by everybody on this machine", self._path)
        callers = parse_tokens(raw, self._path)
        log.mask(callers)
        self._known = tuple((_digest(token.encode()), caller) for token, caller in callers.items())
        self._next_look = self._clock() + STAT_PERIOD_S


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise StartError(f"token file {str(path)!r} is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StartError(f"token file {str(path)!r} cannot be read: {exc.strerror}") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise StartError(f"token file {str(path)!r} is longer than {MAX_FILE_BYTES} bytes")
    return raw, status


def parse_tokens(raw: bytes, path: Path) -> dict[str, Caller]:
    """Return the tokens in the content of a file, and whose they are.

    Args:
        raw: The content.
        path: Its name, which says what it is: with `.cfg` or `.ini` in it, an INI file.
    Raises:
        StartError: It holds none, or is damaged, or its rights can't be read.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise StartError(f"token file {str(path)!r} is not UTF-8 text") from exc
    if ".cfg" in path.name or ".ini" in path.name or _SECTION_LINE.search(text):
        owned = _ini_tokens(text, path)
    else:
        lines = enumerate(text.splitlines(), 1)
        owned = [(line.strip(), Caller(f"line {number}")) for number, line in lines]
    callers: dict[str, Caller] = {}
    for token, caller in owned:
        if token:
            _check_same(callers.setdefault(token, caller), caller, path)
    if not callers:
        raise StartError(f"token file {str(path)!r} holds no token, expected at least one")
    if any(len(token.split()) > 1 for token in callers):
        _log.warning("token file %s has a token with blanks in it, which nobody can send", path)
    return callers


def _check_same(first: Caller, second: Caller, path: Path) -> None:
    """Refuse two owners of one token, unless they may do the same."""
    if (first.role, first.auid) != (second.role, second.auid):
        raise StartError(
            f"{first.name!r} and {second.name!r} in [{SECTION}] of {str(path)!r} are the same token"
            " with different rights, expected two tokens"
        )


def _ini_tokens(text: str, path: Path) -> list[tuple[str, Caller]]:
    try:
        parsed = configobj.ConfigObj(text.splitlines(), interpolation=False, raise_errors=True)
    except configobj.ConfigObjError as exc:
        # not what configobj says, which quotes the line
        line = getattr(exc, "line_number", None)
        raise StartError(f"token file {str(path)!r} is not an INI file, line {line}") from None
    section = parsed.get(SECTION)
    if not isinstance(section, configobj.Section):
        raise StartError(f"token file {str(path)!r} has no section [{SECTION}]")
    for key in section:
        if not isinstance(section[key], str):
            raise StartError(
                f"{key!r} in [{SECTION}] of {str(path)!r} is not one token (put it in quotes where"
                " it holds a comma)"
            )
    tokens = {key: section[key].strip() for key in section}
    rights = _read_rights(parsed, tokens, path)
    return [(token, rights.get(name) or Caller(name)) for name, token in tokens.items()]


# --- rights ---------------------------------------------------------------------------------


def _read_rights(
    parsed: Mapping[str, Any], tokens: Mapping[str, str], path: Path
) -> dict[str, Caller]:
    """Return the owners that have a subsection of their own.

    A slip must not leave a token with more rights than it was meant to have: what is not known is
    refused.

    Args:
        parsed: The file.
        tokens: By name.
    """
    slips = [name for name in parsed if name not in (SECTION, RIGHTS_SECTION)]
    for name in difflib.get_close_matches(RIGHTS_SECTION, map(str.upper, slips), 1, NEARNESS):
        _refuse(name, f"[{RIGHTS_SECTION}]", "", path)
    section = parsed.get(RIGHTS_SECTION, {})
    if not isinstance(section, dict):
        _refuse(RIGHTS_SECTION, "a section", "", path)
    for name, given in section.items():
        if not isinstance(given, dict):
            _refuse(name, f"a subsection [[{name}]]", f"in [{RIGHTS_SECTION}]", path)
        if not tokens.get(name):
            _refuse(name, f"a name that has a token in [{SECTION}]", f"in [{RIGHTS_SECTION}]", path)
    return {name: _read_caller(name, given, path) for name, given in section.items()}


def _read_caller(name: str, given: Mapping[str, Any], path: Path) -> Caller:
    """Return the owner that a subsection is about."""
    place = f"in [[{name}]]"
    for key in given:
        if key not in ("role", "auid"):
            _refuse(key, "role or auid", place, path)
    role, auid = given.get("role", "admin"), given.get("auid")
    if not isinstance(role, str) or role not in _ROLES:
        _refuse(role, f"a role of {', '.join(_ROLES)}", place, path)
    if auid is not None and (not isinstance(auid, str) or not auid):
        _refuse(auid, "an auid that is one text, not empty", place, path)
    return Caller(name, _ROLES[role], auid)


def _refuse(found: object, expected: str, place: str, path: Path) -> NoReturn:
    where = f"{place} of {str(path)!r}" if place else f"in {str(path)!r}"
    raise StartError(f"{shown(found)} {where} is not known, expected {expected}")


# --- the request ----------------------------------------------------------------------------


def _token_of(request: Request) -> bytes:
    """Return the token that a request carries.

    Raises:
        NotAuthorized: None, more than one, or by a scheme other than `bearer`.
    """
    values = _authorizations(request)
    if len(values) > 1:
        raise NotAuthorized(
            f"there are {len(values)} Authorization headers, expected one", field="Authorization"
        )
    words = values[0].split() if values else []
    if not words:
        raise NotAuthorized(
            "there is no token, expected a header 'Authorization: Bearer <token>'",
            field="Authorization",
        )
    if len(words) > 1 and words[0].lower() != b"bearer":
        # the first word is not shown: it may be a token written the wrong way
        raise NotAuthorized(
            "the authorization scheme is not 'Bearer', expected 'Authorization: Bearer <token>'",
            field="Authorization",
        )
    return words[-1]


def _authorizations(request: Request) -> list[bytes]:
    """Return the bytes that were sent, which a request holds as latin-1 text."""
    if request.is_http:
        values = request.header_values("authorization")
    else:
        values = [] if request.authorization is None else [request.authorization]
    return [value.encode("latin-1", "replace") for value in values]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
