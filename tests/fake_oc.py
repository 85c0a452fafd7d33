"""Stands in for `oc`, for clusters that are plain Kubernetes.

What `oc` shares with kubectl is kubectl's. The rest is done as OpenShift would:

- `new-project` makes a namespace, and makes it the current one of the kubeconfig, which has to be
  the test's own.
- The user that the restricted-v2 SCC gives to pods is written into Deployments.
- A Route is no object that every API server survives: it is held against its schema and kept beside
  the kubeconfig, where `get route` finds it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import yaml
from manifests import KubectlFailed, Object, kubectl, kustomize, openshift_kinds, validate

#: First of a range of user ids such as OpenShift gives to each project.
PROJECT_UID = 1_000_650_000


def write_to(folder: Path) -> None:
    """Write a program `oc` that runs this file."""
    program = folder / "oc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(0o755)


def routes_path() -> Path:
    """Return where Routes are kept."""
    return Path(os.environ["KUBECONFIG"]).with_name("routes.json")


def new_project(name: str) -> str:
    said = kubectl("create", "namespace", name)
    return said + kubectl("config", "set-context", "--current", f"--namespace={name}")


def apply(folder: str) -> str:
    """Apply a kustomization to the current project."""
    objects = kustomize(Path(folder))
    routes = [item for item in objects if item["kind"] == "Route"]
    others = [_as_admitted(item) for item in objects if item["kind"] != "Route"]
    said = kubectl("apply", "-f", "-", given=yaml.safe_dump_all(others))
    namespace = kubectl("config", "view", "--minify", "-o", "jsonpath={..namespace}")
    with openshift_kinds("route"):
        validate(routes, namespace)
    routes_path().write_text(json.dumps(routes))
    return said


def _as_admitted(item: Object) -> Object:
    """Return an object with what the SCC of a project adds to its pods."""
    if item["kind"] == "Deployment":
        given = item["spec"]["template"]["spec"]["securityContext"]
        given |= {"runAsUser": PROJECT_UID, "fsGroup": PROJECT_UID}
    return item


def get_route(name: str) -> str:
    """Return a line of the Route, and fail if there is none."""
    routes = json.loads(routes_path().read_text()) if routes_path().exists() else []
    for route in routes:
        if route["metadata"]["name"] == name:
            spec = route["spec"]
            return f"{name} {spec['to']['name']} {spec['port']['targetPort']}\n"
    raise KubectlFailed(f'routes.route.openshift.io "{name}" not found')


def main(words: list[str]) -> str:
    """Return what `oc` with these words prints."""
    match words:
        case ["new-project", name]:
            return new_project(name)
        case ["apply", "-k", folder]:
            return apply(folder)
        case ["get", "route", name]:
            return get_route(name)
        case ["rollout", "status", *_]:
            return kubectl(*words)
    raise KubectlFailed(f"no such command here: oc {' '.join(words)}")


if __name__ == "__main__":
    try:
        sys.stdout.write(main(sys.argv[1:]))
    except KubectlFailed as exc:
        sys.exit(f"error: {exc}")
