"""`EventWatch`: follows the engine's events until told to stop, or the engine falls silent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from pman.backends._swarm.client import EngineClient, Stream, filters
from pman.errors import BackendError, BackendUnavailable

#: Between two beats while events are waited for, seconds.
BEAT_PERIOD_S = 1.0

#: What is asked for. Labels are not: events of services carry none.
_FILTERS = filters(
    type=["container", "service", "node"],
    event=["start", "kill", "die", "oom", "create", "update", "remove"],
)

Event = dict[str, Any]


class EventWatch:
    """One stream of events at a time; `interrupt` from any thread."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._is_silent = False

    def follow(
        self,
        take: Callable[[Event], None],
        ready: Callable[[], None],
        beat: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        """Give each event to `take` until `stop` is set; blocks.

        Args:
            ready: Called once no later event is missed.
            beat: Called each `BEAT_PERIOD_S` by another thread; raises `BackendUnavailable` when
                the engine is silent: one that is frozen gives no error to who waits for events.
        Raises:
            BackendUnavailable: The connection broke, or the engine does not answer.
        """
        # The engine sends the head of its answer before it subscribes: what happens in between
        # comes again because of `since`. Source: moby, api/server/router/system, getEvents.
        params: dict[str, str | int] = {"since": _whole_second(self._client.ping()), **_FILTERS}
        self._is_silent = False
        done = threading.Event()
        beats = threading.Thread(
            target=self._beat, args=(beat, done), name="swarm-beat", daemon=True
        )
        with self._client.stream("GET", "/events", params, timeout_s=None) as stream:
            with self._lock:
                self._stream = stream
            beats.start()
            try:
                if not stop.is_set():
                    ready()
                    for event in _events(stream):
                        if stop.is_set():
                            break
                        take(event)
            except BackendUnavailable:
                if not stop.is_set() and not self._is_silent:
                    raise
            finally:
                with self._lock:
                    self._stream = None
                done.set()
        if not stop.is_set():
            trouble = "does not answer" if self._is_silent else "has ended its stream of events"
            raise BackendUnavailable(f"docker engine at {self._client.host} {trouble}")

    def interrupt(self) -> None:
        """End the stream of events, if there is one."""
        with self._lock:
            if self._stream is not None:
                self._stream.interrupt()

    def _beat(self, beat: Callable[[], None], done: threading.Event) -> None:
        """Ask now and then whether the engine is there; end the stream when it isn't."""
        while not done.wait(BEAT_PERIOD_S):
            try:
                beat()
            except BackendError:
                self._is_silent = True
                self.interrupt()
                return


def _events(stream: Stream) -> Iterator[Event]:
    rest = b""
    for chunk in stream.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield msgspec.json.decode(line)


def _whole_second(date: str) -> int:
    """Return an HTTP date in UTC epoch seconds. Source: RFC 9110, section 5.6.7."""
    return int(parsedate_to_datetime(date).timestamp())
