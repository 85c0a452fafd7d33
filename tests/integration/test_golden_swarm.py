"""Every recorded exchange of 2.2's swarm mode, replayed in order with services of a real engine.

`OVERRULED` is the whole list of differences: which exchange, which line of the design says so, and
what is to be seen instead. What 2.2 did not answer at all is in it, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import golden_replay as golden
import pytest
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, Reply, wait_until
from engines import need_swarm
from golden_replay import Overrule, error_like
from swarm_daemon import (
    MANAGER_IMAGE,
    Swarm,
    build_manager,
    containers,
    docker,
    service,
    swarm_below,
)

pytestmark = pytest.mark.slow

ORDER = golden.names("swarm")
SERVICE_OBJECT = "swarm-010-service-object"
DB_LAYOUT = "swarm-041-db-layout"

#: The first recording made with a daemon of one listener, and one that gives up soon here.
SECOND_DAEMON = "swarm-050-run-container-not-threaded"
#: Recorded with an engine that can't be reached, and with STOREBASE.
UNREACHABLE = "swarm-064-status-run-with-engine-unreachable"
STOREBASE = "swarm-070-run-with-STOREBASE"

#: A job that lasted 20 s waits here until it is told to end; two words without quotes, as before.
LASTS, WAITS = "sleep 20", "cat /share/gate"

#: Where the job's share folder is said to be in recordings.
SHARE = "/tmp/share/key-1"

AS_RECORDED = "spelled as 2.2 spells it"
ENDED = "row 9.2, 14: the containers' own codes, one per worker; the job's own words"
NO_ECHO = "row 9.2, 14: read from memory; no echo job"
NO_TTY = "row 14.2: no TTY, so lines end as the command ends them; " + ENDED
AT_ONCE = "row 9.2, 14.1: the record is there when run is answered, notstarted until it starts"
NO_REPLY = "row 7 with DEFECTS 11 to 13: status killed a listener, and is answered"
REFUSED = "row 4.2, 14.1: what can be refused at once is refused (400, 409, 503)"
NATIVE = "Backends, swarm: native records the manager and does the same itself"

TREE = "$.d_ret.0.container.tree.J0.container"
RECORDED_MANAGER = "fnndsc/swarm"

NO_MATCH = {"0.container", "0.start", "0.end", "l_status", "l_logs"}


def task_like(state: str, code: int, *command: str) -> Callable[[Any], bool]:
    """Return what looks for the engine's object of a task that has ended."""

    def look(task: Any) -> bool:
        status, spec = task["Status"], task["Spec"]["ContainerSpec"]
        return (
            (status["State"], status["ContainerStatus"]["ExitCode"]) == (state, code)
            and spec["Image"] == "local/busybox:1"
            and spec["Command"] == list(command)
            and spec["Mounts"] == [{"Type": "bind", "Source": SHARE, "Target": "/share"}]
            and task["Spec"]["RestartPolicy"]["Condition"] == "none"
            and task.keys() >= {"ID", "CreatedAt", "ServiceID", "Slot", "NodeID", "DesiredState"}
        )

    return look


def listing(text: str) -> bool:
    """Look for what `ls -la` prints of an empty folder."""
    lines = text.split("\n")
    return (
        lines[0].startswith("total ")
        and [line.rsplit(" ", 1)[-1] for line in lines[1:3]] == [".", ".."]
        and len(lines) == 4
        and lines[3] == ""
    )


#: Words of a job whose container has not started, or just so.
NOT_YET = (["notstarted"], ["started"])


def ended(word: str, code: int | None, logs: Any) -> dict[str, Any]:
    """Return the values of `status` of a job that has ended."""
    return {
        f"{TREE}.currentState": word,
        f"{TREE}.logs": logs,
        "$.d_ret.l_status": [word],
        "$.d_ret.l_logs": lambda v: len(v) == 1 and (logs(v[0]) if callable(logs) else v == [logs]),
        "$.d_ret.0.end.returncode": [] if code is None else [code],
    }


