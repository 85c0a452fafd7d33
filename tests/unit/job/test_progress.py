"""What a job prints to say how far it is."""

from __future__ import annotations

import pytest

from pman.job.progress import MAX_TEXT_LENGTH, Progress, last_progress


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("::progress 0.42 half way", (0.42, "half way")),
        ("::progress 0", (0.0, "")),
        ("::progress 1", (1.0, "")),
        ("::progress 1.0 done", (1.0, "done")),
        ("::progress .5", (0.5, "")),
        ("::progress 42% of 7 slices", (0.42, "of 7 slices")),
        ("::progress 100%", (1.0, "")),
        ("::progress\t0.1\ttext  ", (0.1, "text")),
        ("::progress 0.5 dos\r", (0.5, "dos")),
        ("::progress 0.5 a\x07b", (0.5, "a b")),
    ],
)
def test_a_line_of_progress(line: str, expected: tuple[float, str]) -> None:
    assert last_progress(f"before\n{line}\nafter\n", is_cut=False) == Progress(*expected)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "::progress",
        "::progress much",
        "::progress 1.5",
        "::progress 101%",
        "::progress -1",
        "::progress nan",
        "::progress 1e-3",
        "::progress0.5",
        " ::progress 0.5",
        "::PROGRESS 0.5",
        "::progress 0.5text",
    ],
)
def test_what_is_no_line_of_progress(line: str) -> None:
    assert last_progress(f"{line}\n", is_cut=False) is None


def test_the_last_whole_line_counts() -> None:
    output = "::progress 0.1 a\n::progress 0.2 b\n::progress 9 bad\n::progress 0.3 unfini"
    assert last_progress(output, is_cut=False) == (0.2, "b")


def test_a_first_line_that_may_be_cut_does_not_count() -> None:
    assert last_progress("::progress 0.1 a\n", is_cut=True) is None
    assert last_progress("x\n::progress 0.1 a\n", is_cut=True) == (0.1, "a")


def test_a_long_text_is_cut() -> None:
    said = last_progress(f"::progress 0.5 {'x' * 5000}\n", is_cut=False)
    assert said is not None
    assert MAX_TEXT_LENGTH - 20 < len(said.text) < MAX_TEXT_LENGTH + 20


@pytest.mark.parametrize(
    "hostile",
    [
        "::progress 0.5" + " " * 60_000 + "\rx",
        "::progress" + " " * 60_000 + "x",
        "::progress 0.5" + " \t" * 30_000 + "\r\r",
        "::progress " + "9" * 60_000,
        "::progress " + "0." * 30_000,
        "::progress 0.5 \r" * 4_000,
    ],
)
def test_no_line_takes_long_to_read(hostile: str) -> None:
    """A search that goes back and forth would take hours; here it must end at all."""
    said = last_progress(f"::progress 0.1 good\n{hostile}\n", is_cut=False)
    assert said is not None
    assert said.share in (0.1, 0.5)
