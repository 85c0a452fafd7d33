"""Chapters of the documentation, and a shell that carries their commands out as printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from daemon_process import wait_until

#: How long a command may take, and what goes on may take to get ready, seconds.
COMMAND_TIMEOUT_S = 900.0
READY_TIMEOUT_S = 90.0


def chapter(text: str, title: str) -> str:
    """Return what is below a heading, up to the next one of the same kind."""
    found = re.search(rf"^{title}\n(([^\w\s])\2+)\n", text, re.MULTILINE)
    assert found, f"no chapter {title!r}"
    rest = text[found.end() :]
    following = re.search(rf"^\S.*\n{re.escape(found[2])}{{4,}}$", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def commands(text: str) -> list[str]:
    """Return the blocks of shell commands."""
    blocks = re.findall(r"^\.\. code-block:: bash\n\n((?: .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in blocks]


def reply_of(printed: str) -> dict[str, Any]:
    """Return the reply of pman that a command has printed, which has to be a good one."""
    document, _ = json.JSONDecoder().raw_decode(printed, printed.index("{"))
    assert document["status"] is True, printed
    return dict(document)


class Shell:
    """Carries out printed commands in a folder, with the names of this machine put in.

    Attributes:
        names: {what is printed: what stands for it here}, put in one after the other.
        environment: Of the commands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, str] = {}
        programs = Path(sys.prefix) / "bin"  # http, pman
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> tuple[int, str]:
        """Return the exit status of a command and what it printed."""
        done = subprocess.run(
            self._words(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def done(self, command: str) -> str:
        """Run a command that has to succeed; return what it printed."""
        code, said = self.run(command)
        assert code == 0, said
        return said

    def start(self, command: str, ready: str) -> None:
        """Begin a command that goes on, as one does in a terminal.

        Args:
            ready: What it prints once it is of use, which is when this returns.
        """
        log_path = self.folder / f"terminal-{len(self._started)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                self._words(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment,
            )
        self._started.append(process)

        def look() -> bool:
            text = log_path.read_text()
            assert process.poll() is None, text
            return ready in text

        wait_until(look, f"{ready!r} from {command!r}", READY_TIMEOUT_S)

    def close(self) -> None:
        """End what was started."""
        for process in self._started:
            process.terminate()
            process.wait(READY_TIMEOUT_S)

    def _words(self, command: str) -> list[str]:
        for printed, ours in self.names.items():
            command = command.replace(printed, ours)
        return ["bash", "-euo", "pipefail", "-c", command]
