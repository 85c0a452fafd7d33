"""Every recorded exchange of 2.2's openshift mode, replayed against a real cluster.

`OBJECTS` is the whole list of differences in what the cluster gets, `REPLIES` of those in what the
client gets, each with the line of the design that says so.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import golden_replay as golden
import msgspec
import pytest
from api_proxy import ApiProxy
from daemon_process import DaemonProcess, Reply, wait_until
from openshift_daemon import (
    DEADLINE_S,
    IMAGE,
    Project,
    Share,
    Starter,
    delete,
    shell,
    small,
    wait_ended,
    wait_running,
)
from probes import job_names

pytestmark = pytest.mark.slow

JOBS, CLAIMS = r"/apis/batch/v1/namespaces/[^/]+/jobs$", r"/persistentvolumeclaims$"

#: Images and projects of the recordings -> those that there are here. Jobs of 2.2's images could
#: not start; of the image that there is they end at once, as it has no python3.
IMAGES = {"fnndsc/pl-simpledsapp": IMAGE}
PROJECTS = ("myproject", "myproj")


@pytest.fixture(scope="module")
def unbased(start_shared: Starter, shared_proxy: ApiProxy) -> DaemonProcess:
    """A daemon with the storage of 2.2 and no STOREBASE."""
    return start_shared(is_based=False, kubeconfig=shared_proxy.kubeconfig, name="unbased")


@pytest.fixture(scope="module")
def shared(start_shared: Starter, shared_proxy: ApiProxy) -> DaemonProcess:
    return start_shared(kubeconfig=shared_proxy.kubeconfig, name="shared")


def send(daemon: DaemonProcess, name: str) -> Reply:
    """Send the request of a recording, with images that there are."""
    exchange = golden.load(name)
    with daemon.connect(DEADLINE_S) as connection:
        connection.send(golden.request_bytes(exchange, sent_body(exchange)))
        return connection.read_reply()


def sent_body(exchange: dict[str, Any]) -> str | None:
    body: str | None = exchange["request"]["body"]
    return body and with_our_images(body)


def with_our_images(text: str) -> str:
    for theirs, ours in IMAGES.items():
        text = text.replace(theirs, ours)
    return text


def recorded(name: str) -> Any:
    """Return the JSON of the reply as 2.2 would have given it, or None: it gave none."""
    exchange = golden.load(name)
    if not exchange["raw_response"]:
        return None
    theirs = json.loads(with_our_images(json.dumps(golden.recorded_body(exchange))))
    body = sent_body(exchange)
    if body is not None:
        theirs["client_json_len"] = theirs["payloadsize"] = len(body)
        theirs["receivedByServer"] = [
            re.sub(r"^(Content-Length: )\d+", rf"\g<1>{len(body)}", line)
            for line in theirs["receivedByServer"]
        ]
    return theirs


# --- objects ----------------------------------------------------------------------------------

ABSENT = "(absent)"
Expected = dict[str, tuple[str, Any]]

RESTRICTED = "openshift: runs under the restricted SCC and PSS"
CONFIGURABLE = "openshift: backoffLimit 0, deadline and TTL configurable; row 15"
LABELS = "Backends: every object carries the labels pman.instance, pman.jid, pman.job"
INTEGERS = "DEFECTS 44: parallelism and completions sent as strings"
PULL = "openshift: pull policy configurable; images of a node are used"
HOST_PATH = "openshift: hostPath as 2.2; the folder is made where it is missing"
#: Of servers before 1.26 only.
ONCE = "Jobs: started exactly once; before Kubernetes 1.26 deleted pods are replaced"

POD = "$.spec.template.spec"
POD_SECURITY = {
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
    "runAsUser": 1000,
}
SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _is_ours(jid: str) -> Callable[[Any], bool]:
    def look(labels: dict[str, str]) -> bool:
        assert set(labels) == {"pman.instance", "pman.job", "pman.jid", "job-origin"}
        assert labels["pman.jid"] == jid
        assert labels["job-origin"] == "pman"
        is_named = golden.JOB_NAME.fullmatch(labels["pman.job"]) is not None
        return is_named and labels["pman.instance"] != ""

    return look


def _is_ticket(sources: list[dict[str, Any]]) -> bool:
    (source,) = sources
    name = source["configMapRef"].pop("name")
    return name.startswith("pman-") and source == {"configMapRef": {"optional": False}}


def _container(path: str) -> Expected:
    return {
        f"{path}.imagePullPolicy": (PULL, "IfNotPresent"),
        f"{path}.securityContext": (RESTRICTED, SECURITY),
    }


def _job(jid: str, workers: int = 1) -> Expected:
    """Return the differences of every Job."""
    return {
        "$.metadata.labels": (LABELS, _is_ours(jid)),
        "$.metadata.annotations": (LABELS, {"pman.jid": jid}),
        "$.spec.ttlSecondsAfterFinished": (CONFIGURABLE, 7 * 24 * 3600),
        "$.spec.activeDeadlineSeconds": (CONFIGURABLE, ABSENT),
        "$.spec.backoffLimit": (CONFIGURABLE, 0),
        "$.spec.parallelism": (INTEGERS, workers),
        "$.spec.completions": (INTEGERS, workers),
        "$.spec.template.metadata.labels.pman.instance": (LABELS, lambda v: len(v) > 0),
        "$.spec.template.metadata.labels.pman.job": (LABELS, golden.JOB_NAME.fullmatch),
        "$.spec.template.metadata.labels.pman.jid": (LABELS, jid),
        f"{POD}.automountServiceAccountToken": ("openshift: no service account token", False),
        f"{POD}.enableServiceLinks": ("openshift: no other services in the environment", False),
        f"{POD}.terminationGracePeriodSeconds": ("Backends: cancel is SIGTERM, grace, SIGKILL", 2),
        f"{POD}.securityContext": (RESTRICTED, POD_SECURITY),
        f"{POD}.containers[0].envFrom": (ONCE, _is_ticket),
        **_container(f"{POD}.containers[0]"),
    }


_HOST = {f"{POD}.volumes[0].hostPath.type": (HOST_PATH, "DirectoryOrCreate")}
_GPU = {
    f"{POD}.containers[0].imagePullPolicy": (PULL, "IfNotPresent"),
    f"{POD}.containers[0].securityContext.runAsNonRoot": (RESTRICTED, True),
    f"{POD}.containers[0].securityContext.seccompProfile": (
        RESTRICTED,
        {"type": "RuntimeDefault"},
    ),
}
_SPLIT = "DEFECTS 44: command split at blanks without quotes"

#: Recording -> differences of what is sent, in order of the calls.
OBJECTS: dict[str, list[Expected]] = {
    "openshift-001-run-hostPath-defaults": [_job("os-1") | _HOST],
    "openshift-003-run-gpu": [
        {
            **{k: v for k, v in _job("os-2", 2).items() if not k.endswith("[0].securityContext")},
            **_HOST,
            **_GPU,
        }
    ],
    "openshift-040-run-swift": [
        {"$.metadata.labels": (LABELS, _is_ours("os-1"))},
        _job("os-1")
        | _container(f"{POD}.containers[1]")
        | _container(f"{POD}.initContainers[0]")
        | {f"{POD}.initContainers[0].envFrom": (ONCE, _is_ticket)},
    ],
    "openshift-041-run-command-splitting": [
        _job("os-1")
        | _HOST
        | {
            f"{POD}.containers[0].command": (
                _SPLIT,
                ["sh", "-c", "echo  a b", "/in", "/out"],
            )
        }
    ],
}

#: Of these, the ones whose pods wait: for a GPU, for a volume.
WAITING = ("openshift-003-run-gpu", "openshift-040-run-swift")


def differences(ours: Any, theirs: Any, path: str = "$") -> dict[str, Any]:
    """Return path -> our value, wherever it is not like theirs; lists are alike or not."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found: dict[str, Any] = {}
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            at = f"{path}.{key}"
            found |= differences(ours.get(key, ABSENT), theirs.get(key, ABSENT), at)
        return found
    is_objects = isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs)
    if is_objects and all(isinstance(value, dict) for value in [*ours, *theirs]):
        found = {}
        for n, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            found |= differences(our, their, f"{path}[{n}]")
        return found
    return {} if (ours, type(ours)) == (theirs, type(theirs)) else {path: ours}


