"""How jobs end on a real cluster: once each, with the true state, reason, code and log."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from api_proxy import ApiProxy
from daemon_process import DaemonProcess, wait_until
from engines import swarm_problem
from openshift_daemon import (
    DEADLINE_S,
    IMAGE,
    Project,
    Share,
    Starter,
    codes_of,
    delete,
    log_of,
    name_of,
    record_of,
    shell,
    small,
    wait_ended,
    wait_for,
    wait_running,
)
from probes import assert_refused, memory_bytes

pytestmark = pytest.mark.slow

JOBS = r"/apis/batch/v1/namespaces/[^/]+/jobs$"
#: Kubernetes keeps both streams as one; which of two words comes first may change.
OUT_AND_KILLED = "(out\n|Killed\n){1,2}"
#: Words of the shell that wait until three workers are there; one of them then fails.
THREE = (
    "echo here; echo x >> /share/here;"
    " while [ $(wc -l < /share/here) -lt 3 ]; do sleep 0.1; done;"
    " mkdir /share/first 2>/dev/null && exit 3; sleep 30"
)


class End(msgspec.Struct, frozen=True):
    """How a job is to end.

    Attributes:
        script: What its shell runs.
        log: What it prints, all pods together.
        meta: What `meta` holds beside the usual.
        codes: Exit codes of its containers.
    """

    script: str
    state: str
    reason: str
    exit_code: int | None
    signal: int | None = None
    log: str = ""
    meta: dict[str, Any] = {}
    codes: tuple[int, ...] | None = None


ENDS: dict[str, End] = {
    "succeeds": End("echo out; echo err >&2", "COMPLETED", "ok", 0, log="(out\nerr|err\nout)\n"),
    "prints-nothing": End("true", "COMPLETED", "ok", 0),
    "fails": End("echo out; exit 7", "FAILED", "error", 7, log="out\n"),
    "is-killed": End(
        "echo out; sh -c 'kill -9 $$'; exit $?", "FAILED", "error", 137, 9, OUT_AND_KILLED
    ),
    "has-no-such-program": End(
        "exec /no/such/program", "FAILED", "error", 127, log=".*not found\n"
    ),
    "eats-memory": End(
        "echo out; head -c 100000000 /dev/zero | tail",
        "FAILED",
        "oom_killed",
        137,
        9,
        OUT_AND_KILLED,
        {"memory_limit": "16Mi"},
    ),
    "works-twice": End(
        "echo out", "COMPLETED", "ok", 0, log="out\n", meta={"number_of_workers": 2}, codes=(0, 0)
    ),
}


@pytest.fixture(scope="module")
def shared(start_shared: Starter) -> DaemonProcess:
    return start_shared()


@pytest.fixture(scope="module")
def sent(shared: DaemonProcess) -> DaemonProcess:
    """The daemon with all jobs of `ENDS`, which end side by side."""
    for jid, end in ENDS.items():
        reply = shared.run(shell(end.script), jid, **small(**end.meta))
        assert reply.status == 200, reply.body
    return shared


@pytest.mark.parametrize("jid", ENDS)
def test_ends(sent: DaemonProcess, project: Project, jid: str) -> None:
    end = ENDS[jid]
    record = wait_ended(sent, jid)
    found = {key: record[key] for key in ("state", "reason", "exit_code", "signal")}
    assert found == {
        "state": end.state,
        "reason": end.reason,
        "exit_code": end.exit_code,
        "signal": end.signal,
    }, record
    assert record["accepted_at"] <= record["started_at"] + 1  # the cluster's clock has seconds
    assert record["started_at"] <= record["ended_at"]
    assert bool(record["message"]) is (end.state == "FAILED")
    codes = end.codes or (end.exit_code,)
    assert codes_of(sent, jid) == list(codes)
    one = rf"{jid}-\w{{5}}:{end.log}"
    assert re.fullmatch(one * len(codes), log_of(sent, jid)), log_of(sent, jid)
    word = "finishedSuccessfully" if end.state == "COMPLETED" else "finishedWithError"
    assert sent.words(jid) == [word]
    project.wait_gone(sent, job=name_of(sent, jid))


# --- jobs that can't start --------------------------------------------------------------------

#: Job id -> what `meta` holds beside the usual, the reason, and what the message speaks of.
#: The daemon that gets them sets no user id, and the user of the image is root.
STUCK: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-image": (small(image="local/nosuch:9"), "image_pull_failed", "nosuch"),
    "root": (small(), "config_error", "--jobUID"),
    "gpu": (small(gpu_limit=1), "unschedulable", "gpu"),
}


@pytest.fixture(scope="module")
def stuck(start_shared: Starter) -> DaemonProcess:
    """A daemon that gives up soon, with all jobs of `STUCK`."""
    daemon = start_shared("--pendingTimeout", "6", uid=None, name="stuck")
    for jid, (meta, _, _) in STUCK.items():
        assert daemon.run("true", jid, **meta).status == 200
    return daemon


@pytest.mark.parametrize("jid", STUCK)
def test_a_job_that_cannot_start_says_why_and_fails(
    stuck: DaemonProcess, project: Project, jid: str
) -> None:
    _, reason, words = STUCK[jid]
    shown = wait_for(stuck, jid, lambda r: r["reason"] == reason, "it shows why it does not start")
    assert shown["state"] in ("QUEUED", "FAILED")
    assert stuck.words(jid)[0] in ("notstarted", "finishedWithError")
    record = wait_ended(stuck, jid)
    assert (record["state"], record["reason"]) == ("FAILED", reason)
    assert (record["exit_code"], record["started_at"]) == (None, None)
    assert words in record["message"]
    assert record["ended_at"] - record["accepted_at"] >= 5
    project.wait_gone(stuck, job=name_of(stuck, jid))


# --- pods that are deleted: a node may take a quarter of a minute for one ----------------------


class Deleted:
    """Jobs side by side whose pods are deleted, by whoever it may be.

    Attributes:
        pod: Name of the pod that was deleted by hand.
        answers: To `delete`, by job id.
    """

    def __init__(self, start: Starter, project: Project) -> None:
        self.daemon = start(name="deleted")
        self.late = start("--jobDeadline", "6", name="late")
        self.shares = {jid: start.share() for jid in ("three", "pod", "job", "asked")}
        passage = Share.passage
        asked = f"trap 'echo asked > /share/asked; exit 0' TERM; {passage} & wait"
        scripts = {
            "three": THREE,
            "pod": f"echo out; echo x >> /share/ran; {passage}",
            "job": f"echo out; {passage}",
            "asked": asked,
            "forced": "trap '' TERM; sleep 60",
        }
        self.late.run(shell("echo out; sleep 60"), "late", **small())
        for jid, script in scripts.items():
            workers = 3 if jid == "three" else 1
            meta = small(self.shares.get(jid), number_of_workers=workers)
            self.daemon.run(shell(script), jid, **meta)
        for jid in scripts:
            wait_running(self.daemon, jid)
        wait_until(lambda: self.shares["pod"].lines("ran"), "it runs")
        (pod,) = project.get("pods", job=name_of(self.daemon, "pod"))
        self.pod = pod["metadata"]["name"]
        project.kubectl("delete", "pod", self.pod, "--wait=false")
        project.kubectl("delete", "job", "job", "--wait=false")
        self._threads = ThreadPoolExecutor(2)
        self.answers = {
            jid: self._threads.submit(delete, self.daemon, jid) for jid in ("asked", "forced")
        }

    def close(self) -> None:
        self._threads.shutdown()
        for share in self.shares.values():
            share.close()


@pytest.fixture(scope="module")
def deleted(start_shared: Starter, project: Project) -> Iterator[Deleted]:
    made = Deleted(start_shared, project)
    yield made
    made.close()


def test_one_of_three_workers_fails(deleted: Deleted, project: Project) -> None:
    record = wait_ended(deleted.daemon, "three")
    assert (record["state"], record["reason"], record["exit_code"]) == ("FAILED", "error", 3)
    codes = codes_of(deleted.daemon, "three")  # of the others if they were told before they went
    assert codes.count(3) == 1
    assert 0 not in codes
    assert deleted.shares["three"].lines("here") == ["x"] * 3  # none was started anew
    assert log_of(deleted.daemon, "three").count("here\n") == 3
    project.wait_gone(deleted.daemon, job=name_of(deleted.daemon, "three"))


def test_a_job_past_its_deadline_is_ended(deleted: Deleted, project: Project) -> None:
    record = wait_ended(deleted.late, "late")
    assert (record["state"], record["reason"]) == ("FAILED", "deadline_exceeded")
    assert "deadline" in record["message"].lower()
    # A busy node may take longer than that to start it.
    printed = "" if record["started_at"] is None else "out\n"
    assert re.fullmatch(rf"late-\w{{5}}:{printed}", log_of(deleted.late, "late"))
    project.wait_gone(deleted.late)


def test_pod_deleted_by_hand(deleted: Deleted, project: Project) -> None:
    record = wait_ended(deleted.daemon, "pod")
    assert (record["state"], record["reason"]) == ("FAILED", "pod_deleted")
    assert deleted.pod in record["message"]
    assert log_of(deleted.daemon, "pod") == f"{deleted.pod}:out\n"
    project.wait_gone(deleted.daemon, job=name_of(deleted.daemon, "pod"))
    # Before 1.26 Kubernetes makes another pod at once, which may just have begun.
    assert len(deleted.shares["pod"].lines("ran")) in (1, 2)


def test_job_deleted_by_hand(deleted: Deleted, project: Project) -> None:
    record = wait_ended(deleted.daemon, "job")
    assert (record["state"], record["reason"]) == ("LOST", "lost")
    assert record["message"]
    assert deleted.daemon.words("job") == ["finishedWithError"]
    project.wait_gone(deleted.daemon, job=name_of(deleted.daemon, "job"))


def test_delete_ends_running_jobs(deleted: Deleted, project: Project) -> None:
    for jid, answer in deleted.answers.items():
        reply = answer.result(DEADLINE_S).json()
        words = {"action": "Delete Job", "job_id": jid, "status": "Job deleted successfully"}
        assert (reply["status"], reply["d_ret"]) == (True, words)
        assert deleted.daemon.post("status", key="jid", value=jid).json()["status"] is False
    project.wait_gone(deleted.daemon)  # the last of its jobs
    assert deleted.shares["asked"].lines("asked") == ["asked"]


# --- the API server is away -------------------------------------------------------------------


class Ten:
    """Ten jobs that wait at a gate, print, and end with different codes."""

    def __init__(self, daemon: DaemonProcess, share: Share) -> None:
        self.daemon = daemon
        self.share = share
        for n in range(10):
            script = (
                f"echo x >> /share/ran-{n}; echo begin; {share.passage}; echo end; exit {n % 3}"
            )
            assert daemon.run(shell(script), f"ten-{n}", **small(share)).status == 200
        for n in range(10):
            wait_running(daemon, f"ten-{n}")

    def end_unseen(self, project: Project) -> None:
        """Open the gate, and wait until the cluster knows how they have ended."""
        self.share.open(10)

        def all_ended() -> bool:
            phases = project.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.phase}")
            return "Running" not in phases and "Pending" not in phases

        wait_until(all_ended, "all have ended", DEADLINE_S)

    def check(self, project: Project) -> None:
        """Look that each has run once and ended as it did."""
        for n in range(10):
            record = wait_ended(self.daemon, f"ten-{n}")
            state = "FAILED" if n % 3 else "COMPLETED"
            assert (record["state"], record["exit_code"]) == (state, n % 3), record
            printed = rf"ten-{n}-\w{{5}}:begin\nend\n"
            assert re.fullmatch(printed, log_of(self.daemon, f"ten-{n}"))
            assert self.share.lines(f"ran-{n}") == ["x"]
        project.wait_gone(self.daemon)


def test_api_server_goes_and_comes_back_while_jobs_run(
    start: Starter, share: Share, proxy: ApiProxy, project: Project
) -> None:
    daemon = start(kubeconfig=proxy.kubeconfig)
    ten = Ten(daemon, share)
    proxy.cut()
    ten.end_unseen(project)
    for n in range(10):
        assert daemon.words(f"ten-{n}") == ["started"]
    refused = daemon.run("true", "refused", **small())
    assert_refused(refused, 503, "BackendUnavailable")
    daemon.run("true", "on-host")
    assert daemon.wait_finished("on-host") == ["finishedSuccessfully"]
    proxy.heal()
    ten.check(project)
    # It was refused at once, or when it could not be handed over.
    record = daemon.post("status", key="jid", value="refused").json()["d_ret"]
    assert record["l_status"] in ([], ["finishedWithError"])


def test_api_server_hangs_while_jobs_run(
    start: Starter, share: Share, proxy: ApiProxy, project: Project
) -> None:
    daemon = start(kubeconfig=proxy.kubeconfig)
    ten = Ten(daemon, share)
    proxy.hold()
    ten.end_unseen(project)
    for n in range(10):
        assert daemon.words(f"ten-{n}") == ["started"]
    assert daemon.is_alive()
    proxy.heal()
    ten.check(project)


def test_expired_resource_version(
    start: Starter, share: Share, proxy: ApiProxy, project: Project
) -> None:
    """A watch that is told that its version is too old lists, and goes on from there."""
    daemon = start(kubeconfig=proxy.kubeconfig)
    daemon.run(shell(f"echo out; {share.passage}"), "old", **small(share))
    wait_running(daemon, "old")
    proxy.age_watches(2)
    proxy.forget_requests()
    proxy.cut_connections()

    def aged() -> list[int]:
        return [n for n, request in enumerate(list(proxy.requests)) if request.is_aged]

    wait_until(aged, "a watch asks for a version that is gone")
    last = aged()[-1]
    wait_until(
        lambda: any(r.is_watch() and not r.is_aged for r in proxy.requests[last + 1 :]),
        "it is watched again",
    )
    assert any(
        r.method == "GET" and r.path.endswith("/jobs") and not r.is_watch()
        for r in proxy.requests[aged()[0] :]
    )
    share.open()
    assert wait_ended(daemon, "old")["state"] == "COMPLETED"
    assert len([r for r in proxy.requests if r.is_watch()]) < 20  # it does not run in circles
    project.wait_gone(daemon)


def test_a_job_whose_making_was_not_answered_runs_once(
    start: Starter, share: Share, proxy: ApiProxy, project: Project
) -> None:
    daemon = start(kubeconfig=proxy.kubeconfig)
    daemon.run("true", "first", **small())  # all is connected now
    proxy.lose_answers("POST", JOBS)
    reply = daemon.run(shell("echo x >> /share/ran; echo out"), "made", **small(share))
    assert reply.json()["status"] is True, reply.body
    assert wait_ended(daemon, "made")["state"] == "COMPLETED"
    assert re.fullmatch(r"made-\w{5}:out\n", log_of(daemon, "made"))
    project.wait_gone(daemon)
    assert share.lines("ran") == ["x"]


def test_status_never_asks_the_api_server(start: Starter, share: Share, proxy: ApiProxy) -> None:
    daemon = start(kubeconfig=proxy.kubeconfig)
    daemon.run("true", "asked", **small())
    wait_ended(daemon, "asked")
    daemon.run(shell(share.passage), "runs", **small(share))
    wait_running(daemon, "runs")
    proxy.hold()
    for _ in range(20):
        assert daemon.words("asked") == ["finishedSuccessfully"]
        assert daemon.words("runs") == ["started"]
    proxy.heal()
    share.open()
    assert wait_ended(daemon, "runs")["state"] == "COMPLETED"


def test_fifty_jobs_at_once(start: Starter, share: Share, project: Project) -> None:
    daemon = start()

    def submit(n: int) -> bool:
        script = f"echo x >> /share/ran-{n}; echo out-{n}; exit {n % 4}"
        meta = small(share, cpu_limit="50m")
        return bool(daemon.run(shell(script), f"fifty-{n}", **meta).json()["status"])

    with ThreadPoolExecutor(50) as threads:
        assert all(threads.map(submit, range(50)))
    for n in range(50):
        record = wait_ended(daemon, f"fifty-{n}")
        state = "FAILED" if n % 4 else "COMPLETED"
        assert (record["state"], record["exit_code"]) == (state, n % 4), record
        assert re.fullmatch(rf"fifty-{n}-\w{{5}}:out-{n}\n", log_of(daemon, f"fifty-{n}"))
        assert share.lines(f"ran-{n}") == ["x"]
    project.wait_gone(daemon)


# --- /share -----------------------------------------------------------------------------------


class Volumes:
    """Persistent volumes that are folders of the node; a class of storage of our own."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.storage_class = f"{project.name}-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._project = project
        self._names: list[str] = []

    def make(self, *modes: str) -> Path:
        """Make a volume; return its folder."""
        name = f"{self.storage_class}-{len(self._names)}"
        path = self._folder / name
        path.mkdir()
        path.chmod(0o777)
        self._names.append(name)
        spec = {
            "capacity": {"storage": "2Gi"},
            "accessModes": list(modes) or ["ReadWriteOnce"],
            "storageClassName": self.storage_class,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(path)},
        }
        meta = {"name": name}
        self._project.apply(
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": spec}
        )
        return path

    def remove(self) -> None:
        if self._names:
            self._project.kubectl("delete", "persistentvolume", *self._names, "--wait=false")


