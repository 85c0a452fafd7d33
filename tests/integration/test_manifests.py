"""The manifests of openshift/: alike in both forms, restricted, valid, no right too many."""

from __future__ import annotations

import copy
import json
import secrets
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from engines import need_kubernetes
from manifests import (
    ROOT,
    KubectlFailed,
    Object,
    by_kind,
    expand,
    kubectl,
    kustomize,
    openshift_kinds,
    template,
    tree_with_tokens,
    validate,
    without_hashes,
)

import pman
from pman.auth import parse_tokens
from pman.backends._openshift import project
from pman.backends._openshift.access import needs_of
from pman.config import Settings, parse_arguments

BASE = ROOT / "openshift" / "base"
OVERLAYS = ("kubernetes", "openshift")

Right = tuple[str, str, str]


def rights(rules: list[Object]) -> set[Right]:
    """Return {(API group, resource, verb)} of the rules of a role."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def pod_of(deployment: Object) -> Object:
    pod: Object = deployment["spec"]["template"]["spec"]
    return pod


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of openshift/ with tokens."""
    return tree_with_tokens(tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="module")
def overlays(tree: Path) -> dict[str, dict[str, Object]]:
    """{overlay: {kind: object}}."""
    need_kubernetes()
    return {name: by_kind(kustomize(tree / "overlays" / name)) for name in OVERLAYS}


# --- what is written ------------------------------------------------------------------------


def test_template_makes_the_objects_of_the_overlay(overlays: dict[str, dict[str, Object]]) -> None:
    made = by_kind(expand(template(), TOKEN="from-the-template"))
    built = by_kind(without_hashes(list(overlays["openshift"].values())))
    # tokens differ, and in a Template they are not encoded
    assert made["Secret"].pop("stringData") == {"tokens": "from-the-template"}
    assert list(built["Secret"].pop("data")) == ["tokens"]
    assert made == built


def test_template_has_no_parameter_that_is_not_used() -> None:
    shipped = template()
    text = json.dumps(shipped["objects"])
    assert [p["name"] for p in shipped["parameters"] if f"${{{p['name']}}}" not in text] == []


def test_template_makes_a_token_of_its_own() -> None:
    first, second = (by_kind(expand(template()))["Secret"]["stringData"]["tokens"] for _ in "12")
    assert first != second
    assert list(parse_tokens(first.encode(), Path("tokens"))) == [first]
    assert len(first) == 64


def test_no_token_is_shipped() -> None:
    assert list((ROOT / "openshift").rglob("tokens.txt")) == []
    assert [p for p in (ROOT / "openshift").rglob("*.yaml") if "stringData" in p.read_text()] == [
        ROOT / "openshift" / "template.yaml"
    ]


def test_image_is_that_of_this_version(overlays: dict[str, dict[str, Object]]) -> None:
    expected = f"fnndsc/pman:{pman.__version__}"
    images = [
        pod_of(by_kind(expand(template()))["Deployment"])["containers"][0]["image"],
        *(pod_of(kinds["Deployment"])["containers"][0]["image"] for kinds in overlays.values()),
        pod_of(yaml.safe_load((BASE / "deployment.yaml").read_text()))["containers"][0]["image"],
    ]
    assert images == [expected] * 4


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pman_understands_its_settings(
    overlays: dict[str, dict[str, Object]], overlay: str
) -> None:
    settings = settings_of(overlays[overlay])
    assert settings.db_path == Path("/var/lib/pman/db")
    assert settings.token_path == Path("/etc/pman/tokens")
    assert settings.enable_token_auth
    assert settings.disable_host_jobs
    assert (settings.container_env, settings.project) == ("openshift", "a-project")
    assert (settings.rawmode, settings.http, settings.listeners) == (True, True, 12)
    assert (settings.ip, settings.port) == ("0.0.0.0", 5010)
    assert settings.job_uid == (10001 if overlay == "kubernetes" else None)


