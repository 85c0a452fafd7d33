"""Front and listeners against a bare ASGI function on uvicorn: same body, same work, same load.

    python benchmarks/bench_front.py [--seconds 5] [--connections 32] [--rounds 3]

Both sides parse the request's JSON and build a reply of the form of 2.2, about 900 bytes;
`--work none` leaves that out and answers a constant of that size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

#: Bytes of a constant reply.
SIZE = 900

HEADERS = [
    ("Host", "127.0.0.1"),
    ("User-Agent", "curl/7.88.1"),
    ("Accept", "*/*"),
    ("Content-Type", "application/json"),
]


def envelope(body: bytes) -> bytes:
    """Return what 2.2 answers to `hello`, more or less."""
    document = json.loads(body)
    text = body.decode()
    lines = ["POST /api/v1/cmd HTTP/1.1\r", *(f"{name}: {value}\r" for name, value in HEADERS)]
    payload = document["payload"]
    reply = {
        "status": True,
        "RESTheader": lines[0],
        "RESTverb": "POST",
        "action": payload["action"],
        "path": "/api/v1/cmd",
        "receivedByServer": [*lines, "\r", text],
        "client_json_payload": text,
        "client_json_len": len(text),
        "payloadsize": len(text),
        "meta": payload["meta"],
        "d_ret": {"name": "pman", "version": "3.0.0", "timestamp": {"now": str(time.time())}},
    }
    return json.dumps(reply, indent=4).encode()


def constant(size: int) -> Callable[[bytes], bytes]:
    """Return a function that answers anything with the same `size` bytes."""
    reply = b"{" + b" " * (size - 2) + b"}"
    return lambda body: reply


def work_of(args: argparse.Namespace) -> Callable[[bytes], bytes]:
    """Return what makes the replies."""
    return envelope if args.work == "envelope" else constant(args.size)


def serve_pman(work: Callable[[bytes], bytes], listeners: int, *, by_front: bool) -> None:
    """Serve with front and listeners; print the port; end with standard input."""
    import zmq

    from pman.config import Settings
    from pman.errors import PmanError
    from pman.http.message import Request, Response
    from pman.services.front import Front
    from pman.services.listener import Listener
    from pman.services.pump import Pump

    class Handler:
        def handle(self, request: Request) -> Response:
            return Response(status=200, body=work(request.body))

        def handle_quick(self, request: Request) -> Response | None:
            return self.handle(request) if by_front else None

        def reject(self, error: PmanError, raw: bytes) -> Response:
            return Response(status=error.hint, body=b"{}")

    sys.setswitchinterval(0.0005)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    settings = Settings(port=0, db_path=Path("/nonexistent"), listeners=listeners)
    pump = Pump()
    pump.start()
    front = Front(context, settings, Handler(), pump)
    front.start()
    front.wait_ready()
    services = [
        Listener(context, index, Handler(), front.exchange, front.listener_endpoint)
        for index in range(listeners)
    ]
    for listener in services:
        listener.start()
    print(front.port, flush=True)
    sys.stdin.read()
    for service in (front, *services, pump):
        service.request_stop()
        service.join(time.monotonic() + 10)


def serve_asgi(work: Callable[[bytes], bytes]) -> None:
    """Serve with uvicorn (uvloop, httptools); print the port; end with standard input."""
    import socket

    import uvicorn

    async def app(
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        message = await receive()
        body = work(message["body"])
        headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", log_level="error", access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)

    def stop() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=stop, daemon=True).start()
    server.run(sockets=[sock])


def measure(side: str, args: argparse.Namespace) -> dict[str, float]:
    """Start one side, load it, stop it."""
    command = [sys.executable, __file__, "--serve", side, "--work", args.work]
    command += ["--listeners", str(args.listeners), "--by", args.by, "--size", str(args.size)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        load = [sys.executable, str(Path(__file__).with_name("_load.py")), "--port", port]
        load += ["--connections", str(args.connections), "--seconds", str(args.seconds)]
        time.sleep(0.3)  # uvicorn prints nothing when it listens
        result = subprocess.run(load, check=True, capture_output=True, text=True)
        server.communicate("")
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", choices=["pman", "asgi"], help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=["envelope", "none"], default="envelope")
    parser.add_argument("--size", type=int, default=SIZE, help="bytes of a constant reply")
    parser.add_argument("--by", choices=["front", "listeners"], default="front")
    parser.add_argument("--listeners", type=int, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.serve == "pman":
        serve_pman(work_of(args), args.listeners, by_front=args.by == "front")
    elif args.serve == "asgi":
        serve_asgi(work_of(args))
    else:
        for _ in range(args.rounds):
            for side in ("pman", "asgi"):
                print(side, json.dumps(measure(side, args)), flush=True)


if __name__ == "__main__":
    main()
