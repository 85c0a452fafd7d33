"""Defects of pman 2.2 that concern openshift: one test a defect, the number in the name."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from api_proxy import ApiProxy
from daemon_process import DaemonProcess, wait_until
from openshift_daemon import (
    Project,
    Starter,
    codes_of,
    delete,
    log_of,
    name_of,
    shell,
    small,
    wait_ended,
    wait_running,
)
from probes import job_names, output_of

pytestmark = pytest.mark.slow

JOBS = r"/apis/batch/v1/namespaces/[^/]+/jobs$"


@pytest.fixture(scope="module")
def one_listener(start_shared: Starter, shared_proxy: ApiProxy) -> DaemonProcess:
    """One daemon for the module with a single listener: whoever loses it loses them all."""
    return start_shared("--listeners", "1", kubeconfig=shared_proxy.kubeconfig)


def test_defect_14_status_and_delete_of_a_fresh_job_and_errors_of_the_api(
    one_listener: DaemonProcess, shared_proxy: ApiProxy, project: Project
) -> None:
    one_listener.run(shell("sleep 60"), "fresh", **small())
    assert one_listener.words("fresh") in (["notstarted"], ["started"])
    one_listener.run(shell("sleep 60"), "d14", **small())
    with ThreadPoolExecutor(1) as threads:
        deleted = threads.submit(delete, one_listener, "fresh")
        wait_running(one_listener, "d14")
        answer = deleted.result().json()
    assert answer["status"] is True
    assert answer["d_ret"]["status"] == "Job deleted successfully"
    for code in (500, 403, 429):
        shared_proxy.forget()
        shared_proxy.refuse("GET", "", code, count=1_000_000)
        shared_proxy.cut_connections()
        wait_until(lambda: shared_proxy.sent("GET", ""), "it is asked")
        assert one_listener.words("d14") == ["started"]
    shared_proxy.forget()
    assert one_listener.is_alive()
    wait_until(lambda: delete(one_listener, "d14").status == 200, "it can be deleted again")
    project.wait_gone(one_listener)


def test_defect_26_a_container_run_that_waits_runs_in_its_container(
    one_listener: DaemonProcess, project: Project
) -> None:
    script = "echo in $CPU_LIMIT; test -w / && exit 9; exit 5"
    reply = one_listener.post("run", cmd=shell(script), auid="t", jid="d26", **small()).json()
    assert reply["status"] is True
    assert reply["d_ret"]["l_status"] == ["finishedWithError"]
    assert reply["d_ret"]["0.end"]["returncode"] == [5]
    assert re.fullmatch(r"d26-\w{5}:in 100m\n", reply["d_ret"]["l_logs"][0])
    project.wait_gone(one_listener)


def test_defect_42_a_failed_job_reads_finished(one_listener: DaemonProcess) -> None:
    one_listener.run("false", "d42", **small())
    assert wait_ended(one_listener, "d42")["state"] == "FAILED"
    assert one_listener.words("d42") == ["finishedWithError"]
    assert codes_of(one_listener, "d42") == [1]


def test_defect_43_status_is_a_boolean_and_finished_jobs_stay(
    one_listener: DaemonProcess, project: Project
) -> None:
    unknown = one_listener.post("status", key="jid", value="nosuch").json()
    assert (unknown["status"], unknown["d_ret"]["l_status"]) == (False, [])
    one_listener.run(shell("echo out"), "d43", **small())
    found = one_listener.post("status", key="jid", value="d43").json()
    assert found["status"] is True
    assert isinstance(found["d_ret"]["l_status"], list)
    assert wait_ended(one_listener, "d43")["state"] == "COMPLETED"
    project.wait_gone(one_listener, job=name_of(one_listener, "d43"))
    found = one_listener.post("status", key="jid", value="d43").json()
    assert found["status"] is True
    assert found["d_ret"]["l_status"] == ["finishedSuccessfully"]
    assert re.fullmatch(r"d43-\w{5}:out\n", found["d_ret"]["l_logs"][0])


def test_defect_44_integers_words_records_and_delete_without_a_claim(
    one_listener: DaemonProcess, shared_proxy: ApiProxy, project: Project
) -> None:
    shared_proxy.forget()
    cmd = "printf '%s|' 'a  b' \"c d\" ''"
    one_listener.run(cmd, "d44", **small(number_of_workers="1"))
    (request,) = shared_proxy.sent("POST", JOBS)
    spec = request.body["spec"]
    assert (spec["parallelism"], spec["completions"]) == (1, 1)
    assert spec["template"]["spec"]["containers"][0]["command"][1:] == ["%s|", "a  b", "c d", ""]
    assert wait_ended(one_listener, "d44")["state"] == "COMPLETED"
    assert log_of(one_listener, "d44").endswith(":a  b|c d||")
    assert output_of(one_listener, "d44") == "a  b|c d||"
    name = name_of(one_listener, "d44")
    assert name in job_names(one_listener)
    meta = one_listener.request("GET", f"/api/v1/{name}/d_meta").json()["GET"][name]["d_meta"]
    assert json.loads(meta)["cmd"] == cmd
    deleted = one_listener.post("delete", key="jid", value="d44").json()
    assert deleted["status"] is True
    assert deleted["d_ret"] == {
        "action": "Delete Job",
        "job_id": "d44",
        "status": "Job deleted successfully",
    }
    assert name not in job_names(one_listener)
    project.wait_gone(one_listener, job=name)
