"""Jobs on a node of the swarm that is not the one that pman talks to."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_until
from swarm_daemon import Swarm, record_of, services_of
from swarm_harness import Kept, swarm_box
from swarm_lab import ENGINE_DEADLINE_S, LabEngine

from pman.backends._engine.wish import Wish

pytestmark = pytest.mark.slow

#: Waits until it is told to go on, or to end.
WAITING = (
    'sh -c \'trap "echo told; touch /share/told; exit 5" TERM; echo began;'
    " until [ -e /share/go ]; do sleep 0.1; done; echo went; exit 6'"
)


@pytest.fixture
def worker(lab_pair: tuple[LabEngine, LabEngine]) -> LabEngine:
    """The only node of two that takes jobs."""
    manager, worker = lab_pair
    manager.docker("node", "update", "--availability", "drain", manager.name)
    return worker


@pytest.fixture
def daemon(worker: LabEngine, pair_swarm: Swarm) -> DaemonProcess:
    pair_swarm.share.chmod(0o777)
    return pair_swarm.start("--killGrace", "3")


def start(daemon: DaemonProcess, swarm: Swarm, cmd: str, word: str) -> str:
    """Submit a job; return its jid when it has printed something."""
    jid = swarm.jid(word)
    assert swarm.run(daemon, cmd, word).status == 200
    wait_until(lambda: "".join(daemon.status(jid)["l_logs"]), f"output of {word}")
    return jid


def end_of(daemon: DaemonProcess, jid: str) -> dict[str, Any]:
    """Wait for the end of a job; return its record, with its log."""
    daemon.wait_finished(jid)
    (text,) = daemon.status(jid)["l_logs"]
    return {**record_of(daemon, jid), "log": text}


def test_jobs_end_with_their_codes_and_whole_logs(
    daemon: DaemonProcess, pair_swarm: Swarm, worker: LabEngine
) -> None:
    codes = {f"job{code}": code for code in (0, 3, 143)}
    for word, code in codes.items():
        cmd = f"sh -c 'for i in $(seq 5000); do echo {word} $i; done; echo last >&2; exit {code}'"
        assert pair_swarm.run(daemon, cmd, word).status == 200
    for word, code in codes.items():
        end = end_of(daemon, pair_swarm.jid(word))
        assert (end["state"], end["exit_code"]) == ("FAILED" if code else "COMPLETED", code), end
        lines = [f"{word} {number}\n" for number in range(1, 5001)]
        assert end["log"] == "".join([*lines, "last\n"])
    wait_until(lambda: not services_of(daemon), "no service is left")


def test_a_job_that_is_deleted_ends_there(
    daemon: DaemonProcess, pair_swarm: Swarm, worker: LabEngine
) -> None:
    jid = start(daemon, pair_swarm, WAITING, "deleted")
    assert len(worker.docker("container", "ls", "--quiet").split()) == 1
    assert daemon.post("delete", key="jid", value=jid).status == 200
    assert (pair_swarm.share / "told").exists()
    wait_until(lambda: not services_of(daemon), "no service is left")


def test_a_job_that_is_ended_there_keeps_its_log(pair_swarm: Swarm, worker: LabEngine) -> None:
    pair_swarm.share.chmod(0o777)
    with swarm_box() as box:
        order = box.order(*shlex.split(WAITING))
        handle = box.run(order, str(pair_swarm.share))
        view = box.seen(order, handle, lambda view: b"began" in box.engine.peek(view, 100))
        assert box.engine.stop(view, Wish(3.0), Kept()) is False
        view = box.ended(order, handle)
        assert box.collected(view) == {(0, "stdout"): b"began\ntold\n"}


def test_a_job_that_ended_while_pman_was_away_keeps_its_log(
    daemon: DaemonProcess, pair_swarm: Swarm, worker: LabEngine
) -> None:
    jid = start(daemon, pair_swarm, WAITING, "alone")
    daemon.kill()
    (pair_swarm.share / "go").touch()
    wait_until(lambda: not worker.docker("container", "ls", "--quiet"), "the end of the container")
    daemon.start()
    end = end_of(daemon, jid)
    assert (end["state"], end["exit_code"], end["log"]) == ("FAILED", 6, "began\nwent\n")


def test_a_node_that_is_away_is_told_and_its_job_ends_truly_when_it_is_back(
    daemon: DaemonProcess, pair_swarm: Swarm, worker: LabEngine
) -> None:
    jid = start(daemon, pair_swarm, WAITING, "cut")
    worker.kill()
    wait_until(
        lambda: record_of(daemon, jid)["reason"] == "node_lost", "the loss", ENGINE_DEADLINE_S
    )
    record = record_of(daemon, jid)
    assert record["state"] == "RUNNING"
    assert worker.name in record["message"]
    assert daemon.is_alive()
    assert pair_swarm.run(daemon, "sh -c 'echo later'", "later").status == 200
    worker.start()
    end = end_of(daemon, jid)
    assert (end["state"], end["exit_code"], end["log"]) == ("FAILED", 5, "began\ntold\n"), end
    assert end_of(daemon, pair_swarm.jid("later"))["log"] == "later\n"


def test_a_node_that_is_drained_ends_its_job(
    daemon: DaemonProcess,
    pair_swarm: Swarm,
    lab_pair: tuple[LabEngine, LabEngine],
    worker: LabEngine,
) -> None:
    jid = start(daemon, pair_swarm, WAITING, "drained")
    lab_pair[0].docker("node", "update", "--availability", "drain", worker.name)
    end = end_of(daemon, jid)
    assert (end["state"], end["reason"], end["log"]) == ("FAILED", "evicted", "began\ntold\n"), end


def test_a_node_that_is_gone_for_good_is_not_waited_for(
    daemon: DaemonProcess,
    pair_swarm: Swarm,
    lab_pair: tuple[LabEngine, LabEngine],
    worker: LabEngine,
) -> None:
    jid = start(daemon, pair_swarm, WAITING, "gone")
    worker.kill()
    wait_until(
        lambda: record_of(daemon, jid)["reason"] == "node_lost", "the loss", ENGINE_DEADLINE_S
    )
    lab_pair[0].docker("node", "rm", "--force", worker.name)
    end = end_of(daemon, jid)
    assert (end["state"], end["exit_code"]) == ("LOST", None), end
