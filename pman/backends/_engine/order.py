"""`Order`: what a container job asks of an engine, checked and in plain units. Pure.

Read from `meta` and its `container` block; engines never look at those.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec

from pman.errors import RequestError, shown, wrong
from pman.job.lenient import eased
from pman.job.pairs import environment, labels
from pman.job.words import split_words

#: Most containers of one job; more is a slip of the keyboard.
MAX_WORKERS = 1000

#: Most that engines can count to, bytes.
MAX_MEMORY_BYTES = 2**63 - 1

#: Least share of a CPU that Docker takes; who asks for less has most likely counted in CPUs.
#: Source: moby, daemon/daemon_unix.go, the check of NanoCPUs.
MIN_CPU_MILLIS = 10

#: Source: Kubernetes, "Resource units"; decimal and binary suffixes of bytes.
_BYTES = {
    "": 1 << 20,  # a bare number is MiB, as in 2.2's example
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}
_CPU = re.compile(r"([0-9]{1,9})m?", re.ASCII)
_MEMORY = re.compile(r"([0-9]{1,15})(k|M|G|T|Ki|Mi|Gi|Ti)?", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)

#: Name of an image: domain and port, path, tag, digest.
#: Source: https://github.com/distribution/reference, the grammar in reference.go.
_IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)
#: Longest name that is looked at, characters; the grammar allows 255 before tag and digest.
_MAX_IMAGE_LENGTH = 1024


class Manager(msgspec.Struct, frozen=True):
    """The manager that 2.2's clients name. Attributes: image; app, the script it runs."""

    image: str
    app: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a container job asks of an engine.

    Attributes:
        job_name: Folder name of the job; unique.
        jid: Job id of the client, "" when none.
        cmd: Command line as sent; of an `argv` that came without one, its words quoted.
        image: Name of the image, as sent.
        command: `argv` as sent, else `cmd` split as a shell would; replaces the image's entry
            point; [] leaves it.
        cwd: Working directory in the container, or None for the image's.
        workers: Number of containers, at least 1.
        cpu_millis: Limit in thousandths of a CPU, or None.
        memory_bytes: Limit in bytes, or None.
        gpus: Number of GPUs, 0 for none.
        env: Environment variables.
        labels: Labels of the client; none begins with `pman.`.
        share_dir: Folder for `/share`, without slashes at its end, or None.
        service_name: Name for the engine's object as sent, or None.
        has_own_name: Whether the object gets a name that no other job can have.
        manager: The manager that was named in full, or None.
    """

    job_name: str
    jid: str
    cmd: str
    image: str
    command: list[str]
    cwd: str | None = None
    workers: int = 1
    cpu_millis: int | None = None
    memory_bytes: int | None = None
    gpus: int = 0
    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    share_dir: str | None = None
    service_name: str | None = None
    has_own_name: bool = False
    manager: Manager | None = None


def order_from_meta(meta: Mapping[str, Any], *, job_name: str = "") -> Order:
    """Read the order out of a `run` request.

    Args:
        meta: As sent; has passed `spec_from_meta` and has a `container` block.
        job_name: Name of the job, "" while it is only checked.
    Raises:
        RequestError: A value can't be read; names the field, the value and what was expected.
    """
    meta = eased(meta)
    block = _object(meta, "container")
    target = _object(block, "target", "container.target")
    manager = _object(block, "manager", "container.manager")
    manager_env = _object(manager, "env", "container.manager.env")
    jid = meta.get("jid", "")
    argv = list(meta.get("argv") or ())
    cmd = meta.get("cmd") or shlex.join(argv)
    _refuse_stdin(meta)
    return Order(
        job_name=job_name,
        jid=jid if isinstance(jid, str) else str(jid),
        cmd=cmd,
        image=_image(target),
        command=argv or _words(cmd),
        cwd=meta.get("cwd"),
        workers=_workers(meta),
        cpu_millis=_cpu(meta),
        memory_bytes=_memory(meta),
        gpus=_count(meta, "gpu_limit", 0),
        env=environment(meta),
        labels=labels(meta),
        share_dir=_share_dir(manager_env),
        service_name=_text(manager_env, "serviceName", "container.manager.env.serviceName"),
        has_own_name=_has_own_name(block),
        manager=_manager(manager),
    )


def _image(target: Mapping[str, Any]) -> str:
    """Return the name of the image: an engine, or a manager, gets nothing but a name."""
    image = target.get("image")
    if (
        not isinstance(image, str)
        or len(image) > _MAX_IMAGE_LENGTH
        or _IMAGE.fullmatch(image) is None
    ):
        raise wrong("container.target.image", image, "the name of an image")
    return image


def _words(cmd: str) -> list[str]:
    try:
        return split_words(cmd)
    except ValueError as exc:
        reason = str(exc).lower()
        raise RequestError(
            f"cmd is {shown(cmd)}, expected words as in a shell: {reason}", field="cmd"
        ) from exc


def _refuse_stdin(meta: Mapping[str, Any]) -> None:
    if meta.get("stdin") is not None:
        raise RequestError(
            "stdin is given, expected none: jobs in containers have no standard input; put it into"
            " a file below shareDir",
            field="stdin",
        )


def _workers(meta: Mapping[str, Any]) -> int:
    count = _count(meta, "number_of_workers", 1)
    if not 1 <= count <= MAX_WORKERS:
        raise wrong("number_of_workers", meta["number_of_workers"], f"1 to {MAX_WORKERS}")
    return count


def _cpu(meta: Mapping[str, Any]) -> int | None:
    """Return thousandths of a CPU: `1000` and `"1000m"` are one CPU."""
    text = _number(meta, "cpu_limit")
    match = None if text is None else _CPU.fullmatch(text)
    if text is None:
        return None
    if match is None or int(match[1]) < MIN_CPU_MILLIS:
        expected = f"thousandths of a CPU, at least {MIN_CPU_MILLIS}, such as 1000 or '500m'"
        raise wrong("cpu_limit", meta["cpu_limit"], expected)
    return int(match[1])


def _memory(meta: Mapping[str, Any]) -> int | None:
    """Return bytes: `200` is 200 MiB, `"1Gi"` and `"500M"` say their unit."""
    text = _number(meta, "memory_limit")
    match = None if text is None else _MEMORY.fullmatch(text)
    if text is None:
        return None
    if match is None or int(match[1]) == 0:
        expected = "MiB, more than 0, or a number with one of Ki Mi Gi Ti k M G T"
        raise wrong("memory_limit", meta["memory_limit"], expected)
    count = int(match[1]) * _BYTES[match[2] or ""]
    if count > MAX_MEMORY_BYTES:
        raise wrong("memory_limit", meta["memory_limit"], f"at most {MAX_MEMORY_BYTES} bytes")
    return count


def _count(meta: Mapping[str, Any], key: str, default: int) -> int:
    text = _number(meta, key)
    if text is None:
        return default
    if _COUNT.fullmatch(text) is None:
        raise wrong(key, meta[key], "a whole number")
    return int(text)


def _number(meta: Mapping[str, Any], key: str) -> str | None:
    """Return a number as text, with or without a unit; None when absent, null or ""."""
    value = meta.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise wrong(key, value, "a number, or text that holds one")
    return value.strip()


def _share_dir(env: Mapping[str, Any]) -> str | None:
    field = "container.manager.env.shareDir"
    path = _text(env, "shareDir", field)
    if path is None:
        return None
    if not path.startswith("/"):
        raise wrong(field, path, "an absolute path")
    if {".", ".."} & set(path.split("/")):  # the last of them would lead out of STOREBASE
        raise wrong(field, path, "a path without '.' and '..'")
    return path.rstrip("/") or "/"


def _manager(manager: Mapping[str, Any]) -> Manager | None:
    image = _text(manager, "image", "container.manager.image")
    app = _text(manager, "app", "container.manager.app")
    return Manager(image, app) if image is not None and app is not None else None


def _has_own_name(block: Mapping[str, Any]) -> bool:
    value = block.get("uniqueName", False)
    if not isinstance(value, bool):
        raise wrong("container.uniqueName", value, "true or false")
    return value


def _text(block: Mapping[str, Any], key: str, field: str) -> str | None:
    value = block.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\0" in value:
        raise wrong(field, value, "a string")
    return value


def _object(block: Mapping[str, Any], key: str, field: str = "") -> Mapping[str, Any]:
    value = block.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(field or key, value, "an object")
    return value
