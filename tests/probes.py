"""Looks at a daemon from outside: its replies, its process, its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from daemon_process import DEADLINE_S, DaemonProcess, Reply


def assert_refused(
    reply: Reply, code: int = 400, kind: str | None = None, field: str | None = None
) -> None:
    """Look for the code, and for an envelope that says what is wrong and where."""
    assert reply.status == code, reply.body[-1000:]
    envelope = reply.json()
    assert envelope["status"] is False
    error = envelope["error"]
    assert error["message"]
    assert kind is None or error["type"] == kind, error
    assert field is None or error["field"] == field, error


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_ticks(pid: int) -> int:
    """Return user plus system time of a process, clock ticks. Source: proc(5), stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def memory_bytes(pid: int) -> int:
    """Return the resident size of a process. Source: proc(5), status."""
    line = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert line is not None
    return int(line[1]) * 1024


def run_pman(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pman", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        stdin=subprocess.DEVNULL,
        **keywords,
    )


def drop_directive(daemon: DaemonProcess, text: str, name: str = "d_msg.json") -> Path:
    """Put a directive in place in one step, as its owner."""
    path = daemon.db_path / name
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.chmod(0o600)
    return fresh.rename(path)


def job_names(daemon: DaemonProcess) -> list[str]:
    """Return the names of all jobs, in the daemon's order."""
    return list(daemon.request("GET", "/api/v1/").json()["GET"])


def output_of(daemon: DaemonProcess, jid: str, part: int = 0, field: str = "stdout") -> str:
    """Return one field of the end of one part of the only job with that jid."""
    look_up = {"job": str(part), "field": field}
    shown = daemon.post("search", key="jid", value=jid, **look_up).json()["d_ret"]
    assert list(shown) == ["0"], shown
    value = shown["0"]
    while isinstance(value, dict):
        (value,) = value.values()
    return value  # type: ignore[no-any-return]
