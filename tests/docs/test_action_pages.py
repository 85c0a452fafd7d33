"""Each action has a page, and what the pages show is what a daemon answers."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from daemon_factory import NewDaemon

import pman.actions
from pman.actions import ACTIONS

PAGES = Path(__file__).parents[2] / "docs" / "actions"

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


def pages() -> list[Path]:
    return [page for page in sorted(PAGES.glob("*.rst")) if page.stem != "index"]


def test_every_action_has_a_page_and_no_page_is_left_over() -> None:
    ACTIONS.load(pman.actions)
    assert [page.stem for page in pages()] == sorted(ACTIONS.names())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_page_shows_what_is_answered(page: Path, new_daemon: NewDaemon) -> None:
    shown = examples(page)
    assert shown, f"{page} has no example"
    daemon = new_daemon()
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
