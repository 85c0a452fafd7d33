"""An order becomes the Job of the contract, with the named differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pman.backends._engine.order import Order, order_from_meta
from pman.backends._openshift.manifest import (
    check_env,
    check_labels,
    label_value,
    manifests,
    names_of,
)
from pman.backends._openshift.storage import check_storage, folder_name, host_path
from pman.errors import RequestError
from pman.settings import Settings

GOLDEN = Path(__file__).parents[2] / "golden"
JOB_NAME = "20261123090253.309797_b64ea2f0-0000-4000-8000-000000000000"


def order(cmd: str = "true", jid: str = "kx", **meta: Any) -> Order:
    block = meta.pop("container", {"target": {"image": "local/busybox:1"}})
    whole = {"cmd": cmd, "jid": jid, "auid": "t", "container": block, **meta}
    return order_from_meta(whole, job_name=JOB_NAME)


def settings(**values: Any) -> Settings:
    return Settings(db_path=Path("/nowhere"), **values)


def made(
    of: Order, name: str = "kx", **values: Any
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    return manifests(of, settings(**values), name=name, instance="i-1", namespace="myproj")


def job_of(of: Order, name: str = "kx", **values: Any) -> dict[str, Any]:
    return made(of, name, **values)[0]


def pod_of(of: Order, **values: Any) -> dict[str, Any]:
    spec: dict[str, Any] = job_of(of, **values)["spec"]["template"]["spec"]
    return spec


def main_of(of: Order, **values: Any) -> dict[str, Any]:
    container: dict[str, Any] = pod_of(of, **values)["containers"][0]
    return container


def golden(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the `meta` of a recorded request and the objects that 2.2 sent."""
    recorded = json.loads((GOLDEN / f"openshift-{name}.json").read_text())
    meta = json.loads(recorded["request"]["body"])["payload"]["meta"]
    return meta, [call["body"] for call in recorded["cluster_api_calls"]]


def holds(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return where `ours` lacks or differs from what `theirs` has; more is not a difference."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            line
            for key, value in theirs.items()
            for line in holds(ours.get(key, "absent"), value, f"{path}.{key}")
        ]
    if isinstance(theirs, list) and isinstance(ours, list) and len(ours) == len(theirs):
        return [
            line
            for number, (mine, other) in enumerate(zip(ours, theirs, strict=True))
            for line in holds(mine, other, f"{path}.{number}")
        ]
    return [] if ours == theirs else [path]


#: What ARCHITECTURE and the settings change: whole numbers, time to live, deadline.
NAMED = {
    ".spec.parallelism",
    ".spec.completions",
    ".spec.ttlSecondsAfterFinished",
    ".spec.activeDeadlineSeconds",
}


@pytest.mark.parametrize("name", ["001-run-hostPath-defaults", "003-run-gpu"])
def test_the_job_of_2_2_is_in_ours(name: str) -> None:
    meta, (theirs,) = golden(name)
    ours = job_of(order_from_meta(meta, job_name=JOB_NAME), meta["jid"], storage_type="hostPath")
    assert set(holds(ours, theirs)) == NAMED
    assert ours["spec"]["parallelism"] == int(theirs["spec"]["parallelism"])


def test_swift_is_as_in_2_2() -> None:
    meta, (claim, theirs) = golden("040-run-swift")
    of = order_from_meta(meta, job_name=JOB_NAME)
    ours, our_claim = made(of, meta["jid"], storage_type="swift")
    assert set(holds(ours, theirs)) == NAMED
    assert our_claim is not None
    assert holds(our_claim, claim) == []


def _named(env: list[dict[str, str]]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in env}


def test_the_command_is_split_as_a_shell_would() -> None:
    assert main_of(order("sh -c 'echo  a;  b'"))["command"] == ["sh", "-c", "echo  a;  b"]
    assert "command" not in main_of(order(""))


@pytest.mark.parametrize(
    ("word", "sent"),
    [
        ("$HOME", "$HOME"),
        ("$$", "$$$"),
        ("$(CPU_LIMIT)", "$$(CPU_LIMIT)"),
        ("$$(X)", "$$$$(X)"),
        ("a$", "a$"),
    ],
)
def test_kubernetes_replaces_nothing_in_a_command(word: str, sent: str) -> None:
    container = main_of(order(f"echo '{word}'", env={"A": word}))
    assert container["command"] == ["echo", sent]
    assert _named(container["env"])["A"] == sent
    assert _expanded(sent) == word


