"""What clients cost that wait, and how fast a log is followed.

    python benchmarks/bench_streams.py [--followers 200] [--waiting 1000] [--rounds 7] [--mb 500]

1. Followers of the log of a job that prints nothing any more, and clients that wait for its end:
   the growth of the daemon's resident memory for each, and the throughput of `hello` on 32
   connections beside that of a pman without them, in turns.
2. A job writes as fast as it can, another one 100 MB/s, alone and while its log is followed,
   as records and as raw bytes.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from _daemon import Daemon, daemon
from _load import request

HERE = Path(__file__).parent

#: How long anything may take, seconds.
TIMEOUT_S = 120.0

MIB = 1024 * 1024

#: Much faster than `json`: the client has the same cores as the rest.
decode = msgspec.json.Decoder().decode

#: Prints what `yes` gives, then how long that took, nanoseconds.
WRITER = (
    "begin=$(date +%s%N); yes 0123456789abcdef | head -c {}; echo $(($(date +%s%N) - begin)) >&2"
)

#: The same at 100 MB/s: a block each 10 ms, made up for where one was late.
PACED = """exec {} -c '
import os, time
block, begin = b"0123456789abcde\\n" * 62_500, time.monotonic()
for n in range({}):
    time.sleep(max(0, begin + n / 100 - time.monotonic()))
    os.write(1, block)
print(time.monotonic_ns() - int(begin * 1e9), file=os.fdopen(2, "w"))
'"""


class Client:
    """One connection with one request on it."""

    def __init__(self, pman: Daemon, action: str, **meta: Any) -> None:
        body = json.dumps({"payload": {"action": action, "meta": meta}})
        self.socket = socket.create_connection(("127.0.0.1", pman.port), TIMEOUT_S)
        self.socket.sendall(request("/api/v1/cmd", body.encode()))
        self._file = self.socket.makefile("rb", MIB)

    def read_head(self) -> None:
        """Read up to the empty line."""
        first = self._file.readline()
        if not first.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"refused: {first!r}")
        while self._file.readline() not in (b"\r\n", b""):
            pass

    def chunks(self) -> Iterator[bytes]:
        """Give the chunks of the body."""
        while length := int(self._file.readline(), 16):
            yield self._file.read(length)
            self._file.readline()


def hello_per_s(pman: Daemon, seconds: float) -> float:
    """Return the requests/s of `hello` on 32 connections."""
    command = [sys.executable, str(HERE / "_load.py"), "--port", str(pman.port)]
    result = subprocess.run(
        [*command, "--seconds", str(seconds)], check=True, stdout=subprocess.PIPE, text=True
    )
    figure: float = json.loads(result.stdout)["requests_per_s"]
    return figure


def follow(pman: Daemon, count: int) -> list[Client]:
    """Open followers of the sleeping job, which have got what it has printed."""
    clients = [Client(pman, "logs", jid="sleeper", follow=True) for _ in range(count)]
    for client in clients:
        client.read_head()
        next(client.chunks())
    return clients


def wait(pman: Daemon, count: int) -> list[Client]:
    """Open clients that wait for the end of the sleeping job."""
    error = pman.post("wait", jid="sleeper", timeout=0).get("error", {})
    if error.get("type") == "UnknownAction":
        meta = {"cmd": "true", "auid": "bench", "jid": "sleeper", "idempotent": True}
        return [Client(pman, "run", **meta) for _ in range(count)]
    return [Client(pman, "wait", jid="sleeper", timeout=600) for _ in range(count)]


def waiting_clients(args: argparse.Namespace) -> None:
    """Print memory and throughput with and without followers and waiting clients."""
    with daemon() as quiet, daemon() as busy:
        for pman in (quiet, busy):
            meta = {"cmd": "echo begun; sleep 600", "auid": "bench", "jid": "sleeper"}
            pman.post("run", **meta, threaded=True, compound=False)
            hello_per_s(pman, 0.2)
            for client in follow(pman, 5):
                client.socket.close()
        before = busy.memory_mib()
        clients = follow(busy, args.followers)
        followed = busy.memory_mib()
        clients += wait(busy, args.waiting)
        hello_per_s(busy, 0.2)  # all have been taken by then
        waited = busy.memory_mib()
        follower_kb = (followed - before) * 1024 / args.followers
        waiting_kb = (waited - followed) * 1024 / args.waiting
        print(
            f"memory  {before:.1f} MiB without clients; {follower_kb:.1f} kB for each of"
            f" {args.followers} followers, {waiting_kb:.1f} kB for each of {args.waiting} waiting"
        )
        rounds = [
            (hello_per_s(quiet, args.seconds), hello_per_s(busy, args.seconds))
            for _ in range(args.rounds)
        ]
        ratio = statistics.median(with_them / without for without, with_them in rounds)
        without, with_them = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"hello   {without:.0f}/s without them, {with_them:.0f}/s with them: {ratio:.2f} times"
        )
        for pman in (quiet, busy):
            pman.post("delete", value="sleeper")
        for client in clients:
            client.socket.close()


def written_s(pman: Daemon, jid: str) -> float:
    """Return how long a writer took, as it says itself; wait for its end."""
    client = Client(pman, "logs", jid=jid, stream="stderr", follow=True)
    client.read_head()
    lines = b"".join(client.chunks()).splitlines()
    return int(json.loads(lines[0])["text"]) / 1e9


def read_records(client: Client) -> int:
    """Return how many bytes came in records without a hole."""
    at = 0
    for chunk in client.chunks():
        for line in chunk.splitlines():
            record = decode(line)
            if "text" in record and record["offset"] == at:
                at += len(record["text"])
    return at


def read_raw(client: Client) -> int:
    """Return how many bytes came."""
    return sum(map(len, client.chunks()))


def fast_log(args: argparse.Namespace) -> None:
    """Print how fast logs are followed, and whether that holds up who writes them."""
    with daemon("--listeners", "4") as pman:
        for name, cmd in (
            ("fast", WRITER.format(args.mb * 1_000_000)),
            ("100 MB/s", PACED.format(sys.executable, args.mb)),
        ):
            follow_writer(pman, name, cmd, args.mb)


def follow_writer(pman: Daemon, name: str, cmd: str, mb: int) -> None:
    """Print how long a writer takes alone and while it is followed."""
    meta = {"cmd": cmd, "auid": "bench", "compound": False, "threaded": True}
    pman.post("run", **meta, jid=f"{name} alone")
    alone_s = written_s(pman, f"{name} alone")
    print(f"writer {name}, alone: {mb / alone_s:.0f} MB/s")
    for form, more, read in (
        ("records", {}, read_records),
        ("raw", {"raw": True, "part": 0}, read_raw),
    ):
        jid = f"{name} {form}"
        begin = time.perf_counter()
        pman.post("run", **meta, jid=jid)
        client = Client(pman, "logs", jid=jid, stream="stdout", follow=True, **more)
        client.read_head()
        got = read(client)
        took_s = time.perf_counter() - begin
        writer_s = written_s(pman, jid)
        print(
            f"  {form:7s} followed at {mb / took_s:.0f} MB/s, {mb * 1_000_000 - got} bytes lost;"
            f" writer: {mb / writer_s:.0f} MB/s, {alone_s / writer_s:.2f} times"
        )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--followers", type=int, default=200)
    parser.add_argument("--waiting", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--mb", type=int, default=500)
    args = parser.parse_args()
    waiting_clients(args)
    fast_log(args)


if __name__ == "__main__":
    main()
