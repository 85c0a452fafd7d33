"""`Ledger`: who goes, in which order, at each limit."""

from __future__ import annotations

import pytest

from pman.jobdb.retention import Ledger, Limits

#: When the n-th job of `ledger` ended.
ENDS = {name: float(n) for n, name in enumerate("abcdefgh")}


def ledger(limits: Limits, **sizes: int) -> Ledger:
    made = Ledger(limits)
    for name, size_bytes in sizes.items():
        made.add(name, size_bytes)
    return made


def surplus(made: Ledger, now_s: float = 10.0, most: int = 50) -> list[str]:
    return made.surplus(now_s, ENDS.__getitem__, most)


@pytest.mark.parametrize(
    ("limits", "gone"),
    [
        (Limits(), ""),
        (Limits(jobs=4), ""),
        (Limits(jobs=3), "a"),
        (Limits(jobs=1), "abc"),
        (Limits(output_bytes=10), ""),
        (Limits(output_bytes=9), "a"),
        (Limits(output_bytes=7), "ab"),
        (Limits(output_bytes=1), "abcd"),
        (Limits(age_s=10.0), ""),
        (Limits(age_s=9.5), "a"),
        (Limits(age_s=8.0), "ab"),
        (Limits(jobs=3, age_s=8.5), "ab"),
        (Limits(jobs=2, output_bytes=9, age_s=100.0), "ab"),
    ],
    ids=str,
)
def test_what_is_beyond_a_limit_goes_oldest_first(limits: Limits, gone: str) -> None:
    assert surplus(ledger(limits, a=1, b=2, c=3, d=4)) == list(gone)


def test_no_more_are_named_than_asked_for() -> None:
    made = ledger(Limits(jobs=1), a=0, b=0, c=0, d=0)
    assert surplus(made, most=2) == ["a", "b"]


def test_the_size_of_a_job_can_be_learned_later() -> None:
    made = ledger(Limits(output_bytes=5), a=0, b=2)
    made.add("a", 4)
    assert (surplus(made), len(made)) == (["a"], 2)


def test_a_job_that_has_gone_counts_no_more() -> None:
    made = ledger(Limits(jobs=1, output_bytes=3), a=3, b=3)
    made.discard("a")
    made.discard("never seen")
    assert (surplus(made), "a" in made) == ([], False)


def test_a_job_that_is_held_costs_no_other_its_place() -> None:
    made = ledger(Limits(jobs=2, output_bytes=2), a=5, b=1, c=1)
    made.hold("a")
    made.hold("never seen")
    assert (surplus(made), "a" in made) == ([], True)


def test_a_job_that_was_held_goes_first() -> None:
    made = ledger(Limits(output_bytes=2), a=5, b=1, c=1)
    made.hold("a")
    made.add("d", 1)
    made.add("a", 7)
    made.release()
    assert surplus(made) == ["a", "b"]


def test_a_job_that_goes_while_it_is_held_is_forgotten() -> None:
    made = ledger(Limits(output_bytes=1), a=5, b=1)
    made.hold("a")
    made.discard("a")
    made.release()
    assert (len(made), surplus(made)) == (1, [])