def _expanded(text: str) -> str:
    """Do to a text what Kubernetes does, where no variable is known.

    Source: Kubernetes, third_party/forked/golang/expansion/expand.go
    """
    said, at = "", 0
    while at < len(text):
        if text[at : at + 2] == "$$":
            said, at = said + "$", at + 2
        else:
            said, at = said + text[at], at + 1
    return said


def test_limits_and_requests() -> None:
    def resources(**meta: Any) -> Any:
        return main_of(order(**meta))["resources"]

    assert resources()["limits"] == {"cpu": "2000m", "memory": "1024Mi"}
    assert resources()["requests"] == {"cpu": "250m", "memory": "150Mi"}
    small = resources(cpu_limit=100, memory_limit="64Mi")
    assert small == {
        "limits": {"cpu": "100m", "memory": "64Mi"},
        "requests": {"cpu": "100m", "memory": "64Mi"},
    }
    large = resources(cpu_limit="100000m", memory_limit="10Gi")
    assert large["limits"] == {"cpu": "100000m", "memory": "10Gi"}
    assert large["requests"] == {"cpu": "12500m", "memory": "1500Mi"}
    assert resources(memory_limit="500M")["limits"]["memory"] == "500000000"


def test_variables_of_the_contract_give_way_to_those_of_the_client() -> None:
    env = main_of(order(number_of_workers=3, cpu_limit="500m", env={"A": 1, "CPU_LIMIT": "x"}))[
        "env"
    ]
    assert _named(env) == {
        "NUMBER_OF_WORKERS": "3",
        "CPU_LIMIT": "x",
        "MEMORY_LIMIT": "1024Mi",
        "A": "1",
    }


def test_a_job_starts_once() -> None:
    spec = job_of(order(number_of_workers="3"))["spec"]
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (3, 3, 0)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_deadline_and_time_to_live_are_there_when_set() -> None:
    assert "activeDeadlineSeconds" not in job_of(order())["spec"]
    assert "ttlSecondsAfterFinished" not in job_of(order(), job_ttl_s=0.0)["spec"]
    spec = job_of(order(), job_deadline_s=90.0, job_ttl_s=0.2)["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (90, 1)


def test_every_container_is_restricted() -> None:
    of = order("a b c")
    pod = pod_of(of, storage_type="swift", job_uid=1000, job_gid=2000)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "runAsUser": 1000,
        "runAsGroup": 2000,
        "fsGroup": 2000,
    }
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["imagePullPolicy"] == "IfNotPresent"
    assert "runAsUser" not in pod_of(of)["securityContext"]


def test_no_container_starts_without_its_ticket() -> None:
    of, options = order("a b c"), {"name": "kx", "instance": "i-1", "namespace": "myproj"}
    job, _ = manifests(of, settings(storage_type="swift"), **options, ticket="pman-1")
    pod = job["spec"]["template"]["spec"]
    source = [{"configMapRef": {"name": "pman-1", "optional": False}}]
    assert pod["initContainers"][0]["envFrom"] == source
    assert pod["containers"][0]["envFrom"] == source
    assert "envFrom" not in pod["containers"][1]  # it starts along with the one before
    assert "envFrom" not in main_of(of)


def test_pull_secrets_and_policy() -> None:
    pod = pod_of(order(), pull_policy="Always", pull_secrets=("one", "two"), kill_grace_s=7.0)
    assert pod["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    assert pod["containers"][0]["imagePullPolicy"] == "Always"
    assert pod["terminationGracePeriodSeconds"] == 7


def test_labels_find_the_job_again() -> None:
    job = job_of(order(jid="a/b: c", labels={"team": "x"}))
    labels = {
        "team": "x",
        "pman.instance": "i-1",
        "pman.job": JOB_NAME,
        "pman.jid": "a-b--c",
        "job-origin": "pman",
    }
    assert job["metadata"]["labels"] == labels
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    assert job["metadata"]["annotations"] == {"pman.jid": "a/b: c"}
    assert len(JOB_NAME) <= 63


@pytest.mark.parametrize("text", ["", "-", "é" * 100, "x" * 200, "a_b.c-", "…a"])
def test_label_values_are_legal(text: str) -> None:
    value = label_value(text)
    assert len(value) <= 63
    assert value.isascii()
    assert value == value.strip("-_.")


@pytest.mark.parametrize("label", ["job-origin", "job-name", "batch.kubernetes.io/job-name"])
def test_labels_that_select_pods_are_refused(label: str) -> None:
    with pytest.raises(RequestError, match=label) as caught:
        check_labels(order(labels={label: "x"}))
    assert caught.value.field == "labels"


@pytest.mark.parametrize("name", [".", "..", "..a"])
def test_variables_that_no_pod_may_have_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="env"):
        check_env(order(env={name: "x"}))
    check_env(order(env={".a": "x", "A-b": "y"}))


