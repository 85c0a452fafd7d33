"""kill -9 of the daemon while its jobs are on a real cluster: the next one misses nothing."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from api_proxy import ApiProxy
from daemon_process import DaemonProcess, wait_until
from openshift_daemon import (
    DEADLINE_S,
    Project,
    Share,
    Starter,
    instance_of,
    log_of,
    shell,
    small,
    wait_ended,
    wait_running,
)
from probes import job_names

pytestmark = pytest.mark.slow

JOBS = r"/apis/batch/v1/namespaces/[^/]+/jobs$"

#: Prints so many lines that no log of it that is cut short looks whole.
LONG = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
LONG_LOG = "".join(f"line {n}\n" for n in range(20000))


def pods_ended(daemon: DaemonProcess, project: Project) -> bool:
    phases = {pod["status"]["phase"] for pod in project.get("pods", instance=instance_of(daemon))}
    return phases <= {"Succeeded", "Failed"}


def check_once(daemon: DaemonProcess, share: Share, jid: str, code: int, log: str) -> None:
    """Look that a job has ended with its own code and log, and that it has run once."""
    record = wait_ended(daemon, jid)
    state = "FAILED" if code else "COMPLETED"
    assert (record["state"], record["exit_code"]) == (state, code), record
    head, _, text = log_of(daemon, jid).partition(":")
    assert re.fullmatch(rf"{jid}-\w{{5}}", head)
    assert text == log
    assert share.lines(f"ran-{jid}") == ["x"]


@pytest.mark.parametrize("when", ["they end while it is dead", "they end after its return"])
def test_killed_while_ten_jobs_run(
    start: Starter, share: Share, project: Project, when: str
) -> None:
    daemon = start()
    for n in range(10):
        prints = LONG if n < 3 else "echo begin"
        script = f"echo x >> /share/ran-k{n}; {prints}; {share.passage}; echo end; exit {n % 4}"
        daemon.run(shell(script), f"k{n}", **small(share, cpu_limit="150m"))
    for n in range(10):
        wait_running(daemon, f"k{n}")
    daemon.kill()
    if when == "they end while it is dead":
        share.open(10)
        wait_until(lambda: pods_ended(daemon, project), "all have ended", DEADLINE_S)
        daemon.start()
    else:
        daemon.start()
        for n in range(10):
            assert daemon.words(f"k{n}") == ["started"]
        share.open(10)
    for n in range(10):
        log = (LONG_LOG if n < 3 else "begin\n") + "end\n"
        check_once(daemon, share, f"k{n}", n % 4, log)
    project.wait_gone(daemon)


def test_killed_while_jobs_are_submitted(start: Starter, share: Share, project: Project) -> None:
    """What was acknowledged runs once; what was not runs once or not at all."""
    daemon = start()
    acknowledged: set[str] = set()

    def submit(n: int) -> None:
        script = f"echo x >> /share/ran-s{n}; echo out-{n}"
        try:
            reply = daemon.run(shell(script), f"s{n}", **small(share))
        except OSError:
            return  # the daemon is dead
        assert reply.json()["status"] is True
        acknowledged.add(f"s{n}")

    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(submit, n) for n in range(20)]
        wait_until(lambda: len(acknowledged) >= 4, "some are acknowledged")
        daemon.kill()
    for future in sent:
        future.result()
    daemon.start()
    for n in range(20):
        known = daemon.post("status", key="jid", value=f"s{n}").json()["status"]
        assert known or f"s{n}" not in acknowledged
        if known:
            check_once(daemon, share, f"s{n}", 0, f"out-{n}\n")
    project.wait_gone(daemon)
    for n in range(20):
        assert len(share.lines(f"ran-s{n}")) <= 1


def test_killed_before_the_making_of_a_job_is_answered(
    start: Starter, share: Share, proxy: ApiProxy, project: Project
) -> None:
    """The Job is on the cluster, and the job DB does not know that: it is found by its label."""
    daemon = start(kubeconfig=proxy.kubeconfig)
    daemon.run("true", "first", **small())
    wait_ended(daemon, "first")
    proxy.forget()
    with ThreadPoolExecutor(1) as threads:
        proxy.hold_answers("POST", JOBS)
        sent = threads.submit(
            daemon.run, shell("echo x >> /share/ran-u; echo out"), "u", **small(share)
        )
        wait_until(lambda: share.lines("ran-u"), "it was carried out", DEADLINE_S)
        daemon.kill()
        assert isinstance(sent.exception(), OSError)
    proxy.forget()
    daemon.start()
    check_once(daemon, share, "u", 0, "out\n")
    project.wait_gone(daemon)
    assert share.lines("ran-u") == ["x"]


def test_killed_while_it_waits_for_a_full_cluster_to_be_tidied(
    start: Starter, share: Share, project: Project
) -> None:
    """Jobs that have ended and were not removed yet go with the next daemon."""
    daemon = start("--keepFinished", "600")
    for n in range(3):
        daemon.run(shell(f"echo x >> /share/ran-t{n}"), f"t{n}", **small(share))
    for n in range(3):
        check_once(daemon, share, f"t{n}", 0, "")
    assert len(project.get("jobs", instance=instance_of(daemon))) == 3
    daemon.kill()
    again = start("--orphanGrace", "0.1")
    project.wait_gone(again)
    for n in range(3):
        check_once(again, share, f"t{n}", 0, "")
    assert len(job_names(again)) == 3
