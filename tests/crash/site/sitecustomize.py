"""Kills a process of pman at a named point, or sets its clock back; on PYTHONPATH in crash tests.

CRASH_AT     module:function:before|after:n   the n-th call of it in a process
CRASH_TOKEN  a file; who removes it is killed, so that it happens once
CRASH_CLOCK  seconds to add to what time.time() returns
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import itertools
import os
import signal
import sys
import time
from types import ModuleType
from typing import Any


def die() -> None:
    """End this process as kill -9 does, unless it has happened to one already."""
    try:
        os.unlink(os.environ["CRASH_TOKEN"])
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def patch(module: ModuleType, path: str, when: str, at: int) -> None:
    """Put a function that may kill in the place of `path`, such as `Class.method`."""
    *owners, name = path.split(".")
    owner: Any = module
    for word in owners:
        owner = getattr(owner, word)
    function = getattr(owner, name)
    calls = itertools.count(1)

    @functools.wraps(function)
    def patched(*args: Any, **kwargs: Any) -> Any:
        is_due = next(calls) == at
        if is_due and when == "before":
            die()
        result = function(*args, **kwargs)
        if is_due and when == "after":
            die()
        return result

    setattr(owner, name, patched)


class Finder(importlib.abc.MetaPathFinder):
    """Patches one module as soon as it has been imported."""

    def __init__(self, module: str, path: str, when: str, at: int) -> None:
        self._module = module
        self._patch = (path, when, at)

    def find_spec(
        self, name: str, path: Any, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            patch(module, *self._patch)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if point := os.environ.get("CRASH_AT"):
    module_name, function_path, when_to, number = point.split(":")
    sys.meta_path.insert(0, Finder(module_name, function_path, when_to, int(number)))

if offset := os.environ.get("CRASH_CLOCK"):
    true_time = time.time
    time.time = lambda: true_time() + float(offset)
