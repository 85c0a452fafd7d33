"""An engine that is missing, refuses us, has no swarm, is frozen, or holds what is not ours."""

from __future__ import annotations

import time

import pytest
from daemon_process import DaemonProcess, Reply, wait_until
from probes import assert_refused
from swarm_daemon import IMAGE, Swarm, docker, record_of
from swarm_lab import LabEngine

pytestmark = pytest.mark.slow

#: A frozen engine is noticed when it has let a request wait for this long, seconds.
SILENCE_S = 60.0

#: root without these must obey the modes of files, as any user.
WITHOUT_ROOT = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")

WORKS = "sh -c 'echo works; exit 3'"


def refusal(reply: Reply) -> str:
    """Return what a client is told that can't be served now."""
    assert_refused(reply, 503, "BackendUnavailable")
    message: str = reply.json()["error"]["message"]
    return message


def check_refused(reply: Reply, *words: str) -> None:
    message = refusal(reply)
    assert all(word in message for word in words), message


def check_runs(daemon: DaemonProcess, swarm: Swarm, word: str) -> None:
    """Look whether a job runs, as soon as the engine is known to be back."""
    wait_until(lambda: swarm.run(daemon, WORKS, word).status == 200, "a job is taken")
    assert daemon.wait_finished(swarm.jid(word)) == ["finishedWithError"]
    record = record_of(daemon, swarm.jid(word))
    assert (record["state"], record["exit_code"]) == ("FAILED", 3)
    assert daemon.status(swarm.jid(word))["l_logs"] == ["works\n"]


def check_lives(daemon: DaemonProcess) -> None:
    """Look whether the daemon and the host backend do as usual."""
    assert daemon.is_alive()
    jid = f"host-{time.monotonic()}"
    assert daemon.run("exit 4", jid).status == 200
    assert daemon.wait_finished(jid) == ["finishedWithError"]


# --- at the start ---------------------------------------------------------------------------


def test_without_a_socket_pman_says_so_and_goes_on_when_it_is_there(
    lab_swarm: Swarm, lab: LabEngine
) -> None:
    lab.stop()
    daemon = lab_swarm.start()
    check_refused(lab_swarm.run(daemon, WORKS, "early"), "no socket at", str(lab.socket_path))
    check_lives(daemon)
    lab.start()
    check_runs(daemon, lab_swarm, "late")


def test_without_permission_pman_says_so_and_goes_on_when_it_has_it(
    lab_swarm: Swarm, lab: LabEngine
) -> None:
    """The socket belongs to somebody else, and nobody else may use it."""
    lab.chown_socket(uid=1000, mode=0o600)
    daemon = lab_swarm.start(is_started=False)
    daemon.command = [*WITHOUT_ROOT, *daemon.command]
    daemon.start()
    check_refused(lab_swarm.run(daemon, WORKS, "early"), "permission", str(lab.socket_path))
    check_lives(daemon)
    lab.chown_socket(uid=0, mode=0o600)
    check_runs(daemon, lab_swarm, "late")


def test_without_a_swarm_pman_says_what_to_do_and_goes_on_when_it_is_done(
    lab_swarm: Swarm, lab: LabEngine
) -> None:
    lab.leave_swarm()
    daemon = lab_swarm.start()
    check_refused(lab_swarm.run(daemon, WORKS, "early"), "docker swarm init")
    check_lives(daemon)
    lab.init_swarm()
    check_runs(daemon, lab_swarm, "late")


def test_a_swarm_that_is_gone_takes_its_jobs_along(lab_swarm: Swarm, lab: LabEngine) -> None:
    daemon = lab_swarm.start()
    assert lab_swarm.run(daemon, "sleep 1000", "gone").status == 200
    wait_until(lambda: daemon.words(lab_swarm.jid("gone")) == ["started"], "a running job")
    lab.leave_swarm()
    wait_until(
        lambda: lab_swarm.run(daemon, WORKS, "refused").status == 503,
        "the loss is known",
        SILENCE_S,
    )
    assert daemon.words(lab_swarm.jid("gone")) == ["started"]
    lab.init_swarm()
    assert daemon.wait_finished(lab_swarm.jid("gone")) == ["finishedWithError"]
    record = record_of(daemon, lab_swarm.jid("gone"))
    assert (record["state"], record["reason"]) == ("LOST", "lost")
    check_runs(daemon, lab_swarm, "late")


# --- in the middle --------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["stop", "kill", "freeze"])
def test_pman_goes_on_while_the_engine_is_away(
    lab_swarm: Swarm, lab: LabEngine, trouble: str
) -> None:
    daemon = lab_swarm.start()
    jid = lab_swarm.jid("running")
    lab_swarm.share.chmod(0o777)
    cmd = "sh -c 'trap \"exit 6\" TERM; until [ -e /share/go ]; do sleep 0.1; done; exit 6'"
    assert lab_swarm.run(daemon, cmd, "running").status == 200
    wait_until(lambda: daemon.words(jid) == ["started"], "a running job")
    getattr(lab, trouble)()
    assert daemon.words(jid) == ["started"]
    check_lives(daemon)
    # While it stops, an engine says that it has no swarm.
    wait_until(
        lambda: "docker engine" in refusal(lab_swarm.run(daemon, WORKS, "early")), "the true reason"
    )
    assert daemon.words(jid) == ["started"]
    (lab_swarm.share / "go").touch()
    if trouble == "freeze":
        lab.thaw()
    else:
        lab.start()
    assert daemon.wait_finished(jid) == ["finishedWithError"]
    check_runs(daemon, lab_swarm, "late")


# --- objects without a job ------------------------------------------------------------------


def add_service(name: str, **labels: str) -> None:
    """Make a service that does nothing, past pman."""
    words = [word for key, value in labels.items() for word in ("--label", f"pman.{key}={value}")]
    docker(
        "service", "create", "--quiet", "--detach", "--name", name, *words, IMAGE, "sleep", "1000"
    )


def names() -> set[str]:
    return set(docker("service", "ls", "--format", "{{.Name}}").split())


def check_only_the_orphan_goes() -> None:
    """Wait until our service without a job is gone, and look that nobody else's is."""
    docker("node", "update", "--label-add", "looked=at", "lab")  # an event: pman looks at all
    wait_until(lambda: "orphan" not in names(), "the orphan is gone")
    assert names() == {"somebodys", "neighbours"}


@pytest.mark.parametrize("is_there_at_start", [True, False])
def test_a_service_of_ours_without_a_job_is_removed_and_nobody_elses_is(
    lab_swarm: Swarm, is_there_at_start: bool
) -> None:
    daemon = lab_swarm.start("--orphanGrace", "1")
    instance = (daemon.db_path / "instance").read_text().strip()
    if is_there_at_start:
        daemon.stop()
    add_service("somebodys")
    add_service("neighbours", instance="another", jid="1", job="x_1")
    add_service("orphan", instance=instance, jid="1", job="x_1")
    if is_there_at_start:
        daemon.start()
    check_only_the_orphan_goes()


def test_a_service_of_ours_without_a_job_is_left_alone_for_a_while(lab_swarm: Swarm) -> None:
    daemon = lab_swarm.start("--orphanGrace", "1000")
    instance = (daemon.db_path / "instance").read_text().strip()
    add_service("orphan", instance=instance, jid="1", job="x_1")
    check_runs(daemon, lab_swarm, "meanwhile")
    assert "orphan" in names()
    docker("service", "rm", "orphan")
