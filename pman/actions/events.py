"""`events`: what has happened to jobs, and what happens next."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import msgspec

from pman.actions import action
from pman.actions._feed import Feed
from pman.actions._filters import States, as_labels, as_states, as_text
from pman.actions.base import ActionContext, ActionRequest, Answer, GiveUp, Later, Outcome
from pman.auth import Role
from pman.errors import PmanError
from pman.job.event import Kind, Wanted
from pman.job.pairs import MAX_LABELS
from pman.jobdb.events import Page


def _about(text: str, **limits: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, **limits)


#: Longest texts to look for: a stream keeps them as long as it goes on. No label of a job is longer
#: than the second one.
MAX_TEXT, MAX_LABEL_TEXT = 4096, 320

_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
_LabelText = Annotated[str, msgspec.Meta(max_length=MAX_LABEL_TEXT)]


class EventsMeta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `events` takes."""

    since: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None,
        _about(
            "number of the last event that is known already; 0: all that there are; without it"
            " only what comes from now on"
        ),
    ] = None
    from_start: Annotated[bool, _about("all that there are, where there is no `since`")] = False
    limit: Annotated[int, _about("most events in one answer", ge=1, le=1000)] = 100
    jid: Annotated[_Text | int | float | None, _about("only events of jobs with this id")] = None
    job: Annotated[_Text | None, _about("only events of the job with this unique name")] = None
    auid: Annotated[_Text | int | float | None, _about("only events of jobs of this user")] = None
    label: Annotated[
        Annotated[dict[_LabelText, _LabelText | int | float], msgspec.Meta(max_length=MAX_LABELS)]
        | None,
        _about("only events of jobs that have all of these labels"),
    ] = None
    kind: Annotated[list[Kind] | Kind | None, _about("only events of these kinds")] = None
    state: Annotated[States, _about("only events with one of these states in them")] = None
    wait: Annotated[
        float, _about("how long to wait if there is no such event yet, seconds", ge=0, le=300)
    ] = 0.0
    follow: Annotated[
        bool, _about("answer with server-sent events that go on until the client closes")
    ] = False


@action("events", role=Role.READ, takes=EventsMeta)
def events(request: ActionRequest, context: ActionContext) -> Outcome | Later:
    """Answer `{"events", "next", "firstSeq", "gap"}`; with `follow`, a stream of events.

    `next` is the `since` to go on with. `gap` is true if events behind `since` have been forgotten,
    or if `since` lies in the future; the answer then begins with the oldest that is left. To a
    caller that is bound to a user all of them tell of that user's events only, and of the time.
    """
    meta = request.read_as(EventsMeta)
    since = 0 if meta.since is None and meta.from_start else meta.since
    wanted = _wanted(meta, request)
    if meta.job is not None and (job := context.store.get(meta.job)) is not None:
        request.found = [job]
    if meta.follow:
        return Outcome(
            True,
            stream=Feed(context.events, since, wanted),
            content_type="text/event-stream",
            headers=(("Cache-Control", "no-store"),),
        )
    page = context.events.since(since, meta.limit, wanted)
    if page.events or page.is_gap or not page.is_end or not meta.wait:
        return _show(page)
    return Later(lambda answer: _Poll(meta, wanted, page, context, answer).start())


def _wanted(meta: EventsMeta, request: ActionRequest) -> Wanted:
    return Wanted(
        job=meta.job,
        jid=as_text(meta.jid),
        auid=as_text(meta.auid),
        owner=request.caller.auid,
        labels=as_labels(meta.label),
        kinds=_as_kinds(meta.kind),
        states=as_states(meta.state),
    )


def _as_kinds(given: list[Kind] | Kind | None) -> frozenset[str] | None:
    if given is None:
        return None
    return frozenset([given] if isinstance(given, str) else given)


def _show(page: Page) -> Outcome:
    return Outcome(
        True,
        {
            "events": [msgspec.to_builtins(event) for event in page.events],
            "next": page.next,
            "firstSeq": page.first_seq,
            "gap": page.is_gap,
        },
    )


class _Poll:
    """Answers as soon as there is an event, or when the time is over; holds no thread."""

    def __init__(
        self,
        meta: EventsMeta,
        wanted: Wanted,
        page: Page,
        context: ActionContext,
        answer: Answer,
    ) -> None:
        self._limit = meta.limit
        self._wait_s = meta.wait
        self._wanted = wanted
        self._page = page
        self._log = context.events
        self._timers = context.timers
        self._answer = answer
        self._lock = threading.Lock()
        self._is_over = False

    def start(self) -> GiveUp:
        with self._lock:  # either may call before the other is there
            self._forget = self._log.subscribe(self._look, self._wanted)
            self._cancel = self._timers.after(self._wait_s, self._end)
        self._look()  # what came before it was subscribed
        return self._give_up

    def _give_up(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        self._forget()
        self._cancel()

    def _look(self) -> None:
        """Look for news, from where the last look ended."""
        with self._lock:
            if self._is_over:
                return
            try:
                self._page = self._log.since(self._page.next, self._limit, self._wanted)
            except PmanError as exc:
                self._finish(exc)
                return
            page = self._page
            if page.events or page.is_gap or not page.is_end or self._log.is_closed:
                self._finish()

    def _end(self) -> None:
        with self._lock:
            if not self._is_over:
                self._finish()

    def _finish(self, error: PmanError | None = None) -> None:
        self._is_over = True
        self._forget()
        self._cancel()
        page = self._page

        def make() -> Outcome:
            if error is not None:
                raise error
            return _show(page)

        self._answer(make)
