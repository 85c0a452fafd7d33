"""A real daemon in a process of its own, and a small client that sees raw replies."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

#: How long anything in a test may take before it counts as failed, seconds.
DEADLINE_S = 30.0


class Reply(msgspec.Struct):
    """One HTTP reply, taken apart."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One TCP connection; reads replies by their framing, whatever was sent."""

    def __init__(self, address: tuple[str, int] | str, timeout_s: float = DEADLINE_S) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout_s)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout_s)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def read_reply(self, *, is_head: bool = False) -> Reply:
        """Return the next reply that is not `100 Continue`."""
        head = self._until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = [tuple(line.split(": ", 1)) for line in lines[1:] if line]
        reply = Reply(status, headers, b"", head)  # type: ignore[arg-type]
        if status == 100:
            return self.read_reply(is_head=is_head)
        if not is_head:
            reply.body = self._exactly(int(reply.header("content-length") or 0))
            reply.raw += reply.body
        return reply

    def is_closed_by_peer(self) -> bool:
        """Wait for the end of the stream; anything else that comes is an error."""
        rest = self._buffer + self.socket.recv(1)
        assert rest == b"", rest
        return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(mark)
        return head + mark

    def _exactly(self, size: int) -> bytes:
        chunks = [self._buffer]
        missing = size - len(self._buffer)
        while missing > 0:
            chunk = self.socket.recv(min(missing, 1 << 20))
            if not chunk:
                raise ConnectionError("closed within a body")
            chunks.append(chunk)
            missing -= len(chunk)
        whole = b"".join(chunks)
        self._buffer = whole[size:]
        return whole[:size]

    def _fill(self) -> None:
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionError(f"closed, after {self._buffer[:200]!r}")
        self._buffer += chunk

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


class DaemonProcess:
    """`python -m pman` on a free port of 127.0.0.1, with a job DB of its own."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        environment: dict[str, str] | None = None,
        container_env: str = "local",
        http: bool = True,
    ) -> None:
        self.folder = folder
        self.db_path = folder / "db"
        self.log_path = folder / "pman.log"
        command = [sys.executable, "-m", "pman", "--ip", "127.0.0.1", "--port", "0"]
        command += ["--DBpath", str(self.db_path), "--container-env", container_env]
        self.command = [*command, *(["--http"] if http else []), *flags]
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> DaemonProcess:
        """Start; return when it listens on its port."""
        at = self.launch()
        self.port = int(self.wait_for_log(r"listening on \S+?:(\d+)", at)[1])
        return self

    def launch(self) -> int:
        """Start, and return at once: where its log begins."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            at = log.tell()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=self.environment,
            )
        return at

    def wait_for_log(self, pattern: str, offset: int = 0) -> re.Match[str]:
        """Return the first match in the log; fail when the process ends before it comes."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.log_text()[offset:])
            if found is None and self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"pman ended: {self.log_text()[-3000:]}")
            return found

        return wait_until(look, f"{pattern!r} in the log")

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def connect(self, timeout_s: float = DEADLINE_S) -> Connection:
        return Connection(("127.0.0.1", self.port), timeout_s)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        raw = body.encode() if isinstance(body, str) else body
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if raw is not None and not any(n.lower() == "content-length" for n in headers or {}):
            lines.append(f"Content-Length: {len(raw)}")
        with self.connect() as connection:
            connection.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (raw or b""))
            return connection.read_reply(is_head=method == "HEAD")

    def post(self, action: str, headers: dict[str, str] | None = None, **meta: Any) -> Reply:
        document = {"payload": {"action": action, "meta": meta}}
        return self.request("POST", "/api/v1/cmd", json.dumps(document), headers)

    def run(self, cmd: str, jid: Any, **meta: Any) -> Reply:
        meta = {"auid": "tester", "threaded": True, **meta}
        return self.post("run", cmd=cmd, jid=jid, **meta)

    def status(self, jid: Any) -> dict[str, Any]:
        result: dict[str, Any] = self.post("status", key="jid", value=jid).json()["d_ret"]
        return result

    def words(self, jid: Any) -> list[str]:
        words: list[str] = self.status(jid)["l_status"]
        return words

    def wait_finished(self, jid: Any) -> list[str]:
        """Return the words of `l_status` once each holds `finished`, as pfcon looks for it."""

        def look() -> list[str] | None:
            words = self.words(jid)
            return words if words and all("finished" in word for word in words) else None

        return wait_until(look, f"the end of job {jid!r}")

    def is_alive(self) -> bool:
        """Ask `hello` and look whether it is answered."""
        return bool(self.post("hello", askAbout="timestamp").json()["status"])

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(DEADLINE_S)


def wait_until(look: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Return what `look` returns as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)
    return found
