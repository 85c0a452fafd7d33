"""Each action has a page, and what the pages show is what a daemon answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from console_pages import check_page
from daemon_factory import NewDaemon

import pman.actions
from pman.actions import ACTIONS

PAGES = Path(__file__).parents[2] / "docs" / "actions"
INDEX = (PAGES / "index.rst").read_text(encoding="utf-8")


def pages() -> list[Path]:
    return [page for page in sorted(PAGES.glob("*.rst")) if page.stem != "index"]


def roles() -> dict[str, str]:
    ACTIONS.load(pman.actions)
    return {name: ACTIONS.get(name).role.name.lower() for name in ACTIONS.names()}


def test_every_action_has_a_page_and_no_page_is_left_over() -> None:
    assert [page.stem for page in pages()] == sorted(roles())


def test_the_table_of_actions_says_what_each_needs() -> None:
    assert dict(re.findall(r"^:doc:`(\w+)` +(\w+)  ", INDEX, re.MULTILINE)) == roles()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_page_is_called_like_its_action(page: Path) -> None:
    title, line, *_ = page.read_text(encoding="utf-8").splitlines()
    assert (title, line) == (page.stem, "=" * len(page.stem))


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_page_shows_what_is_answered(page: Path, new_daemon: NewDaemon) -> None:
    check_page(page, new_daemon())
