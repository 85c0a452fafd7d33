"""A pman of its own for a benchmark: free port, job DB in a temporary folder, quiet."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: How long a daemon may take to start, seconds.
START_TIMEOUT_S = 30.0


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


class Daemon:
    """A running pman.

    Attributes:
        port: Where it listens.
        pid: Its process.
        start_s: Seconds from the start of the process to the first answer.
        db_path: Its job DB.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, db_path: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port
        self.db_path = db_path
        self.start_s = 0.0
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def post(self, action: str, **meta: Any) -> dict[str, Any]:
        """Send one request on a connection that is kept; return the reply."""
        raw = self.raw_reply(json.dumps({"payload": {"action": action, "meta": meta}}))
        reply: dict[str, Any] = json.loads(raw)
        return reply

    def raw_reply(self, body: str) -> bytes:
        """Send a body; return that of the reply."""
        self._connection.request("POST", "/api/v1/cmd", body)
        return self._connection.getresponse().read()

    def memory_mib(self) -> float:
        """Return its resident memory."""
        return memory_mib(self.pid)

    def shepherds(self) -> list[int]:
        """Return the processes that start its host jobs: the shepherd and its guard."""
        state_path = os.fsencode(self.db_path / "backends" / "host")
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().rstrip(b"\0").split(b"\0")
            except OSError:
                continue  # it has ended meanwhile
            if b"pman.shepherd" in words and words[-1] == state_path:
                found.append(int(path.parent.name))
        return found

    def shepherd_mib(self) -> float:
        """Return the resident memory of shepherd and guard; what they share counts twice."""
        return sum(map(memory_mib, self.shepherds()))

    def cpu_s(self) -> float:
        """Return the processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def daemon(*flags: str, folder: Path | None = None) -> Iterator[Daemon]:
    """Run a pman until the block ends.

    Args:
        flags: Further arguments.
        folder: For job DB and log; a temporary one when None.
    """
    with tempfile.TemporaryDirectory(prefix="pman-bench-") as temporary:
        home = folder or Path(temporary)
        command = [sys.executable, "-m", "pman", "--ip", "127.0.0.1", "--port", "0", "--http"]
        command += ["--DBpath", str(home / "db"), "--container-env", "host", *flags]
        with (home / "log").open("w+b") as log:
            begin = time.perf_counter()
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            try:
                running = Daemon(process, _port(home / "log", process), home / "db")
                running.post("hello", askAbout="timestamp")
                running.start_s = time.perf_counter() - begin
                yield running
            finally:
                process.terminate()
                process.wait(START_TIMEOUT_S)


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"listening on \S+?:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.005)
    raise SystemExit(f"pman did not start: {log.read_text()}")
