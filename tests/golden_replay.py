"""Compares a reply with a recorded one of pman 2.2: keys, order, types, non-volatile values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

GOLDEN = Path(__file__).parent / "golden"

JOB_NAME = re.compile(r"\d{14}\.\d{6}_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: Fields whose value changes from run to run. Source: WIRE.md, section 17.
VOLATILE = frozenset(
    [
        "startstamp",
        "endstamp",
        "pid",
        "now",
        "uname",
        "platform",
        "version",
        "hostname",
        "inet",
        "memory",
        "loadavg",
        "cpu_percent",
        "machine",
        "system",
        "cpucount",
    ]
)


class Overrule(msgspec.Struct):
    """One difference from a recording.

    Attributes:
        line: Line of the design that overrules the recording.
        status: HTTP status code.
        values: Path -> value that is there instead, or a function that looks at it.
        ignore: Further paths that are not compared.
        body: False when the reply has no body.
    """

    line: str
    status: int = 200
    values: dict[str, Any] = {}
    ignore: tuple[str, ...] = ()
    body: bool = True

    def check_values(self, ours: Any) -> None:
        """Raise `Difference` unless each value is what it is to be."""
        for path, expected in self.values.items():
            value = value_at(ours, path)
            if not (expected(value) if callable(expected) else value == expected):
                raise Difference(f"{path}: {value!r}")


def error_like(**expected: str) -> Callable[[Any], bool]:
    """Return what looks for an `error` with a message and these fields."""

    def look(value: Any) -> bool:
        return bool(value["message"]) and all(value[k] == v for k, v in expected.items())

    return look


def value_at(document: Any, path: str) -> Any:
    """Return the value at `$.a.b`; keys may hold dots (`0.start`), the longest key wins."""
    rest = path.removeprefix("$").removeprefix(".")
    while rest:
        key = next(
            (
                k
                for k in sorted(document, key=len, reverse=True)
                if rest == k or rest.startswith(k + ".")
            ),
            None,
        )
        if key is None:
            raise Difference(f"{path}: no {rest!r} in {list(document)}")
        document = document[key]
        rest = rest[len(key) + 1 :]
    return document


def load(name: str) -> dict[str, Any]:
    """Return one recorded exchange."""
    exchange: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return exchange


def names(group: str) -> list[str]:
    """Return the names of a group's exchanges, in the order of recording."""
    found = sorted(path.stem for path in GOLDEN.glob(f"{group}-*.json"))
    assert found, f"no recording in {GOLDEN}"
    return found


def recorded_body(exchange: dict[str, Any]) -> Any:
    """Return the recorded reply's JSON."""
    return json.loads(exchange["raw_response"].split("\r\n\r\n", 1)[1])


def request_bytes(exchange: dict[str, Any], body: str | None) -> bytes:
    """Return the request as it was sent, with another body of perhaps another length."""
    request = exchange["request"]
    lines = [f"{request['method']} {request['path']} HTTP/1.1"]
    for name, value in request["headers"].items():
        if name == "Content-Length" and body is not None:
            value = str(len(body.encode()))
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or "").encode()


def is_volatile(path: str) -> bool:
    """Return whether the value there changes from run to run; the version of `hello` does not."""
    return path.rsplit(".", 1)[-1] in VOLATILE and path != "$.d_ret.version"


class Difference(AssertionError):
    """A reply is not like the recorded one."""


def compare(ours: Any, theirs: Any, path: str = "$", ignore: frozenset[str] = frozenset()) -> None:
    """Raise `Difference` at the first place where `ours` is not like `theirs`.

    Args:
        ignore: Paths (`$.d_ret`) that are not looked into.
    """
    if path in ignore:
        return
    if type(ours) is not type(theirs):
        raise Difference(f"{path}: {type(ours).__name__} {ours!r}, recorded {theirs!r}")
    if isinstance(theirs, dict):
        kept = [key for key in ours if f"{path}.{key}" not in ignore]
        wanted = [key for key in theirs if f"{path}.{key}" not in ignore]
        if kept != wanted:
            raise Difference(f"{path}: keys {kept}, recorded {wanted}")
        for key in kept:
            compare(ours[key], theirs[key], f"{path}.{key}", ignore)
    elif isinstance(theirs, list):
        if is_volatile(path):
            shapes = [type(v) for v in ours], [type(v) for v in theirs]
            if len(ours) != len(theirs):
                raise Difference(f"{path}: {shapes[0]}, recorded {shapes[1]}")
            return
        if len(ours) != len(theirs):
            raise Difference(f"{path}: {ours!r}, recorded {theirs!r}")
        for n, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            compare(our, their, f"{path}[{n}]", ignore)
    elif not is_volatile(path) and ours != theirs:
        raise Difference(f"{path}: {ours!r}, recorded {theirs!r}")