@pytest.fixture
def volumes(tmp_path: Path, project: Project) -> Iterator[Volumes]:
    made = Volumes(tmp_path, project)
    yield made
    made.remove()


WRITES = shell("echo kept > /share/written && cat /share/written")


def test_storage_empty_dir(start: Starter, project: Project) -> None:
    daemon = start(storage="emptyDir", container_env="kubernetes")  # another name of it
    daemon.run(WRITES, "empty", **small())
    assert wait_ended(daemon, "empty")["state"] == "COMPLETED"
    assert log_of(daemon, "empty").endswith(":kept\n")
    project.wait_gone(daemon)


def test_storage_host_path(start: Starter, project: Project) -> None:
    daemon = start()
    named, unnamed = start.share(), start.base / "key-host-2"
    unnamed.mkdir()
    unnamed.chmod(0o777)
    daemon.run(WRITES, "host-1", **small(named))
    daemon.run(WRITES, "host-2", **small())
    assert wait_ended(daemon, "host-1")["state"] == "COMPLETED"
    assert wait_ended(daemon, "host-2")["state"] == "COMPLETED"
    assert named.lines("written") == ["kept"]
    assert (unnamed / "written").read_text() == "kept\n"
    project.wait_gone(daemon)
    assert named.lines("written") == ["kept"]
    named.close()


