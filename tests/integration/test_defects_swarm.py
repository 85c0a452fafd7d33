"""Defects of pman 2.2 that concern Docker Swarm: one test a defect, the number in the name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import DaemonProcess, Reply, wait_until
from probes import assert_refused, job_names
from swarm_daemon import (
    IMAGE,
    EngineProxy,
    Swarm,
    build_manager,
    container_of,
    containers,
    docker,
    record_of,
    service,
    services_of,
)

pytestmark = pytest.mark.slow

NAME_FIELD = "container.manager.env.serviceName"

#: Every word that a client may see, in the order in which they may follow each other.
WORDS = ("notstarted", "started", "finishedSuccessfully", "finishedWithError")


@pytest.fixture(scope="module")
def one_daemon(shared_swarm: Swarm) -> DaemonProcess:
    """A daemon with one listener to lose, which does not wait long for what can't start."""
    return shared_swarm.start("--listeners", "1", "--pendingTimeout", "2", "--killGrace", "0")


@pytest.fixture
def daemon(one_daemon: DaemonProcess) -> Iterator[DaemonProcess]:
    """The module's daemon; no test leaves a service behind."""
    yield one_daemon
    assert one_daemon.is_alive()
    wait_until(lambda: not services_of(one_daemon), "no service is left")


def poll(daemon: DaemonProcess, jid: str, count: int) -> list[str]:
    """Ask for the status so often, as a client does that waits; return the words."""
    replies = [daemon.post("status", key="jid", value=jid).json() for _ in range(count)]
    assert all(reply["status"] is True for reply in replies)
    words = [word for reply in replies for word in reply["d_ret"]["l_status"]]
    assert len(words) == count
    assert set(words) <= set(WORDS)
    assert [WORDS.index(word) for word in words] == sorted(WORDS.index(word) for word in words)
    return words


def codes(daemon: DaemonProcess, jid: str) -> list[int]:
    """Return the exit codes of the containers of the only job with that jid."""
    found: list[int] = daemon.status(jid)["0.end"]["returncode"]
    return found


def printed(daemon: DaemonProcess, jid: str) -> str:
    """Return what the only job with that jid has printed."""
    (text,) = daemon.status(jid)["l_logs"]
    return text  # type: ignore[no-any-return]


def wait_running(daemon: DaemonProcess, jid: str) -> None:
    wait_until(lambda: daemon.words(jid) == ["started"], f"{jid} runs")


# --- 11: tasks that the engine rejects --------------------------------------------------------