COMPLETE = {
    **ended("finishedSuccessfully", 0, ""),
    f"{TREE}.state": task_like("complete", 0, *LASTS.split()),
}

TWO_OF_ONE_JID = {
    f"$.d_ret.{n}.{path}": value
    for n, (jid, state, code, command, logs) in enumerate(
        [
            ("dup1", "complete", 0, ["echo", "first"], "first\n"),
            ("dup2", "failed", 1, ["ls", "/nope"], "ls: /nope: No such file or directory\n"),
        ]
    )
    for path, value in {
        f"container.tree.J{n}.container.state": task_like(state, code, *command),
        f"container.tree.J{n}.container.logs": logs,
        f"container.tree.J{n}.container.currentState": (
            "finishedWithError" if code else "finishedSuccessfully"
        ),
        f"container.tree.J{n}.container.manager.env.serviceName": jid,
        "end.returncode": [code],
    }.items()
} | {
    "$.d_ret.l_status": ["finishedSuccessfully", "finishedWithError"],
    "$.d_ret.l_logs": ["first\n", "ls: /nope: No such file or directory\n"],
}

OVERRULED: dict[str, Overrule] = {
    "swarm-002-status-before-scheduled": Overrule(
        AT_ONCE,
        values={
            "$.status": True,
            "$.d_ret": lambda v: v.keys() == NO_MATCH and v["l_status"] in NOT_YET,
        },
    ),
    "swarm-003-status-running": Overrule(NO_ECHO, values={"$.d_ret.0.end.returncode": []}),
    "swarm-004-done-running": Overrule(NO_ECHO, values={"$.d_ret.0.end.returncode": []}),
    "swarm-005-info-running": Overrule(
        NO_ECHO,
        values={
            "$.d_ret.0.0.J0.startInfo": lambda v: (
                v["0"]["cmd"] == LASTS and v["0"]["done"] is False and v["0"]["started"] is True
            ),
            "$.d_ret.0.1.J0.endInfo": False,
        },
    ),
    "swarm-007-status-finished": Overrule(
        "row 9.2: read from memory, so the state and the logs are shown at once", values=COMPLETE
    ),
    "swarm-008-status-finished-again": Overrule(
        "DEFECTS 40: currentState is never stale", values=COMPLETE
    ),
    "swarm-009-get-container-tree": Overrule(
        "DEFECTS 40: currentState is never stale",
        values={
            "$.GET.J0.container.currentState": "finishedSuccessfully",
            "$.GET.J0.container.state": task_like("complete", 0, *LASTS.split()),
            "$.GET.J0.container.logs": "",
        },
    ),
    "swarm-021-status-fail": Overrule(
        NO_TTY,
        values={
            **ended("finishedWithError", 1, "ls: /nonexistent: No such file or directory\n"),
            f"{TREE}.state": task_like("failed", 1, "ls", "/nonexistent"),
        },
    ),
    "swarm-023-status-output": Overrule(
        NO_TTY,
        values={
            **ended("finishedSuccessfully", 0, listing),
            f"{TREE}.state": task_like("complete", 0, "ls", "-la", "/share"),
        },
    ),
    "swarm-031-status-host-job": Overrule(
        "row 9.2, 14: never [] for host jobs; DEFECTS 36",
        values={"$.d_ret.l_status": ["finishedSuccessfully"]},
    ),
    "swarm-050-run-container-not-threaded": Overrule(
        "row 4.2: the same backend as threaded, which has no command 'hostname;'; status true",
        values={
            "$.status": True,
            "$.d_ret": lambda v: (
                v["l_status"] == ["finishedWithError"] and v["0.container"]["tree"] is not None
            ),
        },
    ),
    "swarm-051-status-container-not-threaded": Overrule(
        "row 4.2: the same backend as threaded",
        values={
            "$.d_ret.0.container.tree": lambda v: (
                v["J0"]["container"]["target"] == {"image": "local/busybox:1"}
            ),
            "$.d_ret.0.start.startTrigger": lambda v: v in ([], [True]),
            "$.d_ret.0.end.returncode": lambda v: v in ([], [127]),
            "$.d_ret.l_status": ["finishedWithError"],
            "$.d_ret.l_logs": [""],
        },
    ),
    "swarm-053-status-missing-image": Overrule(
        NO_REPLY,
        values={
            "$.status": True,
            "$.d_ret": lambda v: v["l_status"] == ["finishedWithError"] and v["l_logs"] == [""],
        },
        ignore=("$",),
    ),
    "swarm-054-run-service-name-collision": Overrule(
        REFUSED,
        409,
        {
            "$.status": False,
            "$.error": error_like(type="JobConflict", field="container.manager.env.serviceName"),
        },
    ),
    "swarm-056-status-two-container-hits": Overrule(
        NO_TTY + "; DEFECTS 13: each job has its own state", values=TWO_OF_ONE_JID
    ),
    "swarm-057-run-missing-manager-image": Overrule(
        NATIVE, values={"$.meta": lambda v: "cmdMgr" not in v}
    ),
    "swarm-058-status-missing-manager-image": Overrule(
        NATIVE,
        values={
            "$.status": True,
            "$.d_ret": lambda v: v["l_status"] == ["finishedSuccessfully"],
        },
    ),
    "swarm-060-status-single-quotes-and-semicolon": Overrule(
        NO_TTY,
        values={
            **ended("finishedSuccessfully", 0, "a\nb\n"),
            f"{TREE}.state": task_like("complete", 0, "sh", "-c", "echo a; echo b"),
            "$.d_ret.0.start.startTrigger": [True],
        },
    ),
    "swarm-061-status-service-removed": Overrule(
        NO_REPLY,
        values={
            "$.status": True,
            "$.d_ret": lambda v: v["l_status"] == ["finishedWithError"],
        },
        ignore=("$",),
    ),
    "swarm-062-status-share-dir-missing": Overrule(
        NO_REPLY + "; row 14.1: the job waits, notstarted",
        values={
            "$.status": True,
            "$.d_ret": lambda v: v["l_status"] == ["notstarted"] and v["l_logs"] == [""],
        },
        ignore=("$",),
    ),
    "swarm-063-status-container-not-on-this-engine": Overrule(
        NO_REPLY,
        values={
            "$.status": True,
            "$.d_ret": lambda v: v["l_status"] == ["finishedWithError"],
        },
        ignore=("$",),
    ),
    "swarm-066-run-share-dir-missing": Overrule(
        "row 14.1: no worker waits for the folder before it fills in the name of the service",
        values={"$.meta.container.manager.env.serviceName": "nosh"},
    ),
    "swarm-065-status-two-hits-second-query": Overrule(
        NO_REPLY,
        values={"$.status": True, **TWO_OF_ONE_JID},
        ignore=("$",),
    ),
}

