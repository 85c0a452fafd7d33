"""Pages of the documentation that show commands and what these print."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import textwrap
from pathlib import Path

from daemon_process import DaemonProcess

#: `...` stands for anything, and line ends and blanks for each other.
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

#: How long one command may take, seconds.
TIMEOUT_S = 60.0

_BLOCK = re.compile(r"^\.\. code-block:: console\n\n((?:(?:   .*)?\n)+)", re.MULTILINE)


def examples(page: Path) -> list[tuple[str, str]]:
    """Return the commands of a page, and what each is said to print."""
    found: list[tuple[str, str]] = []
    for block in _BLOCK.findall(page.read_text(encoding="utf-8") + "\n"):
        command, printed = "", ""
        for line in textwrap.dedent(block).splitlines():
            if line.startswith("$ "):
                if command:
                    found.append((command, printed))
                command, printed = line[2:], ""
            elif line.startswith("> "):
                command += "\n" + line[2:]
            else:
                printed += line + "\n"
        found.append((command, printed))
    return found


def check_page(page: Path, daemon: DaemonProcess) -> None:
    """Carry out the commands of a page, in order, and compare what they print."""
    shown = examples(page)
    assert shown, f"{page} has no example"
    checker = doctest.OutputChecker()
    for command, expected in shown:
        done = subprocess.run(
            ["bash", "-c", command.replace("127.0.0.1:5010", f"127.0.0.1:{daemon.port}")],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd=daemon.folder,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        printed = done.stdout.replace(f"127.0.0.1:{daemon.port}", "127.0.0.1:5010") + done.stderr
        assert checker.check_output(expected.strip() + "\n", printed.strip() + "\n", OPTIONS), (
            f"{command}\n--- expected\n{expected}\n--- printed\n{printed}"
        )
