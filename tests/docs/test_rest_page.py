"""What the page about REST shows is what a daemon answers, and it shows every operation."""

from __future__ import annotations

from pathlib import Path

import pytest
from console_pages import check_page, examples
from daemon_factory import NewDaemon

from pman.rest import links
from pman.rest.routes import ROUTES

PAGE = Path(__file__).parents[2] / "docs" / "rest.rst"


@pytest.mark.slow
def test_the_page_shows_what_is_answered(new_daemon: NewDaemon) -> None:
    check_page(PAGE, new_daemon())


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_every_path_has_an_example(path: str) -> None:
    if path in ("/openapi.json", "/events"):  # named there, and too long to be shown
        assert path in PAGE.read_text(encoding="utf-8")
        return
    before, _, after = f"{links.ROOT}{path}".partition("{id}")
    commands = [command for command, _ in examples(PAGE)]
    assert any(before in command and after in command for command in commands)
