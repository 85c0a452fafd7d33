"""A tree of 2.2's files as nested dicts: reads and writes one folder, safely. No jobs in here.

Trees may come from anybody: links, pipes and devices are refused, names never leave the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Names from the top of a tree down.
Names = tuple[str, ...]

IsFolder = Callable[[Names], bool]

#: Size of one leaf, bytes; 2.2 kept all output of a job in it.
MAX_LEAF_BYTES = 256 * 1024 * 1024

#: Folders within folders.
MAX_DEPTH = 30

#: File names that Linux takes, bytes.
MAX_NAME_BYTES = 200


def read_folder(path: Path, depth: int = 0) -> dict[str, Any]:
    """Return the leaves and folders below `path`; hidden files are left out.

    Raises:
        OSError: It cannot be read.
        ValueError: A file is not JSON, or not a file at all.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} folders within folders")
    found: dict[str, Any] = {}
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                found[entry.name] = read_folder(path / entry.name, depth + 1)
            else:
                found[entry.name] = read_leaf(path / entry.name)
    return found


def read_leaf(path: Path) -> Any:
    """Return the JSON value in a file.

    Raises:
        OSError, ValueError: As in `read_folder`.
    """
    # O_NONBLOCK: a named pipe must not hold us up.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is not a regular file")
        if found.st_size > MAX_LEAF_BYTES:
            raise ValueError(f"{path.name} has more than {MAX_LEAF_BYTES} bytes")
        raw = file.read()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{path.name} is not JSON: {exc}") from exc


def write_folder(path: Path, tree: dict[str, Any], is_folder: IsFolder, at: Names = ()) -> None:
    """Write a tree as 2.2 does: a folder per folder, a file per leaf, JSON in one line.

    Args:
        path: A folder, which holds none of it yet.
        is_folder: Tells which objects are folders, by their names from the top down.
        at: Names from the top down to `tree`.
    Raises:
        OSError: The disk would not take it.
    Source: WIRE.md 11.
    """
    for name, value in tree.items():
        inner, names = path / file_name(name), (*at, name)
        if isinstance(value, dict) and is_folder(names):
            inner.mkdir(mode=0o700)
            write_folder(inner, value, is_folder, names)
        else:
            write_leaf(inner, value)


def write_leaf(path: Path, value: Any) -> None:
    """Write one leaf."""
    path.write_text(json.dumps(value), "ascii")


def find_other(
    path: Path,
    tree: dict[str, Any],
    is_folder: IsFolder,
    at: Names = (),
    *,
    also: frozenset[str] = frozenset(),
) -> Names | None:
    """Return the file names down to something that `write_folder` would not have written.

    Args:
        path, tree, is_folder, at: As for `write_folder`.
        also: Names of files that may be in `path`.
    Returns:
        None when there is nothing of that kind; what is missing does not count.
    Raises:
        OSError: A folder cannot be read.
    """
    own = {file_name(name): (name, value) for name, value in tree.items()}
    with os.scandir(path) as entries:
        for entry in entries:
            name, value = own.get(entry.name, (entry.name, None))
            names = (*at, name)
            if entry.name in own and isinstance(value, dict) and is_folder(names):
                if not entry.is_dir(follow_symlinks=False):
                    return (entry.name,)
                other = find_other(path / entry.name, value, is_folder, names)
                if other is not None:
                    return (entry.name, *other)
                continue
            is_ours = entry.name in own or entry.name in also
            if not is_ours or not entry.is_file(follow_symlinks=False):
                return (entry.name,)
    return None


def file_name(name: str) -> str:
    """Return a leaf's name as file name: clients choose the names within a container block.

    Names that differ have file names that differ.
    """
    raw = name.encode("utf-8", "replace")
    is_plain = name and name[0] != "." and not {"/", "%"} & set(name) and name.isprintable()
    if is_plain and len(raw) <= MAX_NAME_BYTES:
        return raw.decode()
    quoted = urllib.parse.quote(raw, safe="").replace(".", "%2E") or "%"
    if len(quoted) <= MAX_NAME_BYTES:
        return quoted
    digest = hashlib.sha256(raw).hexdigest()
    return f"{quoted[: MAX_NAME_BYTES - len(digest) - 2]}%-{digest}"
