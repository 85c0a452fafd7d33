"""Logs of containers, streamed from the API server.

Kubernetes keeps stdout and stderr of a container as one stream: all of it counts as stdout. The
containers that help with the storage have streams of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pman.backends._engine.halt import Halt
from pman.backends._engine.port import Sink, View
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.storage import STREAMS
from pman.errors import BackendUnavailable

if TYPE_CHECKING:
    from pman.backends._openshift.client import Api, Stream
    from pman.backends._openshift.rescue import Rescue

#: How long the server may be silent while it sends what is there, seconds.
READ_S = 60.0
#: How long a container that is followed may be silent, seconds.
FOLLOW_S = 3600.0
#: Of the output of one running container at most so many times what is wanted is read.
PEEK_FACTOR = 16
#: Shortest line that is counted on when the end of an output is asked for, bytes.
PEEK_LINE_BYTES = 40

#: What the kubelet adds to a log, or sends instead of it, with status 200, when a container is no
#: more. Source: Kubernetes, pkg/kubelet/kubelet.go, pkg/kubelet/dockershim/docker_logs.go
_NO_LOG = re.compile(
    rb"(unable to retrieve container logs for [a-z-]+://"
    rb"|rpc error: code = \w+ desc = [^\n]{0,200}No such container: )[0-9a-f]{64}\s?\Z"
)
_NO_LOG_BEGINS = (b"unable to retrieve container logs for ", b"rpc error: code = ")
#: Longest such text, bytes.
_NO_LOG_LENGTH = 400


def stream_name(container: str, job: str) -> str:
    """Return the stream that the output of a container is kept as."""
    return "stdout" if container == job else STREAMS.get(container, "stdout")


def containers_of(handle: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (container, stream) of each container of a pod of this Job."""
    job = handle["job"]
    names = handle.get("containers") or [job]
    return [(name, stream_name(name, job)) for name in names]


def open_log(api: Api, pod: str, container: str, **options: Any) -> Stream | None:
    """Begin to read a log; None when there is none.

    Raises:
        BackendUnavailable: It can't be read now.
    """
    query = {"container": container, **options}
    try:
        silence_s = FOLLOW_S if options.get("follow") else READ_S
        return api.stream(f"{api.pods}/{pod}/log", query, silence_s)
    except Answered as exc:
        # 404: no pod; 400: the container has not started, or is no more.
        if exc.status in (400, 404):
            return None
        raise


def chunks_of(stream: Stream) -> Iterator[bytes]:
    """Yield a log, without the words that say that there is no more.

    Raises:
        BackendUnavailable: It broke off.
    """
    held = b""  # the end, which may be such words
    for raw in stream.chunks():
        held += raw
        at = _begin_of_words(held)
        if at:
            yield held[:at]
            held = held[at:]
    rest = _NO_LOG.sub(b"", held)
    if rest:
        yield rest


def _begin_of_words(raw: bytes) -> int:
    """Return from where on the end of a log may be such words, or the beginning of them."""
    start = max(0, len(raw) - _NO_LOG_LENGTH)
    found = [at for words in _NO_LOG_BEGINS if (at := raw.find(words, start)) >= 0]
    for words in _NO_LOG_BEGINS:
        longest = min(len(words) - 1, len(raw))
        found += [len(raw) - n for n in range(1, longest + 1) if raw.endswith(words[:n])]
    return min(found, default=len(raw))


def follow(api: Api, view: View, worker: int, sink: Sink, halt: Halt, *, waits: bool) -> None:
    """Copy the log of the command's container of one pod as it comes; see `Engine.follow`."""
    pod, container = view.workers[worker].name, view.handle["job"]
    stream = open_log(api, pod, container, **({"follow": "true"} if waits else {}))
    if stream is None:
        return
    try:
        with stream, halt.interrupts(stream.interrupt):
            for raw in chunks_of(stream):
                sink.write(worker, stream_name(container, container), raw)
    except BackendUnavailable:
        if not halt.is_set():
            raise


def collect(api: Api, view: View, sink: Sink, rescue: Rescue) -> None:
    """Copy the logs of all containers of all pods; see `Engine.collect`."""
    for index, worker in enumerate(view.workers):
        for container, stream in containers_of(view.handle):
            for raw in _log(api, rescue, view.job_name, worker.name, container):
                sink.write(index, stream, raw)


def _log(api: Api, rescue: Rescue, job_name: str, pod: str, container: str) -> Iterator[bytes]:
    kept = rescue.read(job_name, pod, container)
    if kept is not None:
        yield from kept
        return
    stream = open_log(api, pod, container)
    if stream is not None:
        with stream:
            yield from chunks_of(stream)


def peek(api: Api, view: View, max_bytes: int) -> bytes:
    """Return about the last bytes that the containers of all pods have printed so far."""
    said = b""
    for worker in view.workers:
        share = max(1, max_bytes // len(view.workers))
        stream = open_log(api, worker.name, view.handle["job"], tailLines=share // PEEK_LINE_BYTES)
        if stream is not None:
            with stream:
                said += _end_of(stream, share)
    return said


def _end_of(stream: Stream, max_bytes: int) -> bytes:
    end, seen = b"", 0
    for raw in chunks_of(stream):
        end = (end + raw)[-max_bytes:]
        seen += len(raw)
        if seen > PEEK_FACTOR * max_bytes:
            break  # lines that are very long
    return end
