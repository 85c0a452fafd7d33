"""Copies what containers have printed from the engine, whole or the end of it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path

from pman.backends._engine.halt import Halt
from pman.backends._engine.port import Sink, View
from pman.backends._swarm.client import CHUNK_BYTES, EngineClient, url_path
from pman.backends._swarm.logs import Demultiplexer, Pieces
from pman.backends._swarm.problems import Missing, plain
from pman.backends._swarm.tasks import STAGES, Stage
from pman.errors import BackendUnavailable
from pman.job.record import Worker

#: Lines per container that a look at running ones asks for, and most containers it asks.
PEEK_LINES = 500
PEEK_WORKERS = 20

#: How long a container that is followed may be silent before it is followed anew, seconds.
FOLLOW_S = 3600.0

#: What the engine says of a container that has gone, or keeps no output: there is none to wait for.
_NOTHING_THERE = ("no such container", "does not support reading", "has not been scheduled")


def collect(
    client: EngineClient,
    view: View,
    sink: Sink,
    *,
    skipped: Container[str] = frozenset(),
    rescued: Mapping[str, Path] | None = None,
) -> bool:
    """Copy the whole output of all containers of a job.

    When a task has ended, the engine has all of its output: it waits for the container's streams
    and closes their log before it tells how the container ended.
    Source: moby, daemon/monitor.go, handleContainerExit (`StreamConfig.Wait`, `Reset`).

    Args:
        skipped: Tasks whose output is gone.
        rescued: {task: file} of those whose output we have.
    Returns:
        Whether the engine or we had the output of all of them.
    Raises:
        BackendUnavailable: Not all of it could be read.
        OSError: The sink could not keep it.
    """
    is_whole = True
    for index, worker in enumerate(view.workers):
        path = (rescued or {}).get(worker.name)
        if path is not None:
            _read_file(path, is_plain(view), into(sink, index))
        elif has_output(worker) and worker.name not in skipped:
            is_whole &= read_task(client, worker.name, is_plain(view), into(sink, index))
    return is_whole


def _read_file(path: Path, is_plain: bool, take: Callable[[Pieces], None]) -> None:
    """Copy the output of one task as the engine sent it once."""
    demultiplexer = Demultiplexer(is_plain=is_plain)
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            take(demultiplexer.feed(block))
    take(demultiplexer.finish())


def into(sink: Sink, index: int) -> Callable[[Pieces], None]:
    """Return what takes the output of the n-th worker."""

    def write(pieces: Pieces) -> None:
        for stream, raw in pieces:
            sink.write(index, stream, raw)

    return write


def peek(client: EngineClient, view: View, max_bytes: int) -> bytes:
    """Return about the last `max_bytes` of what the containers have printed so far.

    Raises:
        BackendUnavailable: It can't be read now.
    """
    ends = []
    for worker in view.workers[:PEEK_WORKERS]:
        if has_output(worker):
            end = bytearray()

            def keep(pieces: Pieces, end: bytearray = end) -> None:
                for _, raw in pieces:
                    end.extend(raw)
                del end[:-max_bytes]

            read_task(client, worker.name, is_plain(view), keep, tail=PEEK_LINES)
            ends.append(bytes(end))
    return b"".join(ends)[-max_bytes:]


def is_plain(view: View) -> bool:
    """Return whether the output comes without frames: as from a terminal."""
    return bool(view.handle.get("tty"))


def has_output(worker: Worker) -> bool:
    """Return whether a container may have printed something that can still be had."""
    if worker.state in ("rejected", "orphaned") or worker.reason == "node_lost":
        return False  # never started; on a node that is away or gone for good
    return STAGES.get(worker.state, Stage.WAITING) is not Stage.WAITING


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join what comes line by line into pieces worth a call of the sink."""
    block = bytearray()
    for chunk in chunks:
        block += chunk
        if len(block) >= CHUNK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def read_task(
    client: EngineClient,
    task_id: str,
    is_plain: bool,
    take: Callable[[Pieces], None],
    *,
    tail: int | None = None,
) -> bool:
    """Copy the output of one task, from whichever node it ran on, in constant memory.

    Args:
        is_plain: Whether it comes without frames.
        tail: Only so many lines at the end; None for all.
    Returns:
        Whether the engine has its output.
    Raises:
        BackendUnavailable: Not all of it could be read.
    """
    params: dict[str, str | int] = {"stdout": 1, "stderr": 1}
    if tail is not None:
        params["tail"] = tail
    demultiplexer = Demultiplexer(is_plain=is_plain)
    path = url_path("/tasks/{}/logs", task_id)
    try:
        with client.stream("GET", path, params) as stream:
            for block in _blocks(stream.chunks()):
                take(demultiplexer.feed(block))
    except Missing:
        return False
    held_back = demultiplexer.finish()
    if held_back:
        take(held_back)
    return _has_all(demultiplexer, path)


def _has_all(demultiplexer: Demultiplexer, path: str) -> bool:
    """Return whether the engine has what it was asked for.

    Raises:
        BackendUnavailable: It may, and can't give it now.
    """
    words = plain(demultiplexer.errors.decode("utf-8", "replace"))
    if any(part in words.lower() for part in _NOTHING_THERE):
        return False
    if words:
        raise BackendUnavailable(f"the output at {path} can't be read: {words}")
    return True


def follow(
    client: EngineClient,
    path: str,
    is_plain: bool,
    take: Callable[[Pieces], None],
    halt: Halt,
    *,
    waits: bool,
) -> None:
    """Copy the output of one task, or container, as it comes.

    Args:
        path: Of its logs.
        halt: Set once no more is wanted.
        waits: Whether to wait for what is still to come.
    Raises:
        BackendUnavailable: It broke off.
    """
    params = {"stdout": 1, "stderr": 1, "follow": int(waits)}
    demultiplexer = Demultiplexer(is_plain=is_plain)
    try:
        with (
            client.stream("GET", path, params, timeout_s=FOLLOW_S) as stream,
            halt.interrupts(stream.interrupt),
        ):
            for chunk in stream.chunks():
                take(demultiplexer.feed(chunk))
        take(demultiplexer.finish())
        _has_all(demultiplexer, path)
    except Missing:
        return
    except BackendUnavailable:
        if not halt.is_set():
            raise
