"""Streams by offset: what is there, what was dropped, characters that are cut, and the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pman import logreading
from pman.errors import SnapshotError
from pman.logreading import BLOCK_BYTES, Fragment, StreamFile, numbers_in
from pman.output import punch_hole, write_gap

MOST = 1000


@pytest.fixture
def stdout(tmp_path: Path) -> StreamFile:
    return StreamFile(tmp_path, 0, "stdout")


def put(folder: Path, raw: bytes, name: str = "0.stdout") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def drop(path: Path, start: int, end: int) -> None:
    write_gap(os.fsencode(path), (start, end))
    with path.open("r+b") as file:
        punch_hole(file.fileno(), start, end - start)


def test_bytes_from_an_offset_on(tmp_path: Path, stdout: StreamFile) -> None:
    assert stdout.read(0, MOST) is None
    assert stdout.size() == 0
    put(tmp_path, b"0123456789")
    assert stdout.read(0, 4) == Fragment(0, 4, b"0123")
    assert stdout.read(4, MOST) == Fragment(4, 10, b"456789")
    assert stdout.read(10, MOST) is None
    assert stdout.read(99, MOST) is None
    assert stdout.size() == 10


def test_from_the_live_file_to_the_final_one(tmp_path: Path, stdout: StreamFile) -> None:
    live = put(tmp_path, b"abc", "0.stdout.live")
    assert stdout.read(0, MOST) == Fragment(0, 3, b"abc")
    put(tmp_path, b"ab")  # it is not whole yet, whatever wrote it
    assert stdout.read(3, MOST) is None
    put(tmp_path, b"abcdef")
    assert stdout.read(3, MOST) == Fragment(3, 6, b"def")
    live.unlink()
    assert stdout.read(3, MOST) == Fragment(3, 6, b"def")


def test_a_gap(tmp_path: Path, stdout: StreamFile) -> None:
    path = put(tmp_path, b"a" * 100 + b"b" * 100 + b"c" * 100)
    drop(path, 100, 200)
    assert stdout.read(0, MOST) == Fragment(0, 100, b"a" * 100)
    assert stdout.read(100, MOST) == Fragment(100, 200, is_dropped=True)
    assert stdout.read(150, MOST) == Fragment(150, 200, is_dropped=True)
    assert stdout.read(200, MOST) == Fragment(200, 300, b"c" * 100)
    assert [stdout.first_there(at) for at in (0, 99, 100, 199, 200)] == [0, 99, 200, 200, 200]
    assert stdout.last_bytes(10) == 290
    assert stdout.last_bytes(100) == 200
    assert stdout.last_bytes(110) == 90
    assert stdout.last_bytes(1000) == 0


def test_what_is_dropped_while_it_is_read_is_not_given(
    tmp_path: Path, stdout: StreamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, b"a" * 300)
    real = os.pread

    def pread(fd: int, most: int, offset: int) -> bytes:
        # The file has grown since its size was looked at, past the end of what goes.
        with path.open("ab") as file:
            file.write(b"a" * 300)
        drop(path, 100, 500)
        return real(fd, most, offset)

    monkeypatch.setattr(logreading.os, "pread", pread)
    assert stdout.read(0, MOST) == Fragment(0, 100, b"a" * 100)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_is_not_cut(tmp_path: Path, stdout: StreamFile, cut: int) -> None:
    raw = "ab\N{GRINNING FACE}".encode()
    put(tmp_path, raw[: 2 + cut])
    assert stdout.read_text(0, MOST, is_over=False) == Fragment(0, 2, b"ab", "ab")
    assert stdout.read_text(2, MOST, is_over=False) is None
    over = stdout.read_text(2, MOST, is_over=True)
    assert over == Fragment(2, 2 + cut, raw[2 : 2 + cut], "\ufffd")
    put(tmp_path, raw)
    whole = Fragment(2, 6, raw[2:], "\N{GRINNING FACE}")
    assert stdout.read_text(2, MOST, is_over=False) == whole
    assert stdout.read_text(2, 1, is_over=False) == whole, "a whole one, however little is wanted"
    assert stdout.read_text(0, 5, is_over=True) == Fragment(0, 2, b"ab", "ab")


def test_a_character_that_a_gap_cuts(tmp_path: Path, stdout: StreamFile) -> None:
    path = put(tmp_path, "äöü".encode())
    drop(path, 3, 4)
    assert stdout.read_text(0, MOST, is_over=False) == Fragment(0, 3, b"\xc3\xa4\xc3", "ä\ufffd")


def test_bytes_that_are_no_text(tmp_path: Path, stdout: StreamFile) -> None:
    put(tmp_path, b"\xff\xfea")
    fragment = stdout.read_text(0, MOST, is_over=False)
    assert fragment == Fragment(0, 3, b"\xff\xfea", "\ufffd\ufffda")


@pytest.mark.parametrize("size", [7, BLOCK_BYTES // 2, BLOCK_BYTES, 3 * BLOCK_BYTES])
def test_the_last_lines(tmp_path: Path, stdout: StreamFile, size: int) -> None:
    lines = [b"x" * size + b"%d" % n for n in range(5)]
    for end in (b"", b"\n"):
        raw = b"\n".join(lines) + end
        put(tmp_path, raw)
        for count in range(1, 5):
            assert raw[stdout.last_lines(count) :] == b"\n".join(lines[-count:]) + end
        assert stdout.last_lines(5) == stdout.last_lines(99) == 0
        assert stdout.last_lines(0) == len(raw)


def test_the_last_lines_of_nothing(tmp_path: Path, stdout: StreamFile) -> None:
    assert stdout.last_lines(3) == stdout.last_bytes(3) == 0
    put(tmp_path, b"\n\n\n")
    assert stdout.last_lines(2) == 1


def test_lines_before_a_gap(tmp_path: Path, stdout: StreamFile) -> None:
    path = put(tmp_path, b"one\ntwo\n" + b"\0" * 100 + b"half\nlast\n")
    drop(path, 8, 108)
    assert stdout.last_lines(1) == 113
    assert stdout.last_lines(2) == 8, "the second one began in the gap, which is told"
    assert stdout.last_lines(3) == 4
    assert stdout.last_lines(4) == 0


class Reads:
    """Counts the bytes that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = 0
        self._pread = os.pread
        monkeypatch.setattr(logreading.os, "pread", self)

    def __call__(self, fd: int, most: int, offset: int) -> bytes:
        raw = self._pread(fd, most, offset)
        self.size += len(raw)
        return raw


