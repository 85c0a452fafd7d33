"""`OrderIndex`: walks from any place, holes, numbers that come late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pman.jobdb.order import MIN_STALE, OrderIndex


class Jobs:
    """What a store would know: which name has which number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.index = OrderIndex(lambda name, number: self.numbers.get(name) == number)

    def add(self, name: str, number: int | None = None) -> None:
        number = self.index.take_number() if number is None else number
        self.numbers[name] = number
        self.index.add(number, name)

    def remove(self, name: str) -> None:
        del self.numbers[name]
        self.index.discard()

    def walk(self, below: int | None = None) -> list[str]:
        return [name for name in self.index.newest_first(below) if name in self.numbers]


def test_numbers_grow_and_are_never_given_twice() -> None:
    index = OrderIndex(lambda *_: True)
    assert [index.take_number() for _ in range(3)] == [1, 2, 3]
    assert index.take_number(10) == 10
    assert index.take_number(5) == 11


def test_a_walk_goes_from_the_newest_and_from_any_place() -> None:
    jobs = Jobs()
    for name in "abcde":
        jobs.add(name)
    assert jobs.walk() == ["e", "d", "c", "b", "a"]
    assert jobs.walk(jobs.numbers["c"]) == ["b", "a"]
    jobs.remove("b")
    assert jobs.walk(jobs.numbers["c"]) == ["a"]
    assert (jobs.index.at(1), jobs.index.at(-1), jobs.index.at(4)) == ("c", "e", None)


def test_a_number_that_comes_late_finds_its_place() -> None:
    jobs = Jobs()
    early = jobs.index.take_number()
    jobs.add("b")
    jobs.add("a", early)
    assert jobs.walk() == ["b", "a"]


def test_a_walk_is_not_disturbed_by_what_comes_and_goes() -> None:
    jobs = Jobs()
    for n in range(3 * MIN_STALE):
        jobs.add(f"old{n}")
    walk = jobs.index.newest_first()
    first = next(walk)
    for n in range(2 * MIN_STALE):
        jobs.remove(f"old{n}")
    jobs.add("new")
    assert [first, *walk] == [f"old{n}" for n in reversed(range(3 * MIN_STALE))]
    assert len(list(jobs.index.newest_first())) < 3 * MIN_STALE


def test_a_walk_is_of_what_was_there_when_it_was_asked_for() -> None:
    jobs = Jobs()
    for name in "abc":
        jobs.add(name)
    walk = jobs.index.newest_first()
    jobs.remove("a")
    jobs.remove("b")
    assert jobs.index.at(0) == "c"  # has closed the holes
    jobs.add("d")
    assert list(walk) == ["c", "b", "a"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_at_counts_only_what_is_there(steps: list[tuple[bool, int]]) -> None:
    jobs = Jobs()
    for is_new, n in steps:
        name = f"job{n}"
        if name in jobs.numbers:
            jobs.remove(name)
        if is_new:
            jobs.add(name)
    expected = sorted(jobs.numbers, key=lambda name: jobs.numbers[name])
    assert [jobs.index.at(n) for n in range(len(expected))] == expected
    assert jobs.walk() == expected[::-1]
