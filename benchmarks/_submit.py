"""`run` requests on many connections, each with a job id of its own; one process, epoll.

Prints requests/s and the 50th and 99th percentile of the time to a reply.

    python benchmarks/_submit.py --port 5010 --jobs 5000 --connections 16
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import time
from collections.abc import Iterator

from _load import request

#: Bytes of a whole `run` request; all have the same length, as blanks behind the JSON are allowed.
BODY_BYTES = 200


def runs(count: int, prefix: str, cmd: str, *, is_threaded: bool) -> Iterator[bytes]:
    """Give the bytes of `count` requests with the job ids `<prefix>-<n>`."""
    for n in range(count):
        meta = {"cmd": cmd, "auid": "bench", "jid": f"{prefix}-{n}", "threaded": is_threaded}
        body = json.dumps({"payload": {"action": "run", "meta": meta}})
        yield request("/api/v1/cmd", body.ljust(BODY_BYTES).encode())


class Client:
    """One connection with one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self._got = b""

    def send(self, raw: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(raw)

    def is_answered(self) -> bool:
        """Take what is there; tell whether it completes the reply, which must be a good one."""
        self._got += self.socket.recv(1 << 16)
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"refused: {self._got!r}")
        self._got = b""
        return True


def _length(head: bytes) -> int:
    at = head.lower().index(b"content-length:") + 15
    return int(head[at:].split(b"\r", 1)[0])


def submit(port: int, requests: Iterator[bytes], connections: int) -> dict[str, float]:
    """Send all requests, one after the other on each connection; return the figures."""
    poll = select.epoll()
    clients = [Client(port) for _ in range(connections)]
    by_fd = {client.socket.fileno(): client for client in clients}
    begin = time.perf_counter()
    busy = set()
    for fd, client in by_fd.items():
        raw = next(requests, None)
        if raw is not None:
            poll.register(fd, select.EPOLLIN)
            client.send(raw)
            busy.add(fd)
    times: list[float] = []
    while busy:
        for fd, _ in poll.poll():
            client = by_fd[fd]
            if not client.is_answered():
                continue
            times.append(time.perf_counter() - client.sent_at)
            raw = next(requests, None)
            if raw is None:
                busy.discard(fd)
                poll.unregister(fd)
            else:
                client.send(raw)
    took_s = time.perf_counter() - begin
    for client in clients:
        client.socket.close()
    times.sort()
    return {
        "requests_per_s": len(times) / took_s,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--prefix", default="job")
    parser.add_argument("--cmd", default="true")
    parser.add_argument("--wait", action="store_true", help="answers come when jobs have ended")
    args = parser.parse_args()
    requests = runs(args.jobs, args.prefix, args.cmd, is_threaded=not args.wait)
    print(json.dumps(submit(args.port, requests, args.connections)))


if __name__ == "__main__":
    main()