#: The same where a manager makes the services.
BY_MANAGER: dict[str, Overrule] = {
    "swarm-057-run-missing-manager-image": Overrule(
        REFUSED,
        502,
        {
            "$.status": False,
            "$.meta": lambda v: "cmdMgr" not in v,
            "$.error": error_like(type="SubmitFailed"),
        },
    ),
    "swarm-058-status-missing-manager-image": Overrule(
        "row 4.2, 14.1: no failure goes unsaid; the job is known, and has failed",
        values={
            "$.status": True,
            "$.d_ret": lambda v: v["l_status"] == ["finishedWithError"],
        },
    ),
}

#: Fields of the service object whose value changes from run to run.
VOLATILE_OF_SERVICE = frozenset({"ID", "Version.Index", "CreatedAt", "UpdatedAt"})

#: The same for a task; what the engine desires follows the end.
VOLATILE_OF_TASK = frozenset(
    [
        "ID",
        "Version.Index",
        "CreatedAt",
        "UpdatedAt",
        "ServiceID",
        "NodeID",
        "DesiredState",
        "Status.Timestamp",
        "Status.ContainerStatus.ContainerID",
    ]
)

LABELS = "Backends: every object made on an engine carries the labels pman.…"

#: Fields of the service object that differ -> the line that says so, and what is there.
SERVICE_DIFFERENCES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "Spec.Labels": (LABELS, lambda v: v != {}),
    "Spec.TaskTemplate.ContainerSpec.Labels": (LABELS, bool),
    "Spec.TaskTemplate.ContainerSpec.TTY": ("row 14.2: no TTY", lambda v: not v),
}

