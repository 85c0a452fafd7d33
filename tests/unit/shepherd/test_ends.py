"""Ends of processes, as files whose name says it all."""

from __future__ import annotations

import time
from pathlib import Path

from pman.shepherd.ends import Ends


def test_what_is_added_is_read_until_it_is_removed(tmp_path: Path) -> None:
    ends = Ends(tmp_path, "boot")
    ends.add(7, 70, -9)
    ends.add(8, 80, 3)
    ends.add(8, 80, 3)
    found = sorted(Ends(tmp_path, "boot").read())
    assert [(end.pid, end.ticks, end.code) for end in found] == [(7, 70, -9), (8, 80, 3)]
    assert all(abs(end.at - time.time()) < 60 for end in found)
    ends.remove(found[0])
    ends.remove(found[0])
    assert ends.read() == found[1:]


def test_ends_of_another_boot_are_removed(tmp_path: Path) -> None:
    Ends(tmp_path, "before").add(7, 70, 0)
    assert Ends(tmp_path, "now").read() == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_end_is_left_alone(tmp_path: Path) -> None:
    for name in ("note", "boot.1.2", "boot.a.b.c"):
        (tmp_path / name).touch()
    assert Ends(tmp_path, "boot").read() == []
    assert len(list(tmp_path.iterdir())) == 3
