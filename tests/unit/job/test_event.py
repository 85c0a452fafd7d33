"""`Event` and `Wanted`: what counts as a change, and which changes somebody asks for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from jobdb_builders import make_job

from pman.job.event import Wanted, accepted, changes, deleted
from pman.job.state import JobState

AT = 12.5


def test_first_event_is_the_first_state() -> None:
    event = accepted(make_job("a", labels={"x": "1"}), AT)
    assert (event.seq, event.at, event.kind, event.state) == (0, AT, "state", JobState.NEW)
    assert (event.jid, event.labels) == ("a", {"x": "1"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"message": "pulling the image"}, []),
        ({"state": JobState.RUNNING}, [("state", JobState.RUNNING)]),
        ({"attempt": 2}, [("state", JobState.NEW)]),
        ({"progress": 0.5}, [("progress", JobState.NEW)]),
        ({"progress_text": "half"}, [("progress", JobState.NEW)]),
        (
            {"progress": 1.0, "state": JobState.COMPLETED},
            [("progress", JobState.NEW), ("state", JobState.COMPLETED)],
        ),
    ],
)
def test_changes(fields: dict[str, Any], expected: list[tuple[str, JobState]]) -> None:
    old = make_job()
    events = changes(old, msgspec.structs.replace(old, **fields), AT)
    assert [(event.kind, event.state) for event in events] == expected


def test_deleted_says_how_the_job_stood() -> None:
    event = deleted(make_job(state=JobState.LOST), AT)
    assert (event.kind, event.state) == ("deleted", JobState.LOST)


@pytest.mark.parametrize(
    ("wanted", "is_match"),
    [
        ({}, True),
        ({"jid": "a"}, True),
        ({"jid": "b"}, False),
        ({"auid": "tester", "owner": "tester"}, True),
        ({"auid": "tester", "owner": "other"}, False),
        ({"auid": "other", "owner": "tester"}, False),
        ({"job": "other"}, False),
        ({"labels": {"x": "1"}}, True),
        ({"labels": {"x": "1", "y": "2"}}, True),
        ({"labels": {"x": "2"}}, False),
        ({"labels": {"z": ""}}, False),
        ({"kinds": frozenset({"progress"})}, False),
        ({"kinds": frozenset({"state"})}, True),
        ({"states": frozenset({JobState.NEW})}, True),
        ({"states": frozenset({JobState.LOST})}, False),
    ],
)
def test_wanted(wanted: dict[str, Any], is_match: bool) -> None:
    event = accepted(make_job("a", labels={"x": "1", "y": "2"}), AT)
    assert Wanted(**wanted).matches(event) is is_match


def test_job_without_labels_has_none_of_them() -> None:
    assert not Wanted(labels={"x": "1"}).matches(accepted(make_job(), AT))
