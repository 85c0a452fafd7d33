"""Starts a shepherd from the daemon, in an environment of its own."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from pathlib import Path

from pman.descriptors import inherited_limit
from pman.errors import BackendUnavailable
from pman.shepherd.place import Place

#: How long a shepherd may take to start, seconds; usually a tenth of one.
START_TIMEOUT_S = 20.0


def launch(place: Place) -> None:
    """Start a shepherd; when there is one, the new one ends at once.

    Raises:
        BackendUnavailable: It can't be started; says why.
    """
    # -P: a file in our working directory must not stand in for a module.
    command = [sys.executable, "-P", "-m", "pman.shepherd", os.fspath(place.state_path)]
    try:
        done = subprocess.run(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BackendUnavailable(f"the shepherd can't be started: {exc}") from exc
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise BackendUnavailable(f"the shepherd can't be started: {reason}")


def _environment() -> dict[str, str]:
    """Return the shepherd's own environment, in which it finds pman where we did."""
    environment = public_environment() | inherited_limit()
    root = str(Path(__file__).resolve().parents[2])
    if root not in site.getsitepackages():
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{known}{os.pathsep}{root}" if known else root
    return environment


def public_environment() -> dict[str, str]:
    """Return our environment without what configures pman, which may hold secrets."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PMAN_")}
