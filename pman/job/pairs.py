"""What clients call by names of their own, `env` and `labels`: what may be in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pman.errors import RequestError, wrong

#: Labels whose key begins so are ours.
LABEL_PREFIX = "pman."

#: Most labels of a job: each of its events repeats them.
MAX_LABELS = 256

_VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*", re.ASCII)
#: Source: Kubernetes, "Labels: syntax and character set"; Docker takes all that it does.
_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def environment(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return `env`: an object of names and texts or numbers.

    Raises:
        RequestError: It is something else.
    """
    env: dict[str, str] = {}
    for name, value in _object(meta, "env").items():
        if _VARIABLE.fullmatch(name) is None:
            raise wrong("env", name, "names of letters, digits and '_'")
        env[name] = _scalar(value, f"env.{name}")
        if "\0" in env[name]:
            raise wrong(f"env.{name}", value, "no NUL character")
    return env


def labels(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return `labels`: an object of names and texts or numbers, short ones, and not many.

    Raises:
        RequestError: It is something else.
    """
    given = _object(meta, "labels")
    if len(given) > MAX_LABELS:
        raise RequestError(
            f"labels has {len(given)} entries, expected at most {MAX_LABELS}", field="labels"
        )
    found: dict[str, str] = {}
    for key, value in given.items():
        if _LABEL_KEY.fullmatch(key) is None or key.startswith(LABEL_PREFIX):
            expected = f"letters, digits, '-', '_', '.', not beginning with {LABEL_PREFIX!r}"
            raise wrong("labels", key, expected)
        found[key] = _scalar(value, f"labels.{key}")
        if _LABEL_VALUE.fullmatch(found[key]) is None:
            raise wrong(f"labels.{key}", value, "at most 63 letters, digits, '-', '_', '.'")
    return found


def _object(meta: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = meta.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(key, value, "an object")
    return value


def _scalar(value: Any, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise wrong(field, value, "a string or a number")
    return str(value)
