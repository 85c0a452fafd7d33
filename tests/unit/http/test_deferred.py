"""`Deferred`: once, whichever comes first."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pman.http.deferred import GIVEN_UP, Deferred
from pman.http.message import Response

FIRST = Response(status=200, body=b"first")
SECOND = Response(status=200, body=b"second")


def test_a_callback_gets_the_reply_when_it_comes() -> None:
    seen: list[Response] = []
    deferred = Deferred()
    deferred.on_done(seen.append)
    assert seen == []
    assert deferred.resolve(FIRST)
    assert not deferred.resolve(SECOND)
    assert seen == [FIRST]


def test_a_callback_that_comes_late_is_called_at_once() -> None:
    seen: list[Response] = []
    deferred = Deferred()
    deferred.resolve(FIRST)
    deferred.on_done(seen.append)
    assert seen == [FIRST]


class Closing:
    """A body that knows whether it was closed."""

    poll_s = None
    is_closed = False

    def read(self) -> bytes | None:
        return None

    def on_news(self, callback: Callable[[], None]) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("is_told_first", [True, False])
def test_who_replies_is_told_when_it_is_given_up(is_told_first: bool) -> None:
    seen: list[Response] = []
    let_go: list[int] = []
    deferred = Deferred()
    deferred.on_done(seen.append)
    if is_told_first:
        deferred.on_given_up(lambda: let_go.append(1))
        deferred.give_up()
    else:
        deferred.give_up()
        deferred.on_given_up(lambda: let_go.append(1))
    deferred.give_up()
    assert let_go == [1]
    assert seen == [GIVEN_UP]
    late = Response(200, b"", stream=Closing())
    assert not deferred.resolve(late)
    assert late.stream is not None
    assert late.stream.is_closed  # type: ignore[attr-defined]
    assert seen == [GIVEN_UP]


def test_nobody_is_told_of_a_reply_that_has_come() -> None:
    let_go: list[int] = []
    deferred = Deferred()
    deferred.on_given_up(lambda: let_go.append(1))
    deferred.resolve(FIRST)
    deferred.give_up()
    deferred.on_given_up(lambda: let_go.append(2))
    assert let_go == []


def test_one_of_two_threads_is_first() -> None:
    for _ in range(200):
        seen: list[Response] = []
        let_go: list[int] = []
        deferred = Deferred()
        deferred.on_done(seen.append)
        deferred.on_given_up(lambda let_go=let_go: let_go.append(1))  # type: ignore[misc]
        both = [
            threading.Thread(target=deferred.resolve, args=(FIRST,)),
            threading.Thread(target=deferred.give_up),
        ]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert len(seen) == 1
        assert let_go == ([1] if seen[0] is GIVEN_UP else [])
