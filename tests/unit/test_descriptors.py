"""The limit on open files: raised for us, and handed on as it was."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from pman import descriptors

#: Raises the limit, has a child restore it, and prints the limits of both.
PROGRAM = """
import os, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from pman import descriptors
descriptors.raise_limit({wanted})
print(resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
child = '''
import os, resource
from pman import descriptors
descriptors.restore_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE), "PMAN_OPEN_FILES" in os.environ)
'''
environment = {{**os.environ, **descriptors.inherited_limit()}}
subprocess.run([sys.executable, "-c", child], env=environment, check=True)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "raised"),
    [(100, 400, 300, 300), (100, 400, 1000, 400), (200, 400, 150, 200), (400, 400, 400, 400)],
)
def test_the_soft_limit_is_raised_and_restored(
    soft: int, hard: int, wanted: int, raised: int
) -> None:
    program = PROGRAM.format(soft=soft, hard=hard, wanted=wanted)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines() == [f"({raised}, {hard})", f"({soft}, {hard}) False"]


def test_without_a_word_from_the_parent_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PMAN_OPEN_FILES", raising=False)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors.restore_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    assert "PMAN_OPEN_FILES" not in os.environ
