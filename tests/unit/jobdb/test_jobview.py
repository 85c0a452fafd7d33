import msgspec
from jobdb_builders import finished_job, make_job

from pman.job.record import Worker
from pman.job.state import JobState
from pman.jobdb.jobview import JobView, job_view


def shown(job: object) -> dict[str, object]:
    return msgspec.json.decode(msgspec.json.encode(job_view(job)))


def test_a_finished_job_says_how_it_ended() -> None:
    job = finished_job("a", codes=(0, 3))
    view = shown(job)
    assert view["id"] == job.name
    assert view["state"] == job.state.value == "FAILED"
    assert view["status"] == "finishedWithError"
    assert [part["exitCode"] for part in view["parts"]] == [0, 3]
    assert (view["createdAt"], view["endedAt"]) == (job.accepted_at, job.ended_at)


def test_a_container_job_shows_its_workers() -> None:
    view = shown(make_job(workers=[Worker("w.1", "running")], state=JobState.RUNNING))
    assert view["workers"] == [
        {"name": "w.1", "state": "running", "exitCode": None, "reason": "", "message": ""}
    ]


def test_all_keys_are_always_there() -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(JobView)}
    assert set(shown(make_job())) == fields


def test_a_job_that_its_backend_may_have_is_not_held() -> None:
    assert shown(make_job(hold="released"))["hold"] == ""
    assert shown(make_job(hold="limit"))["hold"] == "limit"