#: The same for a task. The engine lists what nobody asked for with a service, but not with a task.
TASK_DIFFERENCES: dict[str, tuple[str, Any]] = {
    "Spec.ContainerSpec.TTY": ("row 14.2: no TTY", None),
    "Spec.ContainerSpec.StopGracePeriod": ("WIRE 14.2: 10 s, which --killGrace is, too", 10**10),
    "Spec.Resources": ("WIRE 14.2: {}; row 14.2: where limits are", {}),
    "Spec.Placement": ("WIRE 14.2: {}", {}),
}

#: The same for the service that a manager makes: as 2.2's, and then given its labels.
MANAGED_DIFFERENCES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "Spec.Labels": (LABELS, lambda v: v != {}),
    "PreviousSpec": (LABELS, lambda v: True),
}

EPOCH_SECONDS = "row 8.2: records also carry UTC epoch seconds"

#: Jobs of the layout that are container jobs, and what each ran, returned and printed.
CONTAINER_JOBS = {"J0": "sw-1", "J1": "sw-2", "J2": "sw-3"}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {path: leaf}; arrays and empty objects are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def is_task_as_recorded(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Compare the engine's object of a task with the recorded one, but for ids and moments."""
    our, their = flat(ours), flat(theirs)
    differ = {field for field in our.keys() | their.keys() if our.get(field) != their.get(field)}
    for field in differ - VOLATILE_OF_TASK:
        if not field.startswith("Spec.ContainerSpec.Labels"):
            assert field in TASK_DIFFERENCES, (field, our.get(field), their.get(field))
            assert our.get(field) == TASK_DIFFERENCES[field][1], field
    return True


def _is_end(ours: Any, theirs: Any) -> bool:
    """Look at the one sub-job, which is the container now."""
    (our,), (their,) = ours.values(), theirs.values()
    return (
        f'echo "{our["cmd"]}"' == their["cmd"]
        and [key for key in their if key in our] == list(our)
        and our["done"] is True
        and our["returncode"] == (1 if "nonexistent" in our["cmd"] else 0)
    )


#: Files of a container job that differ -> the line that says so, and how they may: ours, recorded.
LEAF_DIFFERENCES: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "cmdMgr": (NATIVE, lambda our, their: our is None),
    "record": (EPOCH_SECONDS, lambda our, their: our["backend"] == "swarm"),
    "cmd": (NO_ECHO, lambda our, their: f'echo "{our}"' == their),
    "d_meta": (NO_ECHO, lambda our, their: json.loads(our).keys() <= json.loads(their).keys()),
    "start/0/startInfo": (NO_ECHO, _is_end),
    "end/0/endInfo": (NO_ECHO, _is_end),
    "container/logs": (
        NO_TTY,
        lambda our, their: our == their.replace("\r\n", "\n") or listing(our),
    ),
    "container/state": (f"{LABELS}; row 14.2: no TTY", is_task_as_recorded),
    "container/currentState": (
        "DEFECTS 40: currentState is never stale",
        lambda our, their: our in ("finishedSuccessfully", "finishedWithError"),
    ),
}


