"""What a client may ask of a container job, through HTTP, with services of a real engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_until
from probes import assert_refused, job_names
from swarm_daemon import (
    Swarm,
    container_of,
    containers,
    docker,
    has_service,
    record_of,
    service,
    services_of,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one_daemon(shared_swarm: Swarm) -> DaemonProcess:
    return shared_swarm.start("--killGrace", "1")


@pytest.fixture
def daemon(one_daemon: DaemonProcess) -> Iterator[DaemonProcess]:
    """The module's daemon; no test leaves a service behind."""
    yield one_daemon
    wait_until(lambda: not services_of(one_daemon), "no service is left")


def wait_running(daemon: DaemonProcess, jid: str) -> None:
    wait_until(lambda: daemon.words(jid) == ["started"], f"{jid} runs")


# --- values that can't be honoured ------------------------------------------------------------

MANAGER_ENV = "container.manager.env"


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("cpu_limit", "abc", "'abc'"),
        ("cpu_limit", "0", "'0'"),
        ("cpu_limit", "-1", "'-1'"),
        ("cpu_limit", 100_000, "100000"),
        ("memory_limit", "1Q", "'1Q'"),
        ("memory_limit", "lots", "'lots'"),
        ("memory_limit", "1k", "1000 bytes"),
        ("gpu_limit", 1, "1"),
        ("gpu_limit", "one", "'one'"),
        ("number_of_workers", 0, "0"),
        ("number_of_workers", "-3", "'-3'"),
        ("number_of_workers", 1_000_000, "1000000"),
        ("env", ["A=1"], "['A=1']"),
        ("env", "A=1", "'A=1'"),
        ("labels", {"pman.job": "x"}, "'pman.job'"),
        ("cmd", "echo 'never ends", "never ends"),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused_by_name(
    daemon: DaemonProcess, shared_swarm: Swarm, field: str, value: Any, shown: str
) -> None:
    before = job_names(daemon)
    meta = {"cmd": "true", field: value}
    reply = shared_swarm.run(daemon, meta.pop("cmd"), "bad", **meta)
    assert_refused(reply, 400, "RequestError", field)
    message = reply.json()["error"]["message"]
    assert field in message
    assert shown in message
    assert job_names(daemon) == before


@pytest.mark.parametrize(
    ("field", "block"),
    [
        (f"{MANAGER_ENV}.shareDir", {"share": "relative/folder"}),
        (f"{MANAGER_ENV}.shareDir", {"shareDir": 5}),
        (f"{MANAGER_ENV}.serviceName", {"serviceName": "no spaces"}),
        (f"{MANAGER_ENV}.serviceName", {"serviceName": "x" * 64}),
        (f"{MANAGER_ENV}.serviceName", {"serviceName": "-x"}),
        (f"{MANAGER_ENV}.serviceName", {"serviceName": {}}),
        ("container.target.image", {"image": ""}),
        ("container.target.image", {"image": "two words"}),
    ],
)
def test_a_block_that_cannot_be_honoured_is_refused_by_name(
    daemon: DaemonProcess, shared_swarm: Swarm, field: str, block: dict[str, Any]
) -> None:
    before = job_names(daemon)
    reply = shared_swarm.run(daemon, "true", "bad", container=shared_swarm.block(**block))
    assert_refused(reply, 400, "RequestError", field)
    assert job_names(daemon) == before


