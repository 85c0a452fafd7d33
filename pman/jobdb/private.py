"""Folders and files of the job DB that nobody else may look into."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pman.errors import StartError


def make_folder(path: Path, what: str) -> None:
    """Make a folder, mode 0700, unless it is there; one that is there must be ours alone to write.

    Args:
        what: What it is, for the message.
    Raises:
        StartError: It cannot be made, is not a folder, or others may write to it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except FileExistsError as exc:
        raise StartError(f"{what} {str(path)!r} is not a folder") from exc
    except OSError as exc:
        raise StartError(f"{what} {str(path)!r} cannot be made: {exc.strerror}") from exc
    if found.st_uid != os.geteuid():
        raise StartError(
            f"{what} {str(path)!r} belongs to user {found.st_uid}, expected {os.geteuid()}: chown"
            " it, or name a new folder with --DBpath"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartError(
            f"{what} {str(path)!r} has mode {stat.S_IMODE(found.st_mode):04o}, expected 0700:"
            " others may have put something there; look, then chmod go-w it, or name a new folder"
            " with --DBpath"
        )


def make_inner_folder(path: Path) -> None:
    """As `make_folder`, for one within the DBpath; nobody else can look into it afterwards.

    Raises:
        StartError: As in `make_folder`, or its mode cannot be changed.
    """
    make_folder(path, "folder")
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            path.chmod(0o700)
    except OSError as exc:
        raise StartError(f"folder {str(path)!r} cannot be closed: {exc.strerror}") from exc


def write_private(path: Path, raw: bytes) -> None:
    """Write a file, mode 0600 if it is new.

    Raises:
        OSError: The disk would not take it.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(raw)
