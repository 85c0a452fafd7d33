"""No pattern that pman looks for goes back and forth in a text that was made for that.

Found in the modules, so that a new one is tried, too. One that goes back and forth takes half a
minute or more for such a text, one that looks through it once a hundredth of a second. What is
measured is the time of this thread, so that a busy machine does not count.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pman
from pman.backends._engine.order import order_from_meta
from pman.backends._swarm.spec import service_name
from pman.errors import RequestError
from pman.job.reading import read_struct
from pman.job.spec import RunOptions, spec_from_meta

LENGTH = 100_000

#: Most that all of them together may take, seconds.
SOON_S = 10.0

#: What a text begins with, what is repeated in it, and what it ends with.
HOSTILE = [
    *(("", unit, "!") for unit in ("1", "a", "A-", "a.", "a/", "a_", " ", "\n", "=", "_r1")),
    *(("", unit, "") for unit in ('"', 'W/"', "[", "{", ",", "\\", "\t", "a;", "\x80", "%", "'")),
    *(("", unit, "") for unit in ("/v2/", "manifest for ", 'user "', 'namespaces "')),
    *(("", unit, "") for unit in (" - at `$", ", got `", "Object missing required field `")),
    ("1.", "1", "!"),
    ("1e", "1", "!"),
    ("_r", "1", "x"),
    ("manifest for ", "x", ""),
    ('user "', "a", ""),
    ('user "a" cannot ', "x", ""),
    ('user "a" cannot x resource "', "x", ""),
    ("::progress ", " ", "x"),
    ("::progress 1", "%", ""),
    ("q=0.", "0", "x"),
    (" - at `$.", "x", ""),
    (", got `", "x", ""),
    ("GET ", "a", ""),
    ("GET", " ", ""),
    ("GET / ", " ", ""),
    ("GET /  HTTP/1.1", "\r", ""),
    ("tcp://", "1:", "x"),
    ("a/", "a-", "!"),
    ("a/b:", "a", "!"),
    ("a/b@", "a.", "!"),
    ("a/b@c:", "0", "!"),
    ("unable to retrieve container logs for ", "a-", ""),
    ("rpc error: code = ", "a", ""),
    ("rpc error: code = a desc = ", "No such container: ", "x"),
    ('{"format":', " ", "x"),
]


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(pman.__path__, "pman."):
        if not found.name.endswith("__main__"):
            yield found.name


def patterns() -> dict[str, re.Pattern[Any]]:
    """Return all patterns that are kept in modules, by module and name."""
    found = {}
    for module in modules():
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, re.Pattern):
                found[f"{module}.{name}"] = value
    return found


PATTERNS = patterns()


@functools.cache
def source() -> str:
    return "\n".join(path.read_text() for path in Path(pman.__path__[0]).rglob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("where", PATTERNS)
def test_a_pattern_reads_each_character_a_few_times_only(where: str) -> None:
    pattern, name = PATTERNS[where], where.rpartition(".")[2]
    uses = set(re.findall(rf"\b{name}\.(fullmatch|match|search|sub|findall)\b", source()))
    assert uses, "how it is used could not be found"
    began = time.thread_time()
    for begin, unit, end in HOSTILE:
        text = begin + unit * (LENGTH // len(unit)) + end
        given = text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text
        for use in uses:
            arguments = (given[:0], given) if use == "sub" else (given,)
            getattr(pattern, use)(*arguments)
    assert time.thread_time() - began < SOON_S


@pytest.mark.parametrize("key", ["retries", "timeout", "pendingTimeout", "backoff", "priority"])
def test_a_long_number_is_no_number(key: str) -> None:
    meta = {"cmd": "true", "auid": "", "jid": "", key: "1" * LENGTH}
    with pytest.raises(RequestError) as caught:
        spec_from_meta(meta, is_lenient=True)
    assert caught.value.field == key


def test_a_name_that_docker_does_not_take_is_told_soon() -> None:
    container = {"target": {"image": "busybox"}}
    meta = {"cmd": "true", "auid": "", "jid": f"{'a' * 61}!", "container": container}
    assert service_name(order_from_meta(meta)) == "a" * 61


@pytest.mark.parametrize(("begin", "unit", "end"), HOSTILE)
def test_what_is_wrong_is_explained_soon(begin: str, unit: str, end: str) -> None:
    text = begin + unit * (LENGTH // len(unit)) + end
    for given in ({"jid": text, "auid": 1, "env": {text: [text]}}, {"jid": 1, "retries": text}):
        with pytest.raises(RequestError):
            read_struct(given, RunOptions)