def test_defect_11_missing_image_fails_after_the_pending_timeout(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    jid = shared_swarm.jid("noimg")
    block = shared_swarm.block(image="local/nosuch:9")
    shared_swarm.run(daemon, "true", "noimg", container=block)
    poll(daemon, jid, 50)
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    assert poll(daemon, jid, 50) == ["finishedWithError"] * 50
    record = record_of(daemon, jid)
    assert (record["state"], record["reason"]) == ("FAILED", "image_pull_failed")
    assert "local/nosuch:9" in record["message"]
    assert codes(daemon, jid) == []


def test_defect_11_missing_image_shows_its_reason_while_it_waits(swarm: Swarm) -> None:
    daemon = swarm.start("--listeners", "1")
    jid = swarm.jid("noimg")
    swarm.run(daemon, "true", "noimg", container=swarm.block(image="local/nosuch:9"))
    wait_until(lambda: record_of(daemon, jid)["reason"] == "image_pull_failed", "the reason")
    assert poll(daemon, jid, 50) == ["notstarted"] * 50
    assert "local/nosuch:9" in record_of(daemon, jid)["message"]
    assert daemon.post("delete", value=jid).status == 200


def test_defect_11_share_that_never_comes_fails_after_the_pending_timeout(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    jid = shared_swarm.jid("noshare")
    block = shared_swarm.block(share="/nosuch/share")
    shared_swarm.run(daemon, "true", "noshare", container=block)
    assert set(poll(daemon, jid, 50)) == {"notstarted"}
    assert "/nosuch/share" in record_of(daemon, jid)["message"]
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    record = record_of(daemon, jid)
    assert (record["state"], record["reason"]) == ("FAILED", "share_missing")
    assert "/nosuch/share" in record["message"]


def test_defect_11_share_that_the_engine_does_not_have_fails(swarm: Swarm) -> None:
    daemon = swarm.start("--listeners", "1", environment={"STOREBASE": "/nosuch"})
    jid = swarm.jid("elsewhere")
    swarm.run(daemon, "true", "elsewhere")
    poll(daemon, jid, 50)
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    assert poll(daemon, jid, 50) == ["finishedWithError"] * 50
    record = record_of(daemon, jid)
    assert (record["state"], record["reason"]) == ("FAILED", "rejected")
    assert "/nosuch/share" in record["message"]


# --- 12: what is gone -------------------------------------------------------------------------


def test_defect_12_service_removed_by_somebody(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("gone")
    shared_swarm.run(daemon, "sleep 60", "gone")
    wait_running(daemon, jid)
    docker("service", "rm", jid)
    poll(daemon, jid, 50)
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    record = record_of(daemon, jid)
    assert (record["state"], record["reason"]) == ("LOST", "lost")
    assert "service" in record["message"]


def test_defect_12_container_removed_by_somebody(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    jid = shared_swarm.jid("cgone")
    shared_swarm.run(daemon, "sleep 60", "cgone")
    wait_running(daemon, jid)
    (container,) = containers(jid)
    docker("container", "rm", "--force", container["Id"])
    poll(daemon, jid, 50)
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    record = record_of(daemon, jid)
    assert (record["state"], record["exit_code"], record["signal"]) == ("FAILED", 137, 9)


def test_defect_12_engine_away_and_back(swarm: Swarm) -> None:
    proxy = EngineProxy(swarm.folder / "engine.sock")
    daemon = swarm.start("--listeners", "1", environment={"DOCKER_HOST": proxy.url})
    jid = swarm.jid("away")
    os.mkfifo(swarm.share / "gate")
    swarm.run(daemon, "sh -c 'echo before; cat /share/gate; echo after; exit 3'", "away")
    wait_running(daemon, jid)

    proxy.cut()
    assert poll(daemon, jid, 50) == ["started"] * 50
    reply = wait_until(
        lambda: _refused_run(swarm, daemon), "the daemon notices that the engine is away"
    )
    assert_refused(reply, 503, "BackendUnavailable")
    assert "docker" in reply.json()["error"]["message"].lower()
    assert daemon.run("exit 4", "host").status == 200
    assert daemon.wait_finished("host") == ["finishedWithError"]
    assert poll(daemon, jid, 5) == ["started"] * 5
    (swarm.share / "gate").write_bytes(b"")  # it ends while nobody can see it

    proxy.mend()
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    assert codes(daemon, jid) == [3]
    assert printed(daemon, jid) == "before\nafter\n"
    swarm.check_left()
    proxy.cut()


def _refused_run(swarm: Swarm, daemon: DaemonProcess) -> Reply | None:
    reply = swarm.run(daemon, "true", "refused")
    return reply if reply.status != 200 else None


# --- 13: one jid, several jobs ----------------------------------------------------------------


def test_defect_13_two_jobs_with_one_jid(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("dup")
    for name, cmd in (("dup1", "echo first"), ("dup2", "sh -c 'echo second; exit 3'")):
        block = shared_swarm.block(serviceName=shared_swarm.jid(name))
        assert shared_swarm.run(daemon, cmd, "dup", container=block).status == 200
    for _ in range(50):
        assert len(daemon.words(jid)) == 2
    assert daemon.wait_finished(jid) == ["finishedSuccessfully", "finishedWithError"]
    shown = daemon.status(jid)
    assert shown["l_logs"] == ["first\n", "second\n"]
    assert [shown[f"{n}.end"]["returncode"] for n in (0, 1)] == [[0], [3]]
    for n, name in enumerate(("dup1", "dup2")):
        (tree,) = shown[f"{n}.container"]["tree"].values()
        assert tree["container"]["manager"]["env"]["serviceName"] == shared_swarm.jid(name)
        assert tree["container"]["state"]["Status"]["ContainerStatus"]["ExitCode"] == 3 * n


def test_defect_13_a_jid_again_once_its_job_has_ended(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    jid = shared_swarm.jid("again")
    for code in range(3):
        reply = shared_swarm.run(daemon, f"sh -c 'echo {code}; exit {code}'", "again")
        assert reply.status == 200, reply.body
        daemon.wait_finished(jid)
    shown = daemon.status(jid)
    assert shown["l_status"] == ["finishedSuccessfully", "finishedWithError", "finishedWithError"]
    assert shown["l_logs"] == ["0\n", "1\n", "2\n"]


# --- 25, 26, 32: what must not run, and where -------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "trap"),
    [
        ("substitution", "$(touch {0})"),
        ("backquotes", "`touch {0}`"),
        ("semicolon", "; touch {0}"),
        ("and", "&& touch {0}"),
        ("pipe", "| tee {0}"),
        ("redirection", "> {0}"),
        ("quotes", "'\"; touch {0} #'"),
    ],
)
def test_defect_25_no_shell_of_the_host_reads_the_command(
    daemon: DaemonProcess, shared_swarm: Swarm, tmp_path: Path, kind: str, trap: str
) -> None:
    trap = trap.format(tmp_path / "pwned")
    reply = shared_swarm.run(daemon, f"echo {trap}", kind, threaded=False)
    assert reply.json()["d_ret"]["l_status"] == ["finishedSuccessfully"]
    assert printed(daemon, shared_swarm.jid(kind)) == trap.replace("'", "") + "\n"
    assert not (tmp_path / "pwned").exists()
    assert not (shared_swarm.folder / "pwned").exists()


def test_defect_26_run_that_waits_runs_in_the_container(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    (shared_swarm.share / "marker").write_text("in the container\n")
    reply = shared_swarm.run(daemon, "cat /share/marker", "waits", threaded=False).json()
    assert reply["status"] is True
    shown = reply["d_ret"]
    assert shown["l_status"] == ["finishedSuccessfully"]
    assert shown["l_logs"] == ["in the container\n"]
    assert shown["0.end"]["returncode"] == [0]
    assert shown["0.container"]["tree"] is not None
    assert record_of(daemon, shared_swarm.jid("waits"))["backend"] == "swarm"


#: A command whose words would be options, quotes and commands to somebody who pastes them.
QUOTES = r"""printf '%s|' "a b" 'c"d' "e'f" '" -i evil -c "touch /tmp/x' '$(id)' -c --state ''"""
QUOTED = """a b|c"d|e'f|" -i evil -c "touch /tmp/x|$(id)|-c|--state||"""


@pytest.fixture(scope="module")
def managed_daemon(shared_swarm: Swarm) -> DaemonProcess:
    """A daemon that has the manager image make the services, as 2.2 does."""
    build_manager()
    return shared_swarm.start(
        "--swarmManager", "container", "--pendingTimeout", "2", name="managed"
    )


@pytest.fixture(params=["one_daemon", "managed_daemon"], ids=["native", "container"])
def either(request: pytest.FixtureRequest) -> Iterator[DaemonProcess]:
    """A daemon for each of the two ways of making services."""
    found: DaemonProcess = request.getfixturevalue(request.param)
    yield found
    wait_until(lambda: not services_of(found), "no service is left")


def test_defect_32_quotes_in_the_command(either: DaemonProcess, shared_swarm: Swarm) -> None:
    reply = shared_swarm.run(either, QUOTES, "quotes", threaded=False)
    assert reply.status == 200, reply.body
    assert reply.json()["d_ret"]["l_logs"] == [QUOTED]


def test_defect_32_quotes_in_the_share(either: DaemonProcess, shared_swarm: Swarm) -> None:
    share = shared_swarm.folder / """sh" -i evil 'are"""
    share.mkdir(exist_ok=True)
    (share / "marker").write_text("here\n")
    block = shared_swarm.block(share=share)
    reply = shared_swarm.run(either, "cat /share/marker", "qshare", container=block, threaded=False)
    assert reply.status == 200, reply.body
    assert reply.json()["d_ret"]["l_logs"] == ["here\n"]


@pytest.mark.parametrize("name", ['x" -i evil "', "x; touch y", "--remove", "a b", "a/../b", "é"])
def test_defect_32_quotes_in_the_name_of_the_service(
    either: DaemonProcess, shared_swarm: Swarm, name: str
) -> None:
    before = job_names(either)
    block = shared_swarm.block(serviceName=name)
    reply = shared_swarm.run(either, "true", "qname", container=block)
    assert_refused(reply, 400, "RequestError", NAME_FIELD)
    assert job_names(either) == before


@pytest.mark.parametrize("image", [f'{IMAGE}" -c "touch /tmp/x', f"{IMAGE} -c true", "--remove"])
def test_defect_32_quotes_in_the_image(
    either: DaemonProcess, shared_swarm: Swarm, image: str
) -> None:
    block = shared_swarm.block(image=image)
    reply = shared_swarm.run(either, "true", "qimage", container=block)
    assert_refused(reply, 400, "RequestError", "container.target.image")


# --- 37, 38, 40: words ------------------------------------------------------------------------


def test_defect_37_the_record_and_its_word_are_there_when_run_is_answered(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    for n in range(10):
        shared_swarm.run(daemon, "true", f"soon{n}")
        jid = shared_swarm.jid(f"soon{n}")
        words = poll(daemon, jid, 20)
        assert words[0] in ("notstarted", "started")
    for n in range(10):
        assert daemon.wait_finished(shared_swarm.jid(f"soon{n}")) == ["finishedSuccessfully"]


def _binary_missing(swarm: Swarm, daemon: DaemonProcess, word: str) -> None:
    swarm.run(daemon, "/nosuch/binary", word)


def _scaled_away(swarm: Swarm, daemon: DaemonProcess, word: str) -> None:
    swarm.run(daemon, "sleep 60", word)
    wait_running(daemon, swarm.jid(word))
    docker("service", "scale", "--detach", f"{swarm.jid(word)}=0")


@pytest.mark.parametrize("end", [_binary_missing, _scaled_away])
def test_defect_38_every_end_is_a_finished_word(
    daemon: DaemonProcess,
    shared_swarm: Swarm,
    end: Callable[[Swarm, DaemonProcess, str], None],
) -> None:
    word = end.__name__.strip("_").replace("_", "-")
    end(shared_swarm, daemon, word)
    jid = shared_swarm.jid(word)
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    record = record_of(daemon, jid)
    assert record["reason"]
    assert record["message"]


def test_defect_38_a_task_that_was_replaced_is_not_the_end(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    cmd = "sh -c 'test -e /share/second || { touch /share/second; sleep 60; }'"
    shared_swarm.run(daemon, cmd, "updated")
    wait_until((shared_swarm.share / "second").exists, "the first task is at work")
    docker("service", "update", "--detach", "--force", shared_swarm.jid("updated"))
    assert daemon.wait_finished(shared_swarm.jid("updated")) == ["finishedSuccessfully"]


def test_defect_40_state_and_code_are_those_of_the_container(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    jid = shared_swarm.jid("code")
    os.mkfifo(shared_swarm.share / "code")
    shared_swarm.run(daemon, "sh -c 'cat /share/code; exit 5'", "code")
    wait_running(daemon, jid)
    assert container_of(daemon, jid)["currentState"] == "started"
    assert codes(daemon, jid) == []
    (shared_swarm.share / "code").write_bytes(b"")
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    assert codes(daemon, jid) == [5]
    assert container_of(daemon, jid)["currentState"] == "finishedWithError"
    assert record_of(daemon, jid)["exit_code"] == 5
    ended = daemon.post("search", key="jid", value=jid, job="0", field="returncode").json()
    assert "5" in str(ended["d_ret"])


# --- 39: what can't be scheduled --------------------------------------------------------------


def test_defect_39_name_of_a_service_that_is_not_ours(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    name = shared_swarm.jid("foreign")
    docker("service", "create", "--detach", "--name", name, IMAGE, "sleep", "60")
    try:
        before = job_names(daemon)
        block = shared_swarm.block(serviceName=name)
        reply = shared_swarm.run(daemon, "true", "wants-foreign", container=block)
        assert_refused(reply, 409, "JobConflict", NAME_FIELD)
        assert name in reply.json()["error"]["message"]
        assert_refused(shared_swarm.run(daemon, "true", "foreign"), 409, "JobConflict", "jid")
        assert job_names(daemon) == before
        assert service(name)["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"] == ["sleep", "60"]
    finally:
        docker("service", "rm", name)


def test_defect_39_name_that_differs_in_its_letters_case_only(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    """The engine takes them for the same, but does not find one by the other."""
    jid = shared_swarm.jid("case")
    shared_swarm.run(daemon, "sleep 60", "case")
    wait_running(daemon, jid)
    before = job_names(daemon)
    block = shared_swarm.block(serviceName=jid.title())
    reply = shared_swarm.run(daemon, "true", "other", container=block)
    assert_refused(reply, 409, "JobConflict", NAME_FIELD)
    assert job_names(daemon) == before
    assert daemon.post("delete", value=jid).status == 200


def test_defect_39_name_of_a_job_that_runs(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    jid = shared_swarm.jid("busy")
    shared_swarm.run(daemon, "sleep 60", "busy")
    wait_running(daemon, jid)
    before = job_names(daemon)
    assert_refused(shared_swarm.run(daemon, "true", "busy"), 409, "JobConflict", "jid")
    block = shared_swarm.block(serviceName=jid)
    reply = shared_swarm.run(daemon, "true", "other", container=block)
    assert_refused(reply, 409, "JobConflict", NAME_FIELD)
    assert job_names(daemon) == before
    assert daemon.words(jid) == ["started"]
    assert daemon.post("delete", value=jid).status == 200


def test_defect_39_manager_missing(managed_daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    block = shared_swarm.block(manager="local/nomanager:1")
    reply = shared_swarm.run(managed_daemon, "true", "nomgr", container=block)
    assert_refused(reply, reply.status)
    assert reply.status in (400, 502)
    assert "local/nomanager:1" in reply.json()["error"]["message"]
    block = shared_swarm.block()
    del block["manager"]["app"]
    reply = shared_swarm.run(managed_daemon, "true", "noapp", container=block)
    assert_refused(reply, 400, "RequestError", "container.manager.image")


@pytest.mark.parametrize("threaded", [True, False])
def test_defect_39_engine_down(swarm: Swarm, threaded: bool) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{swarm.folder}/nosuch.sock"}
    daemon = swarm.start("--listeners", "1", environment=nowhere)
    reply = swarm.run(daemon, "true", "down", threaded=threaded)
    assert_refused(reply, 503, "BackendUnavailable")
    assert "nosuch.sock" in reply.json()["error"]["message"]
    assert job_names(daemon) == []
    daemon.run("true", "host")
    assert daemon.wait_finished("host") == ["finishedSuccessfully"]


# --- 41: limits, entry points, quotes ---------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "cpu", "memory"),
    [
        ({"cpu_limit": "500m", "memory_limit": "64Mi"}, 500_000_000, 64 << 20),
        ({"cpu_limit": "1000", "memory_limit": "200"}, 1_000_000_000, 200 << 20),
        ({"cpu_limit": 250, "memory_limit": "100M"}, 250_000_000, 100_000_000),
        ({}, 0, 0),
    ],
)
def test_defect_41_limits_are_applied(
    daemon: DaemonProcess, shared_swarm: Swarm, asked: dict[str, Any], cpu: int, memory: int
) -> None:
    jid = shared_swarm.jid("limits")
    shared_swarm.run(daemon, "sleep 60", "limits", **asked)
    wait_running(daemon, jid)
    (container,) = containers(jid)
    limits = container["HostConfig"]
    assert (limits["NanoCpus"], limits["Memory"]) == (cpu, memory)
    assert daemon.post("delete", value=jid).status == 200


def test_defect_41_double_quotes_are_kept(daemon: DaemonProcess, shared_swarm: Swarm) -> None:
    cmd = 'sh -c "echo \\"a  b\\"; echo c"'
    reply = shared_swarm.run(daemon, cmd, "double", threaded=False)
    assert reply.json()["d_ret"]["l_logs"] == ["a  b\nc\n"]


def test_defect_41_entry_point_stays_without_a_command(
    daemon: DaemonProcess, shared_swarm: Swarm
) -> None:
    """The command replaces the entry point, as in 2.2; no command leaves it."""
    image = shared_swarm.jid("local/entry")
    _build(image, f'FROM {IMAGE}\nENTRYPOINT ["echo", "entry"]\nCMD ["default"]\n')
    try:
        block = shared_swarm.block(image=image)
        reply = shared_swarm.run(daemon, "", "entry", container=block, threaded=False)
        assert reply.json()["d_ret"]["l_logs"] == ["entry default\n"]
        reply = shared_swarm.run(daemon, "echo mine", "entry2", container=block, threaded=False)
        assert reply.json()["d_ret"]["l_logs"] == ["mine\n"]
    finally:
        wait_until(lambda: not services_of(daemon), "no service is left")
        docker("image", "rm", "--force", image)


def _build(image: str, dockerfile: str) -> None:
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", image, "-"],
        input=dockerfile,
        text=True,
        check=True,
        capture_output=True,
        timeout=120,
    )