def without_order(body: Any) -> Any:
    """Return an object with its lists of named things sorted: their order means nothing."""
    if isinstance(body, dict):
        return {key: without_order(value) for key, value in body.items()}
    if isinstance(body, list):
        values = [without_order(value) for value in body]
        names = [value.get("name") for value in values if isinstance(value, dict)]
        return sorted(values, key=lambda v: v["name"]) if names and all(names) else values
    return body


def quantity(text: Any) -> Any:
    """Return a quantity in its smallest unit: the server spells it in its own way."""
    match = re.fullmatch(r"(\d+)(m|Mi|Gi|)", str(text))
    if match is None:
        return text
    factor = {"m": 1, "": 1000, "Mi": 1000 << 20, "Gi": 1000 << 30}[match[2]]
    return int(match[1]) * factor


def check_within(sent: Any, real: Any, path: str = "$") -> None:
    """Look that the server has kept all that was sent; what it adds are its defaults."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            assert key in real, f"{path}.{key} is gone"
            check_within(value, real[key], f"{path}.{key}")
    elif isinstance(sent, list):
        assert len(sent) == len(real), path
        for n, (one, other) in enumerate(zip(sent, real, strict=True)):
            check_within(one, other, f"{path}[{n}]")
    elif ".resources." in path:
        assert quantity(sent) == quantity(real), path
    else:
        assert sent == real, path


def object_sent(call: dict[str, Any], proxy: ApiProxy) -> Any:
    (request,) = proxy.sent("POST", CLAIMS if call["path"].endswith("claims") else JOBS)
    return request.body


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_those_of_2_2(
    name: str, unbased: DaemonProcess, start: Starter, shared_proxy: ApiProxy, project: Project
) -> None:
    text = with_our_images(json.dumps(golden.load(name)["cluster_api_calls"]))
    for theirs in PROJECTS:
        text = text.replace(f'"value": "{theirs}"', f'"value": "{project.name}"')
    calls = json.loads(text)
    daemon = unbased
    if name == "openshift-040-run-swift":
        daemon = start(storage="swift", kubeconfig=shared_proxy.kubeconfig)
    shared_proxy.forget()
    reply = send(daemon, name)
    golden.compare(reply.json(), recorded(name))
    has_tickets = project.server_version() < (1, 26)
    for call, table in zip(calls, OBJECTS[name], strict=True):
        expected = {k: v for k, v in table.items() if has_tickets or v[0] is not ONCE}
        sent = object_sent(call, shared_proxy)
        found = differences(without_order(sent), without_order(call["body"]))
        assert set(found) == set(expected), (set(found) ^ set(expected), found)
        for path, (_line, value) in expected.items():
            is_right = value(found[path]) if callable(value) else value == found[path]
            assert is_right, (path, found[path])
        kind = "pvc" if call["path"].endswith("claims") else "job"
        real = json.loads(project.kubectl("get", kind, sent["metadata"]["name"], "-o", "json"))
        check_within(sent, real)
    jid = reply.json()["meta"]["jid"]
    if name not in WAITING:
        wait_ended(daemon, jid)
    assert delete(daemon, jid).json()["status"] is True
    project.wait_gone(daemon)
    with contextlib.suppress(OSError):  # another's, or not empty
        Path("/tmp/share", f"key-{jid}").rmdir()


# --- replies ----------------------------------------------------------------------------------


class Staged(golden.Overrule):
    """One difference, and what is brought about before the request is sent.

    Attributes:
        before: Name of a method of `Stage`.
    """

    before: str = "nothing"


def _words(*words: str, log: str | None = None) -> dict[str, Any]:
    """Return what is expected of a `status` that finds one job."""

    def look(d_ret: dict[str, Any]) -> bool:
        assert list(d_ret) == ["0.container", "0.start", "0.end", "l_status", "l_logs"]
        assert d_ret["l_status"][0] in words, d_ret
        (text,) = d_ret["l_logs"]
        return log is None or re.fullmatch(log, text) is not None

    return {"$.status": True, "$.d_ret": look}


NOT_FOUND = {
    "$.status": False,
    "$.d_ret": lambda d_ret: (d_ret["l_status"], d_ret["l_logs"]) == ([], []),
}
DELETED = {"$.status": True}
ROW_15 = "row 15: records, words, booleans and logs as for every backend"

REPLIES: dict[str, Staged] = {
    "openshift-002-get-root-after-run": Staged(
        ROW_15, before="accepted", values={"$.GET": lambda jobs: len(jobs) == 1}
    ),
    "openshift-010-status-running": Staged(ROW_15, before="running", values=_words("started")),
    "openshift-011-status-finished-no-swift": Staged(
        ROW_15,
        before="finished",
        values=_words("finishedSuccessfully", log=r"os-1-\w{5}:log of os-1\n"),
    ),
    "openshift-013-status-failed": Staged(
        "row 15: failed reads started", before="failed", values=_words("finishedWithError")
    ),
    "openshift-014-status-just-created-empty-status": Staged(
        "DEFECTS 14", before="accepted", values=_words("notstarted", "started")
    ),
    "openshift-017-status-not-found": Staged(
        "row 15: status is a string; Replies: no such job in status stays 200", values=NOT_FOUND
    ),
    "openshift-018-status-api-error-500": Staged(
        "Backends: status reads memory and never waits for an engine",
        before="refusing",
        values=_words("started"),
    ),
    "openshift-019-status-finished-log-unavailable": Staged(
        "Backends: logs are collected before anything is removed",
        before="without_log",
        values=_words("finishedSuccessfully", log=r"os-1-\w{5}:log of os-1\n"),
    ),
    "openshift-020-delete": Staged(ROW_15, before="running", values=DELETED),
    "openshift-021-delete-no-such-job": Staged(ROW_15, status=404, values={"$.status": False}),
    "openshift-022-delete-no-pvc": Staged(
        "DEFECTS 44: delete without claim says Not Found",
        before="finished",
        values=DELETED
        | {
            "$.d_ret": {
                "action": "Delete Job",
                "job_id": "os-1",
                "status": "Job deleted successfully",
            }
        },
    ),
    "openshift-023-delete-fresh-job": Staged(
        "DEFECTS 14",
        before="accepted",
        values=DELETED | {"$.d_ret": lambda d_ret: d_ret["job_id"] == "os-1"},
    ),
    "openshift-030-run-refused-by-cluster": Staged(
        "row 4.2: what can be refused at once is refused",
        before="refusing_jobs",
        status=502,
        values={"$.status": False, "$.error": lambda error: error["type"] == "SubmitFailed"},
    ),
    "openshift-031-done": Staged(
        ROW_15,
        before="finished",
        values={"$.status": True, "$.d_ret": lambda d_ret: d_ret["0.end"]["returncode"] == [0]},
    ),
    "openshift-032-search": Staged(
        ROW_15,
        before="finished",
        values={"$.status": True, "$.d_ret": lambda d_ret: list(d_ret) == ["0"]},
    ),
    "openshift-042-run-not-threaded": Staged(
        "row 4.2: the same backend as threaded; the result, status true",
        values=_words("finishedSuccessfully", log=r"os-1-\w{5}:on-host\n"),
    ),
}

#: Recordings of which the real cluster can't bring about the state, or only with more around it.
ELSEWHERE = {
    *OBJECTS,  # above
    "openshift-012-status-finished-swift-two-pods",  # test_openshift_ends.py
    "openshift-015-status-active-zero",  # below
    "openshift-016-status-succeeded-null-with-completion",  # below
    "openshift-050-status-no-kubeconfig",  # below
}


class Stage:
    """Brings about what the cluster was like when an exchange was recorded."""

    def __init__(self, daemon: DaemonProcess, proxy: ApiProxy, share: Share) -> None:
        self.daemon = daemon
        self.proxy = proxy
        self.share = share

    def clear(self) -> None:
        """Let the job end that waits, if any, and forget it."""
        self.proxy.forget()
        self.share.open()
        for _ in job_names(self.daemon):
            wait_ended(self.daemon, "os-1")
            assert delete(self.daemon, "os-1").json()["status"] is True
        assert job_names(self.daemon) == []

    def _run(self, script: str) -> None:
        meta = small(self.share)
        assert self.daemon.run(shell(script), "os-1", **meta).json()["status"] is True

    def nothing(self) -> None:
        """There is no job."""

    def accepted(self) -> None:
        self._run(self.share.passage)

    def running(self) -> None:
        self._run(self.share.passage)
        wait_running(self.daemon, "os-1")

    def finished(self) -> None:
        self._run("echo log of os-1")
        assert wait_ended(self.daemon, "os-1")["state"] == "COMPLETED"

    def failed(self) -> None:
        self._run("exit 1")
        assert wait_ended(self.daemon, "os-1")["state"] == "FAILED"

    def refusing(self) -> None:
        """The API server answers nothing but errors."""
        self.running()
        self.proxy.refuse("GET", "", 500, count=1_000_000)
        self.proxy.cut_connections()
        wait_until(lambda: self.proxy.sent("GET", "/(jobs|pods)$"), "it is asked")

    def refusing_jobs(self) -> None:
        """The API server refuses to make Jobs."""
        self.proxy.refuse("POST", JOBS, 422)

    def without_log(self) -> None:
        """The API server refuses the log for a while."""
        self.proxy.refuse("GET", "/log$", 500, count=3)
        self.finished()
        assert len(self.proxy.sent("GET", "/log$")) > 3


@pytest.fixture
def stage(shared: DaemonProcess, shared_proxy: ApiProxy, start_shared: Starter) -> Iterator[Stage]:
    share = start_shared.share()
    made = Stage(shared, shared_proxy, share)
    yield made
    made.clear()
    share.close()


@pytest.mark.parametrize("name", REPLIES)
def test_replies_are_those_of_2_2(name: str, stage: Stage) -> None:
    overrule = REPLIES[name]
    getattr(stage, overrule.before)()
    reply = send(stage.daemon, name)
    assert reply.status == overrule.status, reply.body
    ours, theirs = reply.json(), recorded(name)
    overrule.check_values(ours)
    if theirs is not None:
        golden.compare(ours, theirs, ignore=frozenset(overrule.values))


def test_every_exchange_has_its_test() -> None:
    assert {*REPLIES, *ELSEWHERE} == set(golden.names("openshift"))
    assert all(overrule.line for overrule in REPLIES.values())


@pytest.mark.parametrize(
    ("name", "phase", "outcome"),
    [
        ("openshift-010-status-running", "WAITING", None),  # of its pod nothing is known yet
        ("openshift-011-status-finished-no-swift", "ENDED", "COMPLETED"),
        ("openshift-012-status-finished-swift-two-pods", "RUNNING", None),  # no condition says so
        ("openshift-013-status-failed", "ENDED", "FAILED"),
        ("openshift-014-status-just-created-empty-status", "WAITING", None),
        ("openshift-015-status-active-zero", "WAITING", None),
        ("openshift-016-status-succeeded-null-with-completion", "WAITING", None),
        ("openshift-019-status-finished-log-unavailable", "RUNNING", None),
    ],
)
def test_recorded_states_of_jobs_are_understood(name: str, phase: str, outcome: str | None) -> None:
    from pman.backends._openshift.objects import KubeJob
    from pman.backends._openshift.pods import utc_now
    from pman.backends._openshift.states import view_of

    document = {
        "metadata": {"name": "os-1", "uid": "1"},
        "status": golden.load(name)["job_status_from_cluster"],
    }
    view = view_of(msgspec.convert(document, KubeJob), [], utc_now())
    assert view.phase.name == phase
    assert (view.outcome.name if view.outcome else None) == outcome


def test_without_a_kubeconfig_all_is_answered(
    start: Starter, tmp_path: Path, project: Project
) -> None:
    name = "openshift-050-status-no-kubeconfig"
    daemon = start(kubeconfig=tmp_path / "nosuch")
    reply = send(daemon, name)
    assert reply.status == 200
    assert reply.json()["status"] is False
    assert reply.json()["d_ret"]["l_status"] == []
    refused = daemon.run("true", "os-1", **small())
    assert refused.status == 503
    assert "nosuch" in refused.json()["error"]["message"]
    daemon.run("true", "on-host")
    assert daemon.wait_finished("on-host") == ["finishedSuccessfully"]
    assert daemon.is_alive()