def test_a_tail_costs_what_the_tail_costs(
    tmp_path: Path, stdout: StreamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 10 * 1024**3
    path = put(tmp_path, b"")
    os.truncate(path, size)
    with path.open("ab") as file:
        file.write(b"\none\ntwo\nthree\n")
    reads = Reads(monkeypatch)
    assert stdout.last_lines(2) == size + 5
    assert reads.size <= BLOCK_BYTES
    assert stdout.last_bytes(6) == size + 9
    fragment = stdout.read(size + 5, MOST)
    assert fragment is not None
    assert fragment.raw == b"two\nthree\n"
    assert reads.size <= BLOCK_BYTES + len(fragment.raw)
    # Lines without end: it is given up, and begins somewhere.
    stdout.last_lines(9)
    assert reads.size <= 2 * BLOCK_BYTES + logreading.MAX_TAIL_BYTES


def test_what_is_no_file(tmp_path: Path, stdout: StreamFile) -> None:
    os.mkfifo(tmp_path / "0.stdout")
    assert stdout.read(0, MOST) is None
    assert stdout.last_lines(3) == 0
    (tmp_path / "1.stdout").symlink_to("/etc/passwd")
    assert StreamFile(tmp_path, 1, "stdout").read(0, MOST) is None


def test_a_file_that_cannot_be_read(
    tmp_path: Path, stdout: StreamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, b"abc")

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(logreading.os, "pread", broken)
    with pytest.raises(SnapshotError, match=r"^0.stdout of a job cannot be read: Input/output"):
        stdout.read(0, MOST)


def test_which_parts_have_files(tmp_path: Path) -> None:
    for name in ("0.stdout", "0.stderr", "3.stderr.live", "x.stdout", "4.stdout.gap", "5.init"):
        put(tmp_path, b"", name)
    assert numbers_in(tmp_path) == {0, 3}
    assert numbers_in(tmp_path / "nosuch") == set()


def test_short_lines_cost_no_step_each(
    tmp_path: Path, stdout: StreamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 40 * BLOCK_BYTES
    put(tmp_path, b"\n" * size)
    for count in (1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 30 * BLOCK_BYTES + 7):
        assert stdout.last_lines(count) == size - count
    steps = 0

    class Counted(bytes):
        def rfind(self, *args: Any) -> int:
            nonlocal steps
            steps += 1
            return super().rfind(*args)

    pread = os.pread
    monkeypatch.setattr(logreading.os, "pread", lambda *args: Counted(pread(*args)))
    stdout.last_lines(30 * BLOCK_BYTES + 7)
    assert 0 < steps <= BLOCK_BYTES
