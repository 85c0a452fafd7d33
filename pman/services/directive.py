"""`DirectiveWatcher`: carries out requests that are left in a file, without a token.

Who can write the file can run commands, so most of this is about whose file it is. Knows nothing of
actions: what a directive means is the dispatcher's.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pman.config import Settings
from pman.errors import PmanError
from pman.services.base import Service

_log = logging.getLogger(__name__)

#: Time between two looks at the file, seconds.
PERIOD_S = 1.0

#: How long a file that is not JSON may stay as it is before it counts as complete, seconds.
UNFINISHED_S = 5.0

#: Appended to the name of a directive that was not carried out.
REJECTED = ".rejected"

#: Carries out `{"action", "meta"}`; raises `PmanError` when it cannot.
Handler = Callable[[dict[str, Any]], None]

#: What tells one content of one file from another: device, inode, modification (ns), bytes.
Identity = tuple[int, int, int, int]

_decode = msgspec.json.Decoder().decode


class DirectiveWatcher(Service):
    """Looks at the directive file once a second; nothing that is in it ends the thread.

    A directive is removed first and carried out then: at most once, whatever happens in between.
    """

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        *,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch `settings.directive_path`.

        Args:
            settings: The daemon's settings.
            handler: Carries out one directive, in this service's thread.
            period_s: Time between two looks, seconds.
            clock: Monotonic seconds.
        """
        super().__init__("directive")
        self._path = settings.directive_path
        self._max_bytes = settings.max_body_bytes
        self._handler = handler
        self._period_s = period_s
        self._clock = clock
        self._reported: object = None
        self._unfinished: tuple[Identity, float] | None = None

    def serve(self) -> None:
        """Look, wait, look again, until asked to stop."""
        self.look()
        while not self.stopping.wait(self._period_s):
            self.look()

    def look(self) -> None:
        """Carry out the directive, if there is one."""
        try:
            found = _read(self._path, self._max_bytes)
        except FileNotFoundError:
            self._reported = self._unfinished = None
            return
        except _Unsafe as exc:
            self._report(exc.about, f"directive file {self._path} is not carried out: {exc}")
            return
        except OSError as exc:
            self._report(exc.errno, f"directive file {self._path} cannot be read: {exc.strerror}")
            return
        try:
            self._treat(*found)
        except OSError as exc:
            self._report(exc.errno, f"directive file {self._path} cannot be removed: {exc}")

    def _report(self, about: object, message: str) -> None:
        """Log once for each thing that is wrong with each version of the file."""
        if about != self._reported:
            self._reported = about
            _log.error("%s", message)

    def _treat(self, raw: bytes, identity: Identity) -> None:
        try:
            document = _decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
            self._wait_for_the_rest(identity, f"not JSON: {exc}")
            return
        taken = self._take(identity)
        if taken is None:
            return  # replaced while it was read: the next look finds the new one
        try:
            self._handler(_directive(document))
        except PmanError as exc:
            self._set_aside(taken, str(exc))
        except Exception:  # noqa: BLE001  a mistake of ours must not end the directives
            _log.exception("directive failed")
            self._set_aside(taken, "pman failed to carry it out")
        else:
            _log.info("directive was carried out")
            taken.unlink()

    def _wait_for_the_rest(self, identity: Identity, reason: str) -> None:
        """Leave alone what somebody may still be writing."""
        now = self._clock()
        if self._unfinished is None or self._unfinished[0] != identity:
            self._unfinished = identity, now
        elif now - self._unfinished[1] >= UNFINISHED_S:
            taken = self._take(identity)
            if taken is not None:
                self._set_aside(taken, reason)

    def _take(self, identity: Identity) -> Path | None:
        """Remove the file that was read from its place.

        Returns:
            Where it is now, under a name that nobody knows; None when the file in that place is
            another one by now, which is put back.
        """
        private = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        self._path.rename(private)
        self._unfinished = None
        if _identity(private.lstat()) == identity:
            return private
        try:
            os.link(private, self._path, follow_symlinks=False)  # unlike rename, replaces nothing
        except FileExistsError:
            _log.warning("directive file %s was replaced before it was read", self._path)
        private.unlink()
        return None

    def _set_aside(self, taken: Path, reason: str) -> None:
        rejected = self._path.with_name(self._path.name + REJECTED)
        taken.replace(rejected)
        _log.error("directive was not carried out, and is now in %s: %s", rejected, reason)


class _Unsafe(Exception):
    """The file is there, and may not be carried out."""

    def __init__(self, message: str, about: object) -> None:
        super().__init__(message)
        self.about = message, about


def _directive(document: Any) -> dict[str, Any]:
    """Return `{"action", "meta"}`, also out of the `payload` that clients send over HTTP."""
    if isinstance(document, dict) and isinstance(document.get("payload"), dict):
        document = document["payload"]
    if not isinstance(document, dict):
        raise PmanError(f"it is a JSON {type(document).__name__}, expected an object")
    if not isinstance(document.get("action"), str) or not isinstance(document.get("meta"), dict):
        raise PmanError('it has no text "action" and object "meta"')
    return document


def _read(path: Path, max_bytes: int) -> tuple[bytes, Identity]:
    """Return the content of the file, and what tells it from others.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
        _Unsafe: Somebody else could have written it.
    """
    try:
        # not blocking, lest a FIFO hold the thread for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise _Unsafe("it is a symbolic link", _identity(path.lstat())) from exc
        raise
    try:
        status = os.fstat(descriptor)
        reason = _reason_to_refuse(status, path.parent.stat(), max_bytes)
        if reason:
            raise _Unsafe(reason, _identity(status))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes), _identity(status)
    finally:
        os.close(descriptor)  # not by `open`, which does not do it for a folder


def _reason_to_refuse(file: os.stat_result, folder: os.stat_result, max_bytes: int) -> str:
    """Return why a file may not be carried out, or "".

    In a folder that others may write and that is not sticky, they could put a file of ours in its
    place; in a sticky one, a second name for a file of ours.
    """
    us = os.geteuid()
    if not stat.S_ISREG(file.st_mode):
        return "it is not a regular file"
    if file.st_uid != us:
        return f"it belongs to user {file.st_uid}, expected {us}"
    if file.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write it: its mode is {stat.S_IMODE(file.st_mode):04o}, expected 0600"
    if file.st_nlink != 1:
        return f"it has {file.st_nlink} names, expected one"
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return "others may write its folder, which is not sticky"
    if file.st_size > max_bytes:
        return f"it has {file.st_size} bytes, expected at most {max_bytes}"
    return ""


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
