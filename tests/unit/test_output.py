"""Files that hold what jobs print: what a removal leaves, and what a reply holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pman import output as output_module
from pman.job.record import run_name
from pman.output import OutputFiles, joined

ONE = "20261123085225.330570_00000000-0000-0000-0000-000000000001"
TWO = "20261123085225.330570_00000000-0000-0000-0000-000000000002"


@pytest.fixture
def output(tmp_path: Path) -> OutputFiles:
    made = OutputFiles(tmp_path / "output", 1024)
    for name in (ONE, TWO):
        made.folder(name).mkdir(parents=True)
        made.path(name, 0, "stdout").write_text("text")
    return made


def test_the_last_job_of_a_day_takes_its_folder_along(output: OutputFiles) -> None:
    output.remove(ONE)
    assert [path.name for path in output.root.glob("*/*")] == [TWO]
    output.remove(TWO)
    output.remove(TWO)
    assert list(output.root.iterdir()) == []


def test_the_tries_of_a_job_go_together(output: OutputFiles) -> None:
    for attempt in (2, 4):  # the third one has printed nothing
        name = run_name(ONE, attempt)
        output.folder(name).mkdir()
        output.path(name, 0, "stdout").write_text("more text")
    assert output.size_bytes(ONE) == 4
    assert output.size_bytes(ONE, 4) == 4 + 9 + 9
    output.remove(ONE, 4)
    assert [path.name for path in output.root.glob("*/*")] == [TWO]


def test_the_output_of_many_containers_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "MAX_JOINED_CHARACTERS", 10)
    texts = iter(["12345", "67890"])
    assert joined(texts) == "1234567890"
    texts = iter(["12345", "678901", "never read"])
    said = "\n[pman: what other containers have printed is not shown]\n"
    assert joined(texts) == f"1234567890{said}"
    assert next(texts) == "never read"
