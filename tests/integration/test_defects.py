"""Looks that every defect of pman 2.2 that concerns the host has its test."""

from __future__ import annotations

import re
from pathlib import Path

#: Numbers of the list of defects; those left out concern containers only.
CONTAINERS_ONLY = {11, 12, 13, 14, 25, 26, 32, *range(37, 45)}
NUMBERS = set(range(1, 68)) - CONTAINERS_ONLY


def test_every_defect_has_a_test() -> None:
    tested: set[int] = set()
    for path in Path(__file__).parent.glob("test_defects_*.py"):
        found = re.findall(r"^def test_defect_(\d\d)_\w+\(", path.read_text(), re.MULTILINE)
        tested |= {int(number) for number in found}
    assert tested >= NUMBERS, f"no test for {sorted(NUMBERS - tested)}"