def test_names_leave_room_for_pods_and_are_unique() -> None:
    assert names_of(order(jid="Os_1")) == ["os-1", "os-1-b64ea"]
    assert names_of(order(jid="///"))[0] == "job"
    long = names_of(order(jid="x" * 100))
    assert [len(name) for name in long] == [51, 57]
    assert names_of(order(jid="publish")) == ["publish-b64ea"]


@pytest.mark.parametrize(
    ("jid", "base"),
    [("Os_1", "os-1"), ("///", "job"), ("x" * 99, "x" * 48), ("publish", "publish")],
)
def test_a_job_with_a_name_of_its_own_tries_no_other(jid: str, base: str) -> None:
    block = {"target": {"image": "local/busybox:1"}, "uniqueName": True}
    (name,) = names_of(order(jid=jid, container=block))
    assert name.rpartition("-")[0] == base
    assert len(name) <= 57


# --- storage ------------------------------------------------------------------------------


def shared(path: str | None) -> dict[str, Any]:
    env = {} if path is None else {"shareDir": path}
    return {"target": {"image": "i"}, "manager": {"env": env}}


@pytest.mark.parametrize(
    ("share", "base", "jid", "path"),
    [
        ("/tmp/share/key-1", None, "os-1", "/tmp/share/key-os-1"),
        ("/tmp/share/key-1", "/store", "os-1", "/store/key-1"),
        (None, "/store/", "os-1", "/store/key-os-1"),
        (None, None, "../../etc", "/tmp/share/key-..-..-etc"),
    ],
)
def test_the_folder_of_the_node(share: str | None, base: str | None, jid: str, path: str) -> None:
    of = order(jid=jid, container=shared(share))
    assert host_path(of, settings(store_base=base)) == path


def test_a_folder_with_dots_is_refused() -> None:
    with pytest.raises(RequestError, match="shareDir"):
        order(container=shared("/a/.."))


@pytest.mark.parametrize(
    ("kind", "volume"),
    [
        ("emptyDir", {"emptyDir": {}}),
        ("hostPath", {"hostPath": {"path": "/tmp/share/key-kx", "type": "DirectoryOrCreate"}}),
        ("pvc", {"persistentVolumeClaim": {"claimName": "c-1"}}),
        ("claim", {"persistentVolumeClaim": {"claimName": "kx-storage-claim"}}),
        ("swift", {"persistentVolumeClaim": {"claimName": "kx-storage-claim"}}),
    ],
)
def test_the_share_is_mounted_whatever_it_is(kind: str, volume: dict[str, Any]) -> None:
    pod = pod_of(order("a b c"), storage_type=kind, share_claim="c-1")
    assert pod["volumes"][0] == {"name": "shared-volume", **volume}
    mount = pod["containers"][0]["volumeMounts"][0]
    assert (mount["name"], mount["mountPath"]) == ("shared-volume", "/share")
    assert mount.get("subPath") == ("key-kx" if kind == "pvc" else None)


def test_a_claim_of_its_own() -> None:
    _, claim = made(
        order(),
        storage_type="claim",
        claim_size_bytes=500 << 20,
        claim_access_mode="ReadWriteOnce",
        storage_class="fast",
    )
    assert claim is not None
    assert claim["metadata"]["name"] == "kx-storage-claim"
    assert claim["metadata"]["labels"]["pman.job"] == JOB_NAME
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "500Mi"}},
        "storageClassName": "fast",
    }
    assert made(order(), storage_type="pvc", share_claim="c-1")[1] is None


def test_swift_needs_two_folders() -> None:
    with pytest.raises(RequestError, match="incoming"):
        check_storage(order("one"), settings(storage_type="swift"))
    check_storage(order("one two"), settings(storage_type="swift"))


@pytest.mark.parametrize("jid", ["", "a b", "../..", "x" * 500, "é"])
def test_folders_are_one_component(jid: str) -> None:
    name = folder_name(jid)
    assert name.startswith("key-")
    assert "/" not in name
    assert len(name) < 256
