"""`docs/systemd/pman.service`: systemd takes it, and it spares jobs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "docs" / "systemd" / "pman.service"


def settings() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))


def test_it_spares_jobs() -> None:
    unit = settings()
    assert unit["Type"] == "notify"
    assert unit["KillMode"] == "process"
    assert unit["OOMPolicy"] == "continue"
    assert unit["Restart"] == "on-failure"
    for harmful in ("PrivateTmp", "PrivateDevices", "ProtectClock", "DynamicUser", "ProtectHome"):
        assert harmful not in unit


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_it(tmp_path: Path) -> None:
    copy = tmp_path / "pman.service"
    copy.write_text(UNIT.read_text().replace("/opt/pman/bin/pman", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
