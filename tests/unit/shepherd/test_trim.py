"""Output past the cap: the middle becomes a hole, and a note says which."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pman.output import read_gap
from pman.shepherd import trim
from pman.shepherd.trim import MAX_PERIOD_S, PERIOD_S, Trimmer

CAP = 1 << 20


@pytest.fixture
def trimmer() -> Trimmer:
    made = Trimmer()
    made.max_bytes = CAP
    return made


def grown(tmp_path: Path, size: int, byte: bytes = b"x") -> Path:
    path = tmp_path / "0.stdout"
    with path.open("ab") as file:
        file.write(byte * (size - (path.stat().st_size if path.exists() else 0)))
    return path


def used_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


def gap(path: Path) -> tuple[int, int] | None:
    return read_gap(os.fsencode(path))


def test_the_middle_is_dropped(trimmer: Trimmer, tmp_path: Path) -> None:
    path = grown(tmp_path, 5 * CAP)
    assert trimmer.trim(os.fsencode(tmp_path), 0) == 5 * CAP
    assert path.stat().st_size == 5 * CAP
    assert used_bytes(path) <= CAP + 16384
    assert gap(path) == (CAP // 2, 5 * CAP - CAP // 2)
    raw = path.read_bytes()
    assert raw[: CAP // 2] == raw[-CAP // 2 :] == b"x" * (CAP // 2)
    assert set(raw[CAP // 2 : -CAP // 2]) == {0}

    grown(tmp_path, 7 * CAP, b"y")
    trimmer.trim(os.fsencode(tmp_path), 0)
    assert gap(path) == (CAP // 2, 7 * CAP - CAP // 2)
    assert used_bytes(path) <= CAP + 16384
    assert path.read_bytes()[-CAP // 2 :] == b"y" * (CAP // 2)


def test_what_is_below_the_cap_is_left_alone(trimmer: Trimmer, tmp_path: Path) -> None:
    path = grown(tmp_path, CAP)
    trimmer.trim(os.fsencode(tmp_path), 0)
    assert gap(path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["0.stdout"]


def test_no_holes_here(
    trimmer: Trimmer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Said once; the output stays whole, and so does what readers see."""

    def refuse(fd: int, start: int, length: int) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(trim, "punch_hole", refuse)
    path = grown(tmp_path, 5 * CAP)
    for _ in range(3):
        trimmer.trim(os.fsencode(tmp_path), 0)
    assert gap(path) is None
    assert path.read_bytes() == b"x" * 5 * CAP
    assert capsys.readouterr().err.count("this file system can't") == 1


def test_looks_are_rarer_while_nothing_grows(trimmer: Trimmer, tmp_path: Path) -> None:
    parts = [(os.fsencode(tmp_path), 0)]
    grown(tmp_path, 10)
    assert trimmer.look(parts) == PERIOD_S
    waits = [trimmer.look(parts) for _ in range(5)]
    assert waits == sorted(waits)
    assert waits[-1] == MAX_PERIOD_S
    grown(tmp_path, 20)
    assert trimmer.look(parts) == PERIOD_S
    assert Trimmer().look([]) > 0
