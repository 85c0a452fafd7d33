"""Keep-alive load on an HTTP server: N connections, one request after the other on each.

Prints requests/s and the 50th and 99th percentile of the time to a reply. One process, epoll, and
no more HTTP than the length of the first reply: made to cost as little of the machine as can be.

    python benchmarks/_load.py --port 5010 --connections 32 --seconds 5
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import time

BODY = b'{"payload": {"action": "hello", "meta": {"askAbout": "timestamp"}}}   '


def request(target: str, body: bytes) -> bytes:
    """Return the bytes of one POST, with the headers that curl sends."""
    return (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def connect(port: int, raw: bytes) -> tuple[socket.socket, int]:
    """Open a connection, make one request on it, return it with the length of the reply."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(raw)
    got = b""
    while b"\r\n\r\n" not in got:
        got += sock.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields[b"content-length"])
    while len(body) < length:
        body += sock.recv(65536)
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"refused: {head!r}")
    return sock, len(head) + 4 + length


def load(port: int, raw: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Keep `connections` requests on their way for `seconds`."""
    poll = select.epoll()
    wires: dict[int, tuple[socket.socket, int]] = {}
    for _ in range(connections):
        sock, length = connect(port, raw)
        wires[sock.fileno()] = (sock, length)
        poll.register(sock.fileno(), select.EPOLLIN)
    missing = {number: length for number, (_, length) in wires.items()}
    sent_at = dict.fromkeys(wires, 0.0)
    times: list[float] = []
    clock = time.perf_counter
    begin = now = clock()
    for number, (sock, _) in wires.items():
        sock.send(raw)
        sent_at[number] = clock()
    while now - begin < seconds:
        for number, _ in poll.poll():
            sock, length = wires[number]
            got = len(sock.recv(65536))
            if not got:
                raise SystemExit("the server closed a connection")
            # Lengths vary by some bytes (time stamps): one that ends a little early is one, too.
            missing[number] -= got
            if missing[number] > 16:
                continue
            missing[number] = length
            now = clock()
            times.append(now - sent_at[number])
            sent_at[number] = now
            sock.send(raw)
    times.sort()
    return {
        "requests_per_s": round(len(times) / (now - begin)),
        "p50_ms": round(times[len(times) // 2] * 1000, 2),
        "p99_ms": round(times[len(times) * 99 // 100] * 1000, 2),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--target", default="/api/v1/cmd")
    parser.add_argument("--body", default=BODY.decode())
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    raw = request(args.target, args.body.encode())
    print(json.dumps(load(args.port, raw, args.connections, args.seconds)))


if __name__ == "__main__":
    main()
