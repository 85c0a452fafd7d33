"""Which real engines there are to test with, and why not where there is none.

They are found as on a user's machine: DOCKER_HOST, KUBECONFIG.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

import pytest

#: How long an engine may take to answer before it counts as absent, seconds.
PROBE_TIMEOUT_S = 20.0


@functools.cache
def swarm_problem() -> str:
    """Return why there is no Docker Swarm to test with, "" when there is one."""
    if shutil.which("docker") is None:
        return "no docker command"
    said = _ask("docker", "info", "--format", "{{.Swarm.ControlAvailable}}")
    return "" if said == "true" else f"no Docker Engine that manages a swarm: {said}"


@functools.cache
def kubernetes_problem() -> str:
    """Return why there is no Kubernetes to test with, "" when there is one."""
    if "KUBECONFIG" not in os.environ:
        return "KUBECONFIG is not set"
    if shutil.which("kubectl") is None:
        return "no kubectl command"
    said = _ask("kubectl", "get", "--raw", "/healthz")
    return "" if said == "ok" else f"no Kubernetes API server: {said}"


def _ask(*words: str) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    return (done.stdout if done.returncode == 0 else done.stderr).strip()


def need_swarm() -> None:
    """Skip the test where there is no swarm, with the reason."""
    _skip_for(swarm_problem())


def need_kubernetes() -> None:
    """Skip the test where there is no Kubernetes, with the reason."""
    _skip_for(kubernetes_problem())


def _skip_for(problem: str) -> None:
    if problem and os.environ.get("PMAN_TEST_ENGINES") == "required":
        pytest.fail(f"the engines are required, and there is {problem}")
    if problem:
        pytest.skip(problem)
