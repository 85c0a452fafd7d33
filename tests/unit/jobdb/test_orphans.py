"""Output without a record: set aside at once, removed some at a time, whatever fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pman.jobdb.orphans import ASIDE_NAME, OrphanRemoval, set_aside

NAMES = [f"20261123085225.33057{n}_00000000-0000-0000-0000-000000000000" for n in range(5)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        folder = tmp_path / name[:8] / name
        folder.mkdir(parents=True)
        (folder / "0.stdout").write_text("text")
    return tmp_path


def test_removal_in_steps(root: Path) -> None:
    assert set_aside(root, NAMES[:2]) == 3
    removal = OrphanRemoval(root)
    assert removal.step(2)
    assert len(list((root / ASIDE_NAME).iterdir())) == 1
    assert not removal.step(2)
    assert not (root / ASIDE_NAME).exists()
    assert not removal.step(2)
    assert sorted(path.name for path in root.glob("*/*")) == NAMES[:2]


def test_tries_belong_to_their_job(root: Path) -> None:
    for name in (NAMES[0], NAMES[4]):
        (root / name[:8] / f"{name}_r2").mkdir()
    assert set_aside(root, NAMES[:4]) == 2
    found = sorted(path.name for path in root.glob("2*/*"))
    assert found == sorted([*NAMES[:4], f"{NAMES[0]}_r2"])


def test_nothing_to_do(tmp_path: Path) -> None:
    assert set_aside(tmp_path / "nosuch", ()) == 0
    assert not OrphanRemoval(tmp_path / "nosuch").step(9)


def test_what_cannot_be_removed_waits_for_the_next_start(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_aside(root, ())
    real = shutil.rmtree

    def refuse(path: Path) -> None:
        if path.name == NAMES[1]:
            raise OSError(30, "Read-only file system")
        real(path)

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", refuse)
        assert not OrphanRemoval(root).step(99)
    assert [path.name for path in (root / ASIDE_NAME).iterdir()] == [NAMES[1]]
    assert NAMES[1] in caplog.text
    assert set_aside(root, ()) == 0
    assert not OrphanRemoval(root).step(99)
    assert list(root.iterdir()) == []


def test_what_cannot_be_moved_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    assert set_aside(root, ()) == 0
    assert "Read-only" in caplog.text
    assert len(list(root.glob("2*/*"))) == len(NAMES)