class Replay:
    """Daemons in a row, and what recordings and we call the same things."""

    def __init__(self, swarm: Swarm, maker: str) -> None:
        self.swarm = swarm
        self.maker = maker
        self.shares = swarm.folder / "shares"
        (self.shares / "key-1").mkdir(parents=True)
        self.gate = self.shares / "key-1" / "gate"
        os.mkfifo(self.gate)
        self.daemon = self.start("first")
        self.service: dict[str, Any] = {}

    def start(self, name: str, *flags: str, **environment: str) -> DaemonProcess:
        flags = ("--swarmManager", self.maker, *flags)
        return self.swarm.start(*flags, name=f"{self.maker}-{name}", environment=environment)

    def name(self, word: str) -> str:
        return self.swarm.jid(word)

    def body(self, name: str) -> str | None:
        """Return the body of a recorded request with names of our own."""
        body: str | None = golden.load(name)["request"]["body"]
        if body is None:
            return None
        document = json.loads(body)
        meta = document["payload"]["meta"]
        for key in ("jid", "value"):
            if key in meta:
                meta[key] = self.name(meta[key])
        if meta.get("cmd") == LASTS:
            meta["cmd"] = WAITS
        manager = meta.get("container", {}).get("manager", {})
        if self.maker == "container" and manager.get("image") == RECORDED_MANAGER:
            manager["image"] = MANAGER_IMAGE
        env = manager.get("env", {})
        if "serviceName" in env:
            env["serviceName"] = self.name(env["serviceName"])
        if "shareDir" in env:
            env["shareDir"] = env["shareDir"].replace("/tmp/share", str(self.shares))
        return json.dumps(document)

    def send(self, name: str) -> Reply:
        with self.daemon.connect() as connection:
            connection.send(golden.request_bytes(golden.load(name), self.body(name)))
            return connection.read_reply()

    def run(self, cmd: str, jid: str, **env: str) -> None:
        """Start a job that no recording has the start of."""
        env = {name: self.name(value) for name, value in env.items()}
        block = self.swarm.block(share=self.shares / "key-1", **env)
        reply = self.daemon.run(cmd, self.name(jid), container=block)
        assert reply.status == 200, reply.body

    def wait_word(self, jid: str, word: str) -> None:
        wait_until(lambda: self.daemon.words(self.name(jid)) == [word], f"{jid} is {word}")

    def wait_finished(self, jid: str) -> None:
        self.daemon.wait_finished(self.name(jid))

    def as_recorded(self, text: str) -> str:
        """Return a text of ours with the names of the recording."""
        text = text.replace(self.name(""), "").replace(str(self.shares), "/tmp/share")
        text = text.replace(MANAGER_IMAGE, RECORDED_MANAGER)
        text = text.replace(f'"{WAITS.split()[0]}"', '"sleep"').replace('"/share/gate"', '"20"')
        return text.replace(WAITS, LASTS)


def numbered(text: str) -> Any:
    """Return JSON with `J0`, `J1`, … for the names of jobs, in the order of their acceptance."""
    for n, job in enumerate(sorted(set(golden.JOB_NAME.findall(text)))):
        text = text.replace(job, f"J{n}")
    return json.loads(text)


