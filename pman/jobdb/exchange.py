"""Puts a new folder in the place of an old one, so that a crash leaves one of them whole."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

#: The file system, or the C library, cannot exchange two names in one step.
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})


def new_path(target: Path) -> Path:
    """Return where to make what is to become `target`."""
    return target.with_name(f"{target.name}.new-{os.getpid()}")


def former_path(target: Path) -> Path:
    """Return where two renames put what `target` was; nothing may be there."""
    return target.with_name(f"{target.name}.old-{os.getpid()}")


def put_in_place(new: Path, target: Path) -> Path | None:
    """Give `new` the name `target`, which may be there.

    Returns:
        Where the former `target` is now, or None when there was none or it was an empty folder.
    Raises:
        OSError: Nothing was changed.
    Source: renameat2(2), RENAME_EXCHANGE, is atomic. Where it is missing two renames do it: a crash
        between them leaves the old folder as `<target>.old-<pid>`, whole.
    """
    if not target.exists() or not any(target.iterdir()):
        new.replace(target)
        return None
    if _exchange(new, target):
        return new
    former = former_path(target)
    target.replace(former)
    try:
        new.replace(target)
    except OSError:
        former.replace(target)
        raise
    return former


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; return False where that is not possible."""
    rename = _renameat2()
    if rename is None:
        return False
    if rename(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))


@functools.cache
def _renameat2() -> Callable[[bytes, bytes], int] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None
    function.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]

    def rename(one: bytes, other: bytes) -> int:
        result: int = function(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE)
        return result

    return rename