def test_storage_existing_claim(start: Starter, volumes: Volumes, project: Project) -> None:
    folder = volumes.make()
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": volumes.storage_class,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    meta = {"name": "shared", "namespace": project.name}
    project.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim}
    )
    daemon = start("--shareClaim", "shared", storage="pvc")
    for jid in ("pvc-1", "pvc-2"):
        daemon.run(WRITES, jid, **small())
    for jid in ("pvc-1", "pvc-2"):
        assert wait_ended(daemon, jid)["state"] == "COMPLETED"
        assert (folder / f"key-{jid}" / "written").read_text() == "kept\n"
    project.wait_gone(daemon)
    assert project.kubectl("get", "pvc", "shared", "-o", "name")
    project.kubectl("delete", "pvc", "shared", "--wait=false")


def test_storage_claim_per_job(start: Starter, volumes: Volumes, project: Project) -> None:
    share = Share(volumes.make())
    flags = ["--storageClass", volumes.storage_class, "--claimSize", "1GiB"]
    daemon = start(*flags, "--claimAccess", "ReadWriteOnce", storage="claim")
    daemon.run(shell(f"echo kept > /share/written; {share.passage}"), "claim", **small())
    wait_running(daemon, "claim")
    (claim,) = project.get("persistentvolumeclaims", job=name_of(daemon, "claim"))
    assert claim["metadata"]["name"] == "claim-storage-claim"
    (owner,) = claim["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Job", "claim")
    share.open()
    assert wait_ended(daemon, "claim")["state"] == "COMPLETED"
    assert share.lines("written") == ["kept"]
    project.wait_gone(daemon)
    share.close()