def without_lengths(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Take over recorded lengths, which our longer names change."""
    for key in ("client_json_len", "payloadsize"):
        if key in theirs:
            ours[key] = theirs[key]
    lines = zip(ours["receivedByServer"], theirs["receivedByServer"], strict=True)
    ours["receivedByServer"] = [
        their if our.startswith("Content-Length: ") else our for our, their in lines
    ]
    return ours


@pytest.fixture(scope="module", params=["native", "container"])
def replay(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_shared_daemon: NewDaemon,
) -> Iterator[Replay]:
    """Pman makes the services, or has the manager image make them as 2.2 did."""
    need_swarm()
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "container":
        build_manager()
    with swarm_below(folder, new_shared_daemon) as swarm:
        yield Replay(swarm, request.param)


# --- what was so when an exchange was recorded ------------------------------------------------


def _running(replay: Replay) -> None:
    replay.wait_word("sw-1", "started")
    replay.service = service(replay.name("sw-1"))


def _first_has_ended(replay: Replay) -> None:
    replay.gate.write_bytes(b"")  # lets the reader go
    replay.wait_finished("sw-1")
    replay.gate.unlink()


def _two_of_one_jid(replay: Replay) -> None:
    replay.run("echo first", "dup", serviceName="dup1")
    replay.run("ls /nope", "dup", serviceName="dup2")
    replay.wait_finished("dup")


def _service_removed(replay: Replay) -> None:
    replay.run("sleep 60", "gone")
    replay.wait_word("gone", "started")
    docker("service", "rm", replay.name("gone"))
    replay.wait_finished("gone")


def _container_removed(replay: Replay) -> None:
    replay.run("sleep 60", "cgone")
    replay.wait_word("cgone", "started")
    (container,) = containers(replay.name("cgone"))
    docker("container", "rm", "--force", container["Id"])
    replay.wait_finished("cgone")


def _collision(replay: Replay) -> None:
    replay.run("sleep 60", "c1", serviceName="coll")
    replay.wait_word("c1", "started")


BEFORE: dict[str, Callable[[Replay], object]] = {
    "swarm-003-status-running": _running,
    "swarm-007-status-finished": _first_has_ended,
    "swarm-021-status-fail": lambda replay: replay.wait_finished("sw-2"),
    "swarm-023-status-output": lambda replay: replay.wait_finished("sw-3"),
    "swarm-031-status-host-job": lambda replay: replay.wait_finished("h-1"),
    "swarm-053-status-missing-image": lambda replay: replay.wait_finished("noimg"),
    "swarm-054-run-service-name-collision": _collision,
    "swarm-056-status-two-container-hits": _two_of_one_jid,
    "swarm-058-status-missing-manager-image": lambda replay: replay.wait_finished("nomgr"),
    "swarm-060-status-single-quotes-and-semicolon": lambda replay: (
        replay.run("sh -c 'echo a; echo b'", "sq"),
        replay.wait_finished("sq"),
    ),
    "swarm-061-status-service-removed": _service_removed,
    "swarm-062-status-share-dir-missing": lambda replay: replay.send(
        "swarm-066-run-share-dir-missing"
    ),
    "swarm-063-status-container-not-on-this-engine": _container_removed,
}


def _words_stay_together(replay: Replay) -> None:
    replay.wait_finished("quo")
    assert replay.daemon.status(replay.name("quo"))["l_logs"] == ["a b\n"]


def _share_never_comes(replay: Replay) -> None:
    replay.wait_finished("nosh")
    assert replay.daemon.words(replay.name("nosh")) == ["finishedWithError"] * 2


#: What came of it, beyond the reply.
AFTER: dict[str, Callable[[Replay], object]] = {
    "swarm-055-status-service-name-collision": lambda replay: replay.daemon.post(
        "delete", value=replay.name("c1")
    ),
    "swarm-059-run-quotes": _words_stay_together,
    "swarm-066-run-share-dir-missing": _share_never_comes,
}


# --- what is no exchange ----------------------------------------------------------------------


def compare_service(replay: Replay, recorded: dict[str, Any]) -> None:
    """Compare the service that ran, field by field."""
    theirs = flat(recorded["service"][0])
    ours = flat(json.loads(replay.as_recorded(json.dumps(replay.service))))
    differences = SERVICE_DIFFERENCES if replay.maker == "native" else MANAGED_DIFFERENCES
    for field in (theirs.keys() | ours.keys()) - VOLATILE_OF_SERVICE:
        their, our = theirs.get(field), ours.get(field)
        (difference,) = [k for k in differences if field.startswith(k)] or [None]
        if difference is None:
            assert our == their, field
        else:
            assert differences[difference][1](our), (field, our)


def compare_files(replay: Replay, recorded: dict[str, Any]) -> None:
    """Compare the files of the jobs so far, in 2.2's layout."""
    folder = replay.swarm.folder / "layout"
    assert replay.daemon.post("DBctl", do="save", dbpath=str(folder)).status == 200
    found = {
        str(path.relative_to(folder)): replay.as_recorded(path.read_text())
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    ours, theirs = numbered(json.dumps(found)), numbered(json.dumps(recorded["tree"]))
    for name in sorted(ours.keys() | theirs.keys()):
        job, leaf = name.split("/", 1)
        our, their = ours.get(name), theirs.get(name)
        if job in CONTAINER_JOBS and leaf in LEAF_DIFFERENCES:
            _, is_right = LEAF_DIFFERENCES[leaf]
            assert is_right(our and json.loads(our), json.loads(their or "null")), (name, our)
        elif leaf == "record":
            assert json.loads(our)["state"] in ("COMPLETED", "FAILED"), EPOCH_SECONDS
        else:
            golden.compare(json.loads(our), json.loads(their), name.replace("/", "."))


OBJECTS: dict[str, Callable[[Replay, dict[str, Any]], None]] = {
    SERVICE_OBJECT: compare_service,
    DB_LAYOUT: compare_files,
}


# --- the replay -------------------------------------------------------------------------------


def check(replay: Replay, name: str) -> None:
    """Send a recorded request, and compare what is answered."""
    exchange = golden.load(name)
    overrule = OVERRULED.get(name, Overrule(AS_RECORDED))
    if replay.maker == "container":
        overrule = BY_MANAGER.get(name, overrule)
    reply = replay.send(name)
    assert reply.status == overrule.status, reply.body
    assert [n for n, _ in reply.headers[:2]] == ["Content-Length", "Content-Type"]
    assert reply.header("content-type") == "application/html"
    ours = numbered(replay.as_recorded(reply.body.decode("ascii")))
    overrule.check_values(ours)
    if "$" in overrule.ignore:
        assert exchange["raw_response"] is None
        return
    theirs = numbered(exchange["raw_response"].split("\r\n\r\n", 1)[1])
    golden.compare(
        without_lengths(ours, theirs),
        theirs,
        ignore=frozenset({*overrule.ignore, *overrule.values}),
    )


@pytest.mark.parametrize("name", [name for name in ORDER if name not in (UNREACHABLE, STOREBASE)])
def test_reply_is_like_the_recorded_one(replay: Replay, name: str) -> None:
    if name in OBJECTS:
        OBJECTS[name](replay, golden.load(name))
        return
    if name == SECOND_DAEMON:
        flags = ("--listeners", "1", "--pendingTimeout", "2", "--killGrace", "0")
        replay.daemon = replay.start("second", *flags)
    BEFORE.get(name, lambda _: None)(replay)
    check(replay, name)
    AFTER.get(name, lambda _: None)(replay)
    assert replay.daemon.is_alive()


def test_without_an_engine_run_is_refused_and_status_as_recorded(replay: Replay) -> None:
    nowhere = f"unix://{replay.swarm.folder}/nosuch.sock"
    replay.daemon = replay.start("unreachable", "--listeners", "1", DOCKER_HOST=nowhere)
    block = replay.swarm.block()
    reply = replay.daemon.run("true", replay.name("noeng"), container=block)
    assert reply.status == 503, REFUSED
    assert error_like(type="BackendUnavailable")(reply.json()["error"])
    check(replay, UNREACHABLE)


def test_storebase_replaces_the_parent_of_the_share(replay: Replay) -> None:
    (replay.shares / "key-9").mkdir()
    base = replay.swarm.folder / "store"
    (base / "key-9").mkdir(parents=True)
    replay.daemon = replay.start("storebase", "--listeners", "1", STOREBASE=str(base))
    check(replay, STOREBASE)
    mounts = service(replay.name("sb"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert mounts == [{"Type": "bind", "Source": f"{base}/key-9", "Target": "/share"}]
    assert replay.daemon.post("delete", value=replay.name("sb")).status == 200


def test_every_overruled_exchange_exists() -> None:
    assert set(OVERRULED) | set(BY_MANAGER) | set(BEFORE) | set(AFTER) | {
        UNREACHABLE,
        STOREBASE,
    } <= set(ORDER)
    assert all(overrule.line for overrule in [*OVERRULED.values(), *BY_MANAGER.values()])