def test_a_block_without_an_image_is_refused(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    reply = shared_swarm.run(daemon, "true", "bad", container={})
    assert_refused(reply, 400, "RequestError", "container.target.image")


def test_an_empty_container_block_is_no_host_job(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    for container in ([], "x", 5, False):
        reply = shared_swarm.run(daemon, "true", "bad", container=container)
        assert_refused(reply, 400, "RequestError", "container")


# --- what is asked for arrives ----------------------------------------------------------------


def test_env_and_labels_arrive(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("env")
    os.mkfifo(shared_swarm.share / "env")
    asked = {"env": {"GREETING": "hello  world", "COUNT": 3}, "labels": {"team": "a"}}
    shared_swarm.run(daemon, "sh -c 'cat /share/env; echo \"$GREETING $COUNT\"'", "env", **asked)
    wait_running(daemon, jid)
    (container,) = containers(jid)
    for labels in (service(jid)["Spec"]["Labels"], container["Config"]["Labels"]):
        assert labels["team"] == "a"
        assert labels["pman.jid"] == jid
        assert labels["pman.job"] == job_names(daemon)[-1]
        assert labels["pman.instance"] == (daemon.db_path / "instance").read_text().strip()
    (shared_swarm.share / "env").write_bytes(b"")
    daemon.wait_finished(jid)
    assert daemon.status(jid)["l_logs"] == ["hello  world 3\n"]


def test_each_worker_has_its_code_and_output(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("three")
    cmd = "sh -c 'mkdir /share/first 2>/dev/null && { echo bad; exit 7; }; echo good'"
    shared_swarm.run(daemon, cmd, "three", number_of_workers="3")
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    shown = daemon.status(jid)
    assert sorted(shown["0.end"]["returncode"]) == [0, 0, 7]
    assert shown["0.start"]["startTrigger"] == [True] * 3
    (log,) = shown["l_logs"]
    assert sorted(log.splitlines()) == ["bad", "good", "good"]
    record = record_of(daemon, jid)
    assert (record["state"], record["exit_code"], record["reason"]) == ("FAILED", 7, "error")


def test_workers_are_replicas(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("replicas")
    shared_swarm.run(daemon, "sleep 60", "replicas", number_of_workers=3)
    wait_until(
        lambda: daemon.status(jid)["0.start"]["startTrigger"] == [True] * 3, "three workers run"
    )
    assert service(jid)["Spec"]["Mode"] == {"Replicated": {"Replicas": 3}}
    assert len(containers(jid)) == 3
    assert daemon.post("delete", value=jid).status == 200
    assert not has_service(jid)


def test_streams_are_told_apart_in_the_tree(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("streams")
    cmd = "sh -c 'echo out; echo err >&2'"
    reply = shared_swarm.run(daemon, cmd, "streams", threaded=False).json()
    assert reply["d_ret"]["l_logs"] == ["out\nerr\n"]
    for field, text in (("stdout", "out\n"), ("stderr", "err\n")):
        found = daemon.post("search", key="jid", value=jid, job="0", field=field).json()
        assert repr(text) in str(found["d_ret"])
    assert container_of(daemon, jid)["logs"] == "out\nerr\n"


def test_large_output_comes_whole(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("large")
    shared_swarm.run(daemon, "seq 1 100000", "large")
    assert daemon.wait_finished(jid) == ["finishedSuccessfully"]
    assert daemon.status(jid)["l_logs"] == ["".join(f"{n}\n" for n in range(1, 100_001))]


def test_run_that_waits_is_answered_with_the_end(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    reply = shared_swarm.run(daemon, "sh -c 'echo out; exit 9'", "waits", threaded=False).json()
    assert reply["status"] is True
    assert reply["d_ret"]["l_status"] == ["finishedWithError"]
    assert reply["d_ret"]["l_logs"] == ["out\n"]
    assert reply["d_ret"]["0.end"]["returncode"] == [9]


def test_idempotent_run_starts_nothing_new(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    cmd = "sh -c 'echo >> /share/runs'"
    for _ in range(3):
        reply = shared_swarm.run(daemon, cmd, "idem", idempotent=True, threaded=False)
        assert reply.json()["d_ret"]["l_status"] == ["finishedSuccessfully"]
    assert (shared_swarm.share / "runs").read_text() == "\n"


@pytest.mark.parametrize("jid", ["Job 1/2", "_", "5.5", "ümlaut", "x" * 100])
def test_any_jid_leads_to_a_name_that_the_engine_takes(
    daemon: DaemonProcess, shared_swarm: Swarm, jid: str
) -> None:
    jid = f"{shared_swarm.jid('')[1:]} {jid}"  # what marks the test run must not be cut off
    reply = daemon.run("echo ran", jid, container=shared_swarm.block(), threaded=False)
    assert reply.status == 200, reply.body
    assert reply.json()["d_ret"]["l_logs"] == ["ran\n"]


# --- the end by other hands -------------------------------------------------------------------


def test_delete_ends_a_running_job_and_removes_its_service(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    jid = shared_swarm.jid("delete")
    cmd = "sh -c 'trap \"echo asked > /share/asked; exit 0\" TERM; while :; do sleep 0.1; done'"
    shared_swarm.run(daemon, cmd, "delete")
    wait_running(daemon, jid)
    (container,) = containers(jid)
    reply = daemon.post("delete", value=jid)
    assert (reply.status, reply.json()["d_ret"]["status"]) == (200, "Job deleted successfully")
    assert not has_service(jid)
    assert (shared_swarm.share / "asked").read_text() == "asked\n"
    assert container["Id"] not in docker("container", "ls", "--no-trunc", "--quiet").split()
    assert daemon.post("status", key="jid", value=jid).json()["status"] is False


def test_delete_forces_what_does_not_listen(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("deaf")
    shared_swarm.run(daemon, "sh -c 'trap \"\" TERM; while :; do sleep 0.1; done'", "deaf")
    wait_running(daemon, jid)
    assert daemon.post("delete", value=jid).status == 200
    assert not has_service(jid)


def test_a_process_that_eats_memory_is_oom_killed(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    jid = shared_swarm.jid("oom")
    shared_swarm.run(daemon, "tail /dev/zero", "oom", memory_limit="16Mi")
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    record = record_of(daemon, jid)
    assert (record["state"], record["reason"]) == ("FAILED", "oom_killed")
    assert (record["exit_code"], record["signal"]) == (137, 9)


# --- the share --------------------------------------------------------------------------------


def test_job_starts_when_its_share_appears(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("later")
    share = shared_swarm.folder / "later"
    shared_swarm.run(
        daemon, "cat /share/data", "later", container=shared_swarm.block(share=f"{share}///")
    )
    assert daemon.words(jid) == ["notstarted"]
    wait_until(lambda: record_of(daemon, jid)["reason"] == "share_missing", "the reason is shown")
    assert str(share) in record_of(daemon, jid)["message"]
    assert not services_of(daemon)
    share.mkdir()
    (share / "data").write_text("came late\n")
    assert daemon.wait_finished(jid) == ["finishedSuccessfully"]
    assert daemon.status(jid)["l_logs"] == ["came late\n"]
    assert record_of(daemon, jid)["reason"] == "ok"


def test_delete_of_a_job_that_waits_for_its_share(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    share = shared_swarm.folder / "never"
    block = shared_swarm.block(share=share)
    shared_swarm.run(daemon, "touch /share/ran", "never", container=block)
    assert daemon.post("delete", value=shared_swarm.jid("never")).status == 200
    share.mkdir()
    shared_swarm.run(daemon, "true", "after", threaded=False)
    assert not (share / "ran").exists()


def test_storebase_is_where_the_engine_has_the_share(swarm: Swarm) -> None:
    base = swarm.folder / "base"
    (base / "key-7").mkdir(parents=True)
    ours = swarm.folder / "seen" / "key-7"
    ours.mkdir(parents=True)
    daemon = swarm.start(environment={"STOREBASE": str(base)})
    block = swarm.block(share=f"{ours}/")
    swarm.run(daemon, "touch /share/made", "base", container=block, threaded=False)
    assert (base / "key-7" / "made").exists()
    assert not (ours / "made").exists()


def test_job_without_a_share(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    block = {"target": {"image": "local/busybox:1"}}
    reply = shared_swarm.run(daemon, "ls -d /share", "bare", container=block, threaded=False)
    assert reply.json()["d_ret"]["l_status"] == ["finishedWithError"]


def test_many_jobs_at_once_end_right(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    count = 20
    for n in range(count):
        reply = shared_swarm.run(daemon, f"sh -c 'echo {n}; exit {n % 3}'", f"many{n}")
        assert reply.status == 200, reply.body
    for n in range(count):
        jid = shared_swarm.jid(f"many{n}")
        daemon.wait_finished(jid)
        shown = daemon.status(jid)
        assert shown["0.end"]["returncode"] == [n % 3]
        assert shown["l_logs"] == [f"{n}\n"]


def test_finished_service_stays_as_long_as_it_is_asked_to(swarm: Swarm) -> None:
    daemon = swarm.start("--keepFinished", "3600")
    swarm.run(daemon, "true", "kept", threaded=False)
    assert services_of(daemon)
    assert daemon.post("delete", value=swarm.jid("kept")).status == 200
    assert not services_of(daemon)
