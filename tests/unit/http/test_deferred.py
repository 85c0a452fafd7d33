"""`Deferred`: once, whichever comes first."""

from __future__ import annotations

from pman.http.deferred import Deferred
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
