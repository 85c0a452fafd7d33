"""The manifests of openshift/, built as kustomize and OpenShift build them; and kubectl."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from daemon_process import wait_until

ROOT = Path(__file__).parents[1]
CRDS = ROOT / "tests" / "integration" / "crds"

#: A Kubernetes object, as in its YAML.
Object = dict[str, Any]

#: Longest that kubectl may take, seconds.
KUBECTL_TIMEOUT_S = 240.0

#: Longest that the server may take to publish the schema of a CRD, seconds.
SCHEMA_TIMEOUT_S = 60.0

#: `[a-zA-Z0-9]{64}`; OpenShift knows more, our Template does not use it.
_GENERATOR = re.compile(r"\[a-zA-Z0-9\]\{(\d+)\}")
_PARAMETER = re.compile(r"\$\{([A-Z_]+)\}")
#: What a generator appends to the names of config maps, so that a change brings new pods.
_HASH = re.compile(r"(pman-settings)-[0-9a-z]{10}")


class KubectlFailed(Exception):
    """kubectl ended with an error; its text is what it said."""


def kubectl(*words: str | Path, given: str | None = None) -> str:
    """Run kubectl; return what it printed.

    Args:
        given: Its standard input.
    Raises:
        KubectlFailed: It ended with an error.
    """
    done = subprocess.run(
        ["kubectl", *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=KUBECTL_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise KubectlFailed(f"kubectl {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def tree_with_tokens(folder: Path, tokens: str = "") -> Path:
    """Copy openshift/ below `folder`, with a file of tokens in each overlay; return the copy."""
    tree = folder / "openshift"
    shutil.copytree(ROOT / "openshift", tree, ignore=shutil.ignore_patterns("tokens.txt"))
    for overlay in (tree / "overlays").iterdir():
        (overlay / "tokens.txt").write_text(tokens or secrets.token_hex(32) + "\n")
    return tree


def kustomize(folder: Path) -> list[Object]:
    """Return the objects that a kustomization makes."""
    return list(yaml.safe_load_all(kubectl("kustomize", folder)))


def template() -> Object:
    """Return the Template as it is shipped."""
    loaded: Object = yaml.safe_load((ROOT / "openshift" / "template.yaml").read_text())
    return loaded


def expand(template: Object, **given: str) -> list[Object]:
    """Return the objects that `oc process` makes of a Template.

    Args:
        given: Values of parameters.
    Raises:
        ValueError: A parameter is unknown, missing, or made by an expression that is not.
    """
    values = {parameter["name"]: _value(parameter, given) for parameter in template["parameters"]}
    unknown = given.keys() - values.keys()
    if unknown:
        raise ValueError(f"there are no parameters {sorted(unknown)}")

    def replace(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ValueError(f"{match[0]} is used, and is no parameter")
        return values[match[1]]

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {walk(key): walk(value) for key, value in part.items()}
        if isinstance(part, list):
            return [walk(item) for item in part]
        return _PARAMETER.sub(replace, part) if isinstance(part, str) else part

    expanded: list[Object] = walk(template["objects"])
    return expanded


def _value(parameter: Object, given: dict[str, str]) -> str:
    name = parameter["name"]
    value = given.get(name, parameter.get("value", ""))
    if not value and parameter.get("generate") == "expression":
        match = _GENERATOR.fullmatch(parameter["from"])
        if match is None:
            raise ValueError(f"{name} is made by {parameter['from']!r}")
        letters = string.ascii_letters + string.digits
        value = "".join(secrets.choice(letters) for _ in range(int(match[1])))
    if not value and parameter.get("required"):
        raise ValueError(f"{name} is required")
    return str(value)


def without_hashes(objects: list[Object]) -> list[Object]:
    """Return objects with the names that they have before kustomize appends a hash."""
    loaded: list[Object] = json.loads(_HASH.sub(r"\1", json.dumps(objects)))
    return loaded


def by_kind(objects: list[Object]) -> dict[str, Object]:
    """Return {kind: object}; there is one of each."""
    found = {item["kind"]: item for item in objects}
    assert len(found) == len(objects), [item["kind"] for item in objects]
    return found


def survives_custom_objects() -> bool:
    """Say whether the server can be sent an object of a kind that a CRD has added.

    Servers before 1.24 that were built with Go 1.18 or later die of it.
    Source: https://github.com/modern-go/reflect2/issues/26
    """
    server = json.loads(kubectl("get", "--raw", "/version"))
    built_with = re.match(r"go1\.(\d+)", server["goVersion"])
    minor = int(re.match(r"\d+", server["minor"])[0])  # type: ignore[index]
    return minor >= 24 or (built_with is not None and int(built_with[1]) < 18)


def validate(objects: list[Object], namespace: str) -> list[Object]:
    """Return what the server would make of objects.

    What it can't be sent is held against the schema that it has of it, and returned as it is.

    Raises:
        KubectlFailed: One of them is not valid; says which.
    """
    how = "server" if survives_custom_objects() else "client"
    made = []
    for item in objects:
        of_crd = ".openshift.io/" in item["apiVersion"]
        answer = kubectl(
            *("apply", "--namespace", namespace, "--validate=true", "-o", "json", "-f", "-"),
            f"--dry-run={how if of_crd else 'server'}",
            given=yaml.safe_dump(item),
        )
        made.append(json.loads(answer))
    return made


@contextlib.contextmanager
def openshift_kinds(*kinds: str) -> Iterator[None]:
    """Have the server know kinds of OpenShift; those that it did not know are removed afterwards.

    Args:
        kinds: `route`, `project`; both unless given. With Project, pman takes it for OpenShift.
    """
    added = []
    try:
        for path in sorted(CRDS.iterdir()):
            if kinds and path.stem not in kinds:
                continue
            crd = yaml.safe_load(path.read_text())
            name = crd["metadata"]["name"]
            if not kubectl("get", "crd", name, "--ignore-not-found", "-o", "name"):
                kubectl("create", "-f", path)
                added.append(name)
            kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/{name}")
            _wait_for_schema(crd["spec"]["group"], crd["spec"]["names"]["kind"])
        yield
    finally:
        for name in added:
            kubectl("delete", "crd", name, "--wait=true")


def _wait_for_schema(group: str, kind: str) -> None:
    """Wait until the server has published the schema of a kind, which it does after a while."""
    mark = f'"group":"{group}","kind":"{kind}"'
    wait_until(
        lambda: mark in kubectl("get", "--raw", "/openapi/v2"),
        f"the server has a schema of {kind}",
        SCHEMA_TIMEOUT_S,
    )
