"""What the end of the parts means for the job."""

from __future__ import annotations

import pytest

from pman.backends._outcome import observation
from pman.backends.host import host_facts
from pman.job.observation import Observation
from pman.job.state import JobState
from pman.shepherd.protocol import JobRecord, PartRecord

FACTS = host_facts()


def seen(*codes: int | None, **ends: object) -> Observation:
    """Return what is observed of a job whose parts ended so; None is a part that has not."""
    parts = [
        PartRecord("x", 10 + n, 100 + n, 1.0 + n, None if code is None else 2.0 + n, code)
        for n, code in enumerate(codes)
    ]
    record = JobRecord(name="j", folder="/f", boot="b", parts=parts, **ends)  # type: ignore[arg-type]
    return observation(record, FACTS, 5)


@pytest.mark.parametrize(
    ("codes", "ends", "state", "exit_code", "number", "message"),
    [
        ((0,), {}, "COMPLETED", 0, None, ""),
        ((0, 0), {}, "COMPLETED", 0, None, ""),
        ((7,), {}, "FAILED", 7, None, "the command ended with exit code 7"),
        ((1, 4, 0), {}, "FAILED", 4, None, "part 2 of 3 ended with exit code 4"),
        ((-9,), {}, "FAILED", None, 9, "the command was ended by SIGKILL"),
        ((-64, 0), {}, "FAILED", None, 64, "part 1 of 2 was ended by SIGRTMAX"),
        ((-15, None), {"is_canceled": True}, "CANCELED", None, 15, "canceled"),
        ((0,), {"is_canceled": True}, "CANCELED", None, None, "canceled"),
        ((3, None), {"lost": "why"}, "LOST", None, None, "why"),
        ((0, None), {"failure": "part 2 …"}, "FAILED", None, None, "part 2 …"),
    ],
)
def test_ends(
    codes: tuple[int | None, ...],
    ends: dict[str, object],
    state: str,
    exit_code: int | None,
    number: int | None,
    message: str,
) -> None:
    end = seen(*codes, is_ended=True, **ends)
    assert end.state is JobState[state]
    assert (end.exit_code, end.signal, end.message) == (exit_code, number, message)
    assert end.reason


def test_a_job_runs_while_a_part_is_left() -> None:
    """Defect 34: the first part's success is not the job's."""
    now = seen(0, None)
    assert now.state is JobState.RUNNING
    assert (now.started_at, now.ended_at, now.exit_code) == (1.0, None, None)
    assert now.handle == {"shepherd": 5, "boot": "b", "pid": 11, "start_ticks": 101}
    assert now.facts is FACTS
    assert now.parts is not None
    assert [part.returncode for part in now.parts] == [0, None]


def test_the_end_is_that_of_the_last_part() -> None:
    assert seen(0, 0, is_ended=True).ended_at == 3.0
    assert seen(0, None, is_ended=True, lost="x").ended_at is None
