"""Output of containers, as the engine sends it: frames, or plain where there is a terminal."""

from __future__ import annotations

import struct

from pman.errors import BackendUnavailable

#: Streams by the first byte of a frame; 3 carries the engine's own errors.
#: Source: Docker, "Engine API", ContainerAttach, "Stream format"; moby, pkg/stdcopy.
STREAM_NAMES = {0: "stdout", 1: "stdout", 2: "stderr"}
ERROR_STREAM = 3

_HEADER = struct.Struct(">BxxxL")

#: Longest text kept of the engine's errors, bytes.
MAX_ERROR_BYTES = 4096

Pieces = list[tuple[str, bytes]]


class Demultiplexer:
    """Takes bytes of the wire, cut anywhere, and gives the bytes of each stream.

    It holds back at most the eight bytes of one header. A terminal has made CR LF of each LF; what
    the command printed is given.

    Attributes:
        errors: What the engine said in place of output.
    """

    def __init__(self, *, is_plain: bool = False) -> None:
        self.errors = b""
        self._is_plain = is_plain
        self._head = b""
        self._stream = 0
        self._left = 0  # bytes of the frame that are still to come

    def feed(self, raw: bytes) -> Pieces:
        """Return what these bytes add: (stream, bytes), neighbours of one stream joined."""
        if self._is_plain:
            return self._without_terminal(raw)
        pieces: list[tuple[int, list[bytes]]] = []
        data = memoryview(self._head + raw)
        at, end = 0, len(data)
        self._head = b""
        while at < end:
            if not self._left:
                if end - at < _HEADER.size:
                    self._head = bytes(data[at:])
                    break
                self._stream, self._left = _HEADER.unpack_from(data, at)
                at += _HEADER.size
                continue
            piece = bytes(data[at : at + self._left])
            at += len(piece)
            self._left -= len(piece)
            if pieces and pieces[-1][0] == self._stream:
                pieces[-1][1].append(piece)
            else:
                pieces.append((self._stream, [piece]))
        return self._sorted_out(pieces)

    def finish(self) -> Pieces:
        """Return what was held back; raise unless all came whole.

        Raises:
            BackendUnavailable: The output broke off.
        """
        if self._is_plain:
            held, self._head = self._head, b""
            return [("stdout", held)] if held else []
        if self._head or self._left:
            raise BackendUnavailable("the engine broke off in the middle of a job's output")
        return []

    def _without_terminal(self, raw: bytes) -> Pieces:
        data = self._head + raw
        self._head = b"\r" if data.endswith(b"\r") else b""  # its LF may be next
        data = data[: len(data) - len(self._head)].replace(b"\r\n", b"\n")
        return [("stdout", data)] if data else []

    def _sorted_out(self, pieces: list[tuple[int, list[bytes]]]) -> Pieces:
        sorted_out: Pieces = []
        for number, parts in pieces:
            raw = b"".join(parts)
            if number == ERROR_STREAM:
                self.errors = (self.errors + raw)[:MAX_ERROR_BYTES]
            else:
                sorted_out.append((STREAM_NAMES.get(number, "stderr"), raw))
        return sorted_out