def settings_of(kinds: dict[str, Object]) -> Settings:
    """Return the settings that pman has in the pod."""
    container = pod_of(kinds["Deployment"])["containers"][0]
    named = {item["name"]: item.get("value", "a-project") for item in container["env"]}
    settings = parse_arguments(container["args"], {**kinds["ConfigMap"]["data"], **named})
    assert isinstance(settings, Settings)
    return settings


def test_what_is_kept_fits_into_the_volume(overlays: dict[str, dict[str, Object]]) -> None:
    kinds = overlays["openshift"]
    size = kinds["PersistentVolumeClaim"]["spec"]["resources"]["requests"]["storage"]
    assert size.endswith("Gi")
    assert settings_of(kinds).keep_bytes <= int(size[:-2]) * 2**30 * 0.6


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_is_restricted(overlays: dict[str, dict[str, Object]], overlay: str) -> None:
    """Source: Kubernetes, "Pod Security Standards", restricted."""
    pod = pod_of(overlays[overlay]["Deployment"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    allowed = {"persistentVolumeClaim", "secret", "emptyDir"}
    assert {key for volume in pod["volumes"] for key in volume if key != "name"} <= allowed
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container["ports"])


def test_uid_is_the_choice_of_openshift(overlays: dict[str, dict[str, Object]]) -> None:
    given = pod_of(overlays["openshift"]["Deployment"])["securityContext"].keys()
    assert not given & {"runAsUser", "runAsGroup", "fsGroup"}
    given = pod_of(overlays["kubernetes"]["Deployment"])["securityContext"].keys()
    assert given >= {"runAsUser", "runAsGroup", "fsGroup"}


def test_overlay_of_the_documentation_builds(tree: Path) -> None:
    need_kubernetes()
    text = (ROOT / "docs" / "openshift.rst").read_text()
    _, _, rest = text.partition("# openshift/overlays/mine/kustomization.yaml\n")
    shown, _, _ = rest.partition("\n\n")
    mine = tree / "overlays" / "mine"
    mine.mkdir(exist_ok=True)
    (mine / "kustomization.yaml").write_text(textwrap.dedent(shown))
    kinds = by_kind(without_hashes(kustomize(mine)))
    image = pod_of(kinds["Deployment"])["containers"][0]["image"]
    assert image == f"registry.example.org/pman:{pman.__version__}"
    assert kinds["PersistentVolumeClaim"]["spec"]["storageClassName"] == "fast"
    assert settings_of(kinds).storage_type == "pvc"
    assert settings_of(kinds).share_claim == "data"
    assert settings_of(kinds).disable_host_jobs


def test_role_holds_what_the_backend_asks_for(overlays: dict[str, dict[str, Object]]) -> None:
    with_claims = Settings(storage_type="claim")
    for overlay in OVERLAYS:
        needs = needs_of(with_claims, is_openshift=overlay == "openshift")
        asked = {(need.group, need.resource, verb) for need in needs for verb in need.verbs}
        assert rights(overlays[overlay]["Role"]["rules"]) == asked


def test_backend_finds_the_route(overlays: dict[str, dict[str, Object]]) -> None:
    key, _, value = project.ROUTE_LABEL.partition("=")
    assert overlays["openshift"]["Route"]["metadata"]["labels"][key] == value


def test_rights_are_documented(overlays: dict[str, dict[str, Object]]) -> None:
    text = (ROOT / "docs" / "openshift.rst").read_text()
    for rule in overlays["openshift"]["Role"]["rules"]:
        (resource,) = rule["resources"]
        (group,) = rule["apiGroups"]
        name = f"``{resource}`` (``{group}``)" if group else f"``{resource}``"
        assert f"   * - {name}\n     - {', '.join(rule['verbs'])}\n" in text


def test_one_daemon_at_a_time(overlays: dict[str, dict[str, Object]]) -> None:
    spec = overlays["openshift"]["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert pod_of(overlays["openshift"]["Deployment"])["terminationGracePeriodSeconds"] == 30


# --- what the server makes of it --------------------------------------------------------------


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace that is removed afterwards."""
    need_kubernetes()
    name = f"pman-manifests-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def with_openshift_kinds(namespace: str) -> Iterator[None]:
    """A server that knows Route and Project."""
    with openshift_kinds():
        yield


@pytest.mark.usefixtures("with_openshift_kinds")
def test_template_expands_to_valid_objects(namespace: str) -> None:
    objects = expand(template(), IMAGE="local/pman:test", SHARE_CLAIM="data", STORAGE_TYPE="pvc")
    made = validate(objects, namespace)
    assert [item["kind"] for item in made] == [item["kind"] for item in objects]
    for sent, item in zip(objects, made, strict=True):
        assert missing(sent.get("spec"), item.get("spec")) == []


@pytest.mark.usefixtures("with_openshift_kinds")
def test_overlay_for_openshift_is_valid(
    overlays: dict[str, dict[str, Object]], namespace: str
) -> None:
    objects = list(overlays["openshift"].values())
    assert len(validate(objects, namespace)) == len(objects)


@pytest.mark.usefixtures("with_openshift_kinds")
def test_server_would_refuse_a_wrong_route(
    overlays: dict[str, dict[str, Object]], namespace: str
) -> None:
    """What the tests above found valid has been looked at."""
    route = copy.deepcopy(overlays["openshift"]["Route"])
    route["spec"]["tls"]["terminate"] = route["spec"]["tls"].pop("termination")
    with pytest.raises(KubectlFailed, match="termination"):
        validate([route], namespace)


def test_overlay_for_kubernetes_is_valid(
    overlays: dict[str, dict[str, Object]], namespace: str
) -> None:
    objects = list(overlays["kubernetes"].values())
    assert len(validate(objects, namespace)) == len(objects)


def missing(sent: Any, made: Any, path: str = "spec") -> list[str]:
    """Return the paths of what was sent and is not in what the server made: it did not know it."""
    if isinstance(sent, dict):
        if not isinstance(made, dict):
            return [path]
        return [
            found
            for key, value in sent.items()
            for found in missing(value, made.get(key), f"{path}.{key}")
        ]
    if isinstance(sent, list):
        if not isinstance(made, list) or len(made) != len(sent):
            return [path]
        return [
            found
            for index, pair in enumerate(zip(sent, made, strict=True))
            for found in missing(*pair, f"{path}[{index}]")
        ]
    return [] if sent == made else [path]


# --- rights ---------------------------------------------------------------------------------


def test_service_account_may_do_what_the_role_says_and_no_more(
    overlays: dict[str, dict[str, Object]], namespace: str
) -> None:
    kinds = overlays["openshift"]
    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        kubectl("apply", "--namespace", namespace, "-f", "-", given=yaml.safe_dump(kinds[kind]))
    role = rights(kinds["Role"]["rules"])
    # what every service account may do is not of our giving
    assert allowed(namespace, "pman") - allowed(namespace, "default") == role
    account = f"{namespace}:pman"
    for verb, resource in (
        ("get", "secrets"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("get", "configmaps"),
        ("create", "serviceaccounts/token"),
        ("update", "roles.rbac.authorization.k8s.io"),
        ("deletecollection", "jobs.batch"),
    ):
        assert not may(account, verb, resource, namespace), f"{verb} {resource}"
    assert may(account, "create", "jobs.batch", namespace)
    assert not may(account, "create", "jobs.batch", "default")


def allowed(namespace: str, account: str) -> set[Right]:
    """Return what a service account may do in a namespace, as the server says."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = kubectl(
        *("create", "--as", f"system:serviceaccount:{namespace}:{account}", "-o", "json"),
        *("-f", "-"),
        given=json.dumps(review),
    )
    return rights(json.loads(answer)["status"]["resourceRules"])


def may(account: str, verb: str, resource: str, namespace: str) -> bool:
    """Say whether a service account has a right; account is `namespace:name`."""
    try:
        kubectl(
            *("auth", "can-i", verb, resource, "--namespace", namespace),
            *("--as", f"system:serviceaccount:{account}"),
        )
    except KubectlFailed:
        return False  # kubectl prints "no" and ends with 1
    return True
