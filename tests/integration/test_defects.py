"""Looks that every defect of pman 2.2 has its test."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

#: Numbers of the list of defects -> how many kinds of engine have them, where there are several.
ENGINES = {26: 2}
NUMBERS = {number: ENGINES.get(number, 1) for number in range(1, 68)}


def test_every_defect_has_a_test() -> None:
    tested: Counter[int] = Counter()
    for path in Path(__file__).parent.glob("test_defects_*.py"):
        found = re.findall(r"^def test_defect_(\d\d)_\w+\(", path.read_text(), re.MULTILINE)
        tested.update({int(number) for number in found})
    missing = [number for number, count in NUMBERS.items() if tested[number] < count]
    assert not missing, f"no test for {missing}"
