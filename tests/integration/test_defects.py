"""Looks that every defect of pman 2.2 has its test."""

from __future__ import annotations

import re
from pathlib import Path

#: Numbers of the list of defects; those left out concern OpenShift only.
OPENSHIFT_ONLY = {14, 42, 43, 44}
NUMBERS = set(range(1, 68)) - OPENSHIFT_ONLY


def test_every_defect_has_a_test() -> None:
    tested: set[int] = set()
    for path in Path(__file__).parent.glob("test_defects_*.py"):
        found = re.findall(r"^def test_defect_(\d\d)_\w+\(", path.read_text(), re.MULTILINE)
        tested |= {int(number) for number in found}
    assert tested >= NUMBERS, f"no test for {sorted(NUMBERS - tested)}"
