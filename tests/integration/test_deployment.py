"""pman in a pod, under its own service account, as the manifests say; jobs through its Service."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from daemon_process import wait_until
from deployment import Deployment
from engines import need_kubernetes, need_swarm

pytestmark = pytest.mark.slow

#: A node of one machine takes its time, seconds.
JOB_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """pman, ready."""
    need_swarm()
    need_kubernetes()
    made = Deployment(tmp_path_factory.mktemp("deployment"))
    try:
        made.deploy()
        yield made
    finally:
        made.remove()


def run(deployed: Deployment, jid: str, script: str) -> None:
    """Submit a script for a container's shell."""
    container = {"target": {"image": "local/busybox:1"}}
    limits = {"cpu_limit": "100m", "memory_limit": "64Mi"}
    reply = deployed.run(f"sh -c {shlex.quote(script)}", jid, container=container, **limits)
    assert (reply.status, reply.json()["status"]) == (200, True), reply.body


def finished(deployed: Deployment, jid: str) -> dict[str, Any]:
    """Return the status of a job once it has ended."""

    def look() -> dict[str, Any] | None:
        status = deployed.status(jid)
        return status if all("finished" in word for word in status["l_status"]) else None

    found: dict[str, Any] = wait_until(look, f"the end of job {jid!r}", JOB_TIMEOUT_S)
    return found


def nothing_is_left(deployed: Deployment) -> None:
    wait_until(lambda: not deployed.objects_of_jobs(), "nothing of jobs is left", JOB_TIMEOUT_S)


def test_token_is_asked_for(deployed: Deployment) -> None:
    assert deployed.post("hello", {}, askAbout="timestamp").status == 401
    assert deployed.post("hello", askAbout="timestamp").status == 200


def test_job_through_the_service(deployed: Deployment) -> None:
    """Claim, Job, pod and log, with no rights but those of the Role."""
    run(deployed, "through-the-service", "id -u; touch /share/file && echo written")
    status = finished(deployed, "through-the-service")
    assert status["l_status"] == ["finishedSuccessfully"]
    assert "10001\nwritten" in status["l_logs"][0]
    nothing_is_left(deployed)


def test_job_that_fails(deployed: Deployment) -> None:
    run(deployed, "that-fails", "echo no luck; exit 3")
    status = finished(deployed, "that-fails")
    assert status["l_status"] == ["finishedWithError"]
    assert "no luck" in status["l_logs"][0]


def test_running_job_is_deleted(deployed: Deployment) -> None:
    run(deployed, "to-be-deleted", "sleep 1000")
    wait_until(
        lambda: deployed.words("to-be-deleted") == ["started"], "the job runs", JOB_TIMEOUT_S
    )
    assert deployed.post("delete", value="to-be-deleted").json()["status"]
    nothing_is_left(deployed)


def test_host_jobs_are_refused(deployed: Deployment) -> None:
    reply = deployed.run("true", "on-the-host")
    assert reply.status == 403, reply.body
    assert deployed.words("on-the-host") == []


def test_new_pod_takes_over(deployed: Deployment) -> None:
    """The volume, the group of the volume and the job outlive the pod."""
    run(deployed, "taken-over", "until test -e /share/go; do sleep 0.2; done; echo gone on")
    wait_until(lambda: deployed.words("taken-over") == ["started"], "the job runs", JOB_TIMEOUT_S)
    (before,) = deployed.pods()

    deployed.kubectl("rollout", "restart", "deployment/pman")
    deployed.wait_ready()
    (after,) = deployed.pods()
    assert after["metadata"]["name"] != before["metadata"]["name"]
    assert deployed.words("taken-over") == ["started"]

    for share in deployed.shares():
        (share / "go").touch()
    status = finished(deployed, "taken-over")
    assert status["l_status"] == ["finishedSuccessfully"]
    assert "gone on" in status["l_logs"][0]
    nothing_is_left(deployed)


def test_pod_needed_no_second_start(deployed: Deployment) -> None:
    """Probes leave it alone, and no right was missing."""
    (pod,) = deployed.pods()
    assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]
    log = deployed.log_text()
    assert "persistentvolumeclaims" in log
    assert log.count("rights in") == 1
    assert "=NO" not in log
    assert "forbidden" not in log.lower()