def test_storage_swift_without_its_secrets(
    start: Starter, volumes: Volumes, project: Project
) -> None:
    volumes.make("ReadWriteMany")
    flags = ["--storageClass", volumes.storage_class, "--pendingTimeout", "10"]
    daemon = start(*flags, "--swiftImage", IMAGE, storage="swift")
    daemon.run("true /share/incoming /share/outgoing", "secrets", **small())
    record = wait_ended(daemon, "secrets")
    assert (record["state"], record["reason"]) == ("FAILED", "config_error")
    assert "swift-credentials" in record["message"] or "kubecfg" in record["message"]
    project.wait_gone(daemon)


@pytest.fixture
def swift_image(tmp_path: Path) -> Iterator[str]:
    """An image that stands in for the one that fetches and publishes data."""
    if swarm_problem():
        pytest.skip(f"no engine to make an image with: {swarm_problem()}")
    name = f"local/swift-stand-in:{uuid.uuid4().hex[:8]}"
    says = "case $1 in get*) echo log of init-storage;; *) echo log of publish;; esac"
    (tmp_path / "python3").write_text(f"#!/bin/sh\n{says}\n")
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY python3 /bin/python3\n")
    subprocess.run(("docker", "build", "-q", "-t", name, tmp_path), capture_output=True, check=True)
    yield name
    subprocess.run(("docker", "image", "rm", "-f", name), capture_output=True, check=False)


