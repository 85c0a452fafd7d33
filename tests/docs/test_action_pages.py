"""Each action has a page, and what the pages show is what a daemon answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from console_pages import check_page
from daemon_factory import NewDaemon

import pman.actions
from pman.actions import ACTIONS

PAGES = Path(__file__).parents[2] / "docs" / "actions"


def pages() -> list[Path]:
    return [page for page in sorted(PAGES.glob("*.rst")) if page.stem != "index"]


def test_every_action_has_a_page_and_no_page_is_left_over() -> None:
    ACTIONS.load(pman.actions)
    assert [page.stem for page in pages()] == sorted(ACTIONS.names())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_page_shows_what_is_answered(page: Path, new_daemon: NewDaemon) -> None:
    check_page(page, new_daemon())
