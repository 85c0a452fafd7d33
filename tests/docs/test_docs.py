"""The documentation says what the code is: layers, token files."""

import re
import textwrap
import tomllib
from pathlib import Path

from pman.auth import Caller, Role, TokenAuth

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


def test_the_token_file_of_the_example_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "security.rst").read_text(encoding="utf-8")
    _, _, rest = text.partition("   :name: token-file\n\n")
    block = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    path = tmp_path / "tokens.ini"
    path.write_text(textwrap.dedent(block))
    path.chmod(0o600)
    assert TokenAuth(path).callers == [
        Caller("dashboard", Role.READ),
        Caller("portal", Role.RUN),
        Caller("alice", Role.RUN, "alice"),
        Caller("operator"),
    ]