def test_storage_swift_shows_the_logs_of_all_containers_as_2_2(
    start: Starter, volumes: Volumes, project: Project, swift_image: str
) -> None:
    """The recording openshift-012: two pods, three containers each."""
    volumes.make("ReadWriteMany")
    for name in ("swift-credentials", "kubecfg"):
        project.kubectl("create", "secret", "generic", name, "--from-literal=x=y")
    flags = ["--storageClass", volumes.storage_class, "--swiftImage", swift_image]
    daemon = start(*flags, storage="swift")
    cmd = f"{shell('echo log of os-1')} /share/incoming /share/outgoing"
    daemon.run(cmd, "os-1", **small(number_of_workers=2))
    assert wait_ended(daemon, "os-1")["state"] == "COMPLETED"
    one = (
        r"os-1-\w{5}:init_container log:log of init-storage\n"
        r"plugin_container log:log of os-1\n"
        r"publish_container log:log of publish\n"
    )
    assert re.fullmatch(one * 2, log_of(daemon, "os-1")), log_of(daemon, "os-1")
    project.wait_gone(daemon)
    project.kubectl("delete", "secret", "swift-credentials", "kubecfg")


# --- memory -----------------------------------------------------------------------------------


def test_memory_stays_level_over_many_jobs(start: Starter, project: Project) -> None:
    """PMAN_MEMORY_JOBS says over how many (20)."""
    daemon = start()
    count = int(os.environ.get("PMAN_MEMORY_JOBS", "20"))

    def run(n: int) -> None:
        meta = small(cpu_limit="50m")
        assert daemon.run("true", f"memory-{n}", **meta).json()["status"] is True
        assert wait_ended(daemon, f"memory-{n}")["state"] == "COMPLETED"

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(run, range(20)))  # all that is made once is made
        before = memory_bytes(daemon.pid)
        list(threads.map(run, range(20, 20 + count)))
    after = memory_bytes(daemon.pid)
    print(f"\n{count} jobs: {before >> 10} KiB before, {after >> 10} KiB after")
    # Records are kept, and what many threads allocate settles only after some 200 jobs.
    assert after - before < 6 * 2**20 + count * 10_000
    assert record_of(daemon, "memory-0")["state"] == "COMPLETED"
    project.wait_gone(daemon)
