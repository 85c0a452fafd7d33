"""`LogSink`: output on its way into files."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from pman.backends._engine import sink as module
from pman.backends._engine.sink import LogSink
from pman.output import OutputFiles, read_gap

NAME = "20261123085225.330570_00000000-0000-0000-0000-000000000001"


@pytest.fixture
def output(tmp_path: Path) -> OutputFiles:
    return OutputFiles(tmp_path / "output", 1 << 24)


def write(output: OutputFiles, *pieces: tuple[int, str, bytes], max_bytes: int = 0) -> None:
    with LogSink(output, NAME, max_bytes) as sink:
        for piece in pieces:
            sink.write(*piece)
        sink.close()


def names(output: OutputFiles) -> list[str]:
    return sorted(path.name for path in output.folder(NAME).iterdir())


def test_streams_and_workers_are_kept_apart(output: OutputFiles) -> None:
    write(output, (0, "stdout", b"a"), (1, "stderr", b"b"), (0, "stdout", b"c"))
    assert output.read_text(NAME, 0, "stdout") == "ac"
    assert output.read_text(NAME, 1, "stderr") == "b"
    assert names(output) == ["0.stdout", "1.stderr"]


def test_only_we_may_read_it(output: OutputFiles) -> None:
    write(output, (0, "stdout", b"a"))
    folder = output.folder(NAME)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "0.stdout").stat().st_mode) == 0o600


def test_an_attempt_that_breaks_off_leaves_what_there_was(output: OutputFiles) -> None:
    write(output, (0, "stdout", b"whole"))
    with LogSink(output, NAME, 0) as sink:
        sink.write(0, "stdout", b"hal")
    assert output.read_text(NAME, 0, "stdout") == "whole"
    assert names(output) == ["0.stdout"]


def test_what_a_crash_left_is_removed(output: OutputFiles) -> None:
    left = LogSink(output, NAME, 0)
    left.write(3, "stdout", b"hal")
    write(output, (0, "stdout", b"whole"))
    left._close_files()
    assert names(output) == ["0.stdout"]


def test_a_second_attempt_begins_anew(output: OutputFiles) -> None:
    write(output, (0, "stdout", b"one"))
    write(output, (0, "stdout", b"two"))
    assert output.read_text(NAME, 0, "stdout") == "two"


def test_many_workers_need_few_open_files(output: OutputFiles) -> None:
    with LogSink(output, NAME, 0) as sink:
        for piece in (b"x", b"y"):
            for worker in range(3 * module.MAX_OPEN):
                sink.write(worker, "stdout", piece)
                assert len(sink._open) <= module.MAX_OPEN
        sink.close()
    assert {output.read_text(NAME, n, "stdout") for n in range(3 * module.MAX_OPEN)} == {"xy"}


def test_of_too_much_beginning_and_end_are_kept(
    output: OutputFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLACK_BYTES", 8192)
    lines = [b"%06d\n" % n for n in range(20_000)]
    write(output, *((0, "stdout", line) for line in lines), max_bytes=16384)
    path = output.path(NAME, 0, "stdout")
    size = 7 * 20_000
    assert path.stat().st_size == size
    assert read_gap(bytes(path)) == (8192, size - 8192)
    assert path.stat().st_blocks * 512 <= 16384 + 8192
    text = output.read_text(NAME, 0, "stdout")
    assert text.startswith("000000\n000001\n")
    assert f"[pman: {size - 16384} bytes dropped here]" in text
    assert text.endswith("019999\n")


def test_what_fits_has_no_gap(output: OutputFiles) -> None:
    write(output, (0, "stdout", b"x" * 100), max_bytes=50)
    write(output, (0, "stdout", b"x" * 50), max_bytes=50)
    assert names(output) == ["0.stdout"]


def test_a_file_system_without_holes_keeps_all(
    output: OutputFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(module, "punch_hole", refuse)
    write(output, (0, "stdout", b"x" * 100), (1, "stdout", b"x" * 100), max_bytes=10)
    assert output.read_text(NAME, 0, "stdout") == "x" * 100
    assert caplog.text.count("--maxOutput") == 1
