"""What other pages show as a console is what a daemon answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from console_pages import check_page
from daemon_factory import NewDaemon

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("usage", "queue", "progress")


def flags(page: Path) -> list[str]:
    """Return the flags that the first `make run` of a page gives to the daemon."""
    found = re.search(r'RUNFLAGS="([^"]*)"', page.read_text(encoding="utf-8"))
    return found[1].split() if found else []


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_what_is_answered(name: str, new_daemon: NewDaemon) -> None:
    page = DOCS / f"{name}.rst"
    check_page(page, new_daemon(*flags(page)))


def test_no_page_shows_a_console_that_nobody_runs() -> None:
    """Those of REST and of the actions have tests of their own."""
    shown = {p.stem for p in DOCS.rglob("*.rst") if "code-block:: console" in p.read_text("utf-8")}
    run = {*PAGES, "rest", *(p.stem for p in (DOCS / "actions").glob("*.rst"))}
    assert shown - run == set()
