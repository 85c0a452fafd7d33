"""The documentation says what the code is: layers, actions."""

import re
import tomllib
from pathlib import Path

import pman.actions
from pman.actions import ACTIONS

ROOT = Path(__file__).parents[2]


def contract_layers() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contract = tomllib.load(file)["tool"]["importlinter"]["contracts"][0]
    return contract["layers"]


def documented_layers() -> list[str]:
    text = (ROOT / "docs" / "architecture.rst").read_text(encoding="utf-8")
    _, _, block = text.partition("   :name: layers\n\n")
    picture = block.split("\n\n", 1)[0]
    # The names end where two blanks or more set off their explanation.
    return [re.split(r" {2,}", line.strip())[0] for line in picture.splitlines()]


def test_picture_of_layers_is_the_one_that_is_checked() -> None:
    assert documented_layers() == contract_layers()


def test_every_action_is_documented() -> None:
    ACTIONS.load(pman.actions)
    text = (ROOT / "docs" / "http-api.rst").read_text(encoding="utf-8")
    assert [n for n in ACTIONS.names() if f"\n{n}\n{'.' * len(n)}\n" not in text] == []
