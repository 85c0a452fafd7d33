"""Every command and payload of README.rst, verbatim, against the daemon that its `make run` starts.

Only the port is another one, so that a pman on 5010 is left alone, and the environment says where
the job DB is. Blocks are carried out once, in their order; `quit` goes last.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_process import DEADLINE_S, wait_until

from pman.cli import text_of
from pman.config import Settings, Show, parse_arguments

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text(encoding="utf-8")

#: Blocks that cannot be carried out here, by how they begin, and why.
NOT_RUN = {"make test": "it is what runs this test"}

#: Chapters that are carried out elsewhere, on real engines, and where.
ELSEWHERE = {
    "Docker Swarm": "integration/test_image_swarm.py",
    "OpenShift and Kubernetes": "integration/test_readme_openshift.py",
}

#: Blocks whose daemon is not that of the quick start: the section has a `make run` of its own.
TOKENS = "Who may ask: tokens"

JOB = re.compile(r"\d{14}\.\d{6}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: What is answered in the envelope; commands for REST fail by themselves, with `curl -f`.
CLIENTS = re.compile(r"^ *(curl|http|pfurl) (?!.*/api/v2)", re.MULTILINE)


class Block(msgspec.Struct, frozen=True):
    """One `code-block` of the README."""

    section: str  # the chapter
    language: str
    text: str
    line: int

    @property
    def kind(self) -> str:
        """What is to be done with it."""
        if self.section in ELSEWHERE:
            return "elsewhere"
        if self.language == "bash":
            if self.text.startswith(tuple(NOT_RUN)):
                return "not run"
            return "start" if re.search(r"^make run", self.text, re.MULTILINE) else "command"
        if self.language == "json":
            return "payload" if '"payload"' in self.text else "reply"
        return {"ini": "settings", "text": "flags"}[self.language]

    @property
    def title(self) -> str:
        return f"line {self.line}: {self.text.splitlines()[0][:60]}"


def read_blocks() -> list[Block]:
    blocks = []
    section = ""
    lines = README.splitlines()
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if re.fullmatch(r"[*#]{4,}", following) and line.strip():
            section = line
        if found := re.fullmatch(r"\.\. (?:code-block|code):: (\w+)", line):
            body: list[str] = []
            for text in lines[number + 2 :]:
                if text and not text.startswith(" "):
                    break
                body.append(text)
            content = textwrap.dedent("\n".join(body)).strip()
            blocks.append(Block(section, found[1], content, number + 1))
    return blocks


BLOCKS = read_blocks()


class Answer(msgspec.Struct):
    """What came of one block: exit status or HTTP status, and the JSON documents it printed."""

    code: int
    documents: list[Any]
    text: str


class Daemon:
    """A `make run` of the README, in a folder that holds what make needs and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.log_path = folder / "pman.log"
        programs = Path(sys.prefix) / "bin"
        environment = folder / ".venv"
        environment.mkdir(parents=True)
        (environment / "bin").symlink_to(programs)
        for name in ("Makefile", "setup.py"):
            (folder / name).symlink_to(ROOT / name)
        # What these stamps say is true, or this test would not run: pman is installed.
        for stamp in (".installed", ".installed-dev"):
            (environment / stamp).touch()
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PORT": "0",
            "PMAN_DBPATH": str(folder / "db"),
        }
        for name in ("VENV", "RUNFLAGS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "XDG_STATE_HOME"):
            self.environment.pop(name, None)

    def start(self, block: Block) -> None:
        """Carry out a `make run`; return when the daemon listens."""
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-euc", block.text],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )

        def look() -> re.Match[str] | None:
            text = self.log_path.read_text()
            assert self.process.poll() is None, text
            return re.search(r"listening on \S+:(\d+)", text)

        self.port = int(wait_until(look, "pman to listen")[1])

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(DEADLINE_S)

    def command(self, block: Block) -> Answer:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text.replace("5010", str(self.port))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=DEADLINE_S,
            check=False,
        )
        return Answer(done.returncode, list(documents(done.stdout)), done.stdout + done.stderr)

    def payload(self, block: Block) -> Answer:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/cmd", block.text.encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
                code, text = reply.status, reply.read().decode()
        except urllib.error.HTTPError as exc:
            code, text = exc.code, exc.read().decode()
        return Answer(code, list(documents(text)), text)


def documents(text: str) -> Iterator[Any]:
    """Yield the JSON objects of a text, one after the other."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        document, end = decoder.raw_decode(text, at)
        yield document
        at = text.find("{", end)


def is_quit(block: Block) -> bool:
    return block.kind == "payload" and json.loads(block.text)["payload"]["action"] == "quit"


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    """The daemon of each section that starts one; that of the quick start is `""`."""
    started: dict[str, Daemon] = {}
    with ExitStack() as stack:
        for block in BLOCKS:
            if block.kind == "start":
                daemon = Daemon(tmp_path_factory.mktemp("readme"))
                daemon.start(block)
                stack.callback(daemon.stop)
                started[block.section if block.section == TOKENS else ""] = daemon
        yield started


@pytest.fixture(scope="module")
def answers(daemons: dict[str, Daemon]) -> dict[int, Answer]:
    """What came of each block that is carried out, by its line."""
    todo = [block for block in BLOCKS if block.kind in ("command", "payload")]
    todo.sort(key=is_quit)  # stable: `quit` goes last, all others keep their order
    came: dict[int, Answer] = {}
    for block in todo:
        daemon = daemons.get(block.section, daemons[""])
        came[block.line] = getattr(daemon, block.kind)(block)
    return came


def blocks_of(*kinds: str) -> list[Any]:
    return [pytest.param(b, id=b.title) for b in BLOCKS if b.kind in kinds]


def needs_curl(block: Block) -> None:
    if "curl -" in block.text and shutil.which("curl") is None:
        pytest.skip("curl is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks_of("command"))
def test_command_does_what_it_says(block: Block, answers: dict[int, Answer]) -> None:
    needs_curl(block)
    answer = answers[block.line]
    assert answer.code == 0, answer.text
    replies = [document for document in answer.documents if "RESTverb" in document]
    assert len(replies) == len(CLIENTS.findall(block.text)), answer.text
    for document in replies:
        assert document["status"] is True, answer.text


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks_of("payload"))
def test_payload_is_carried_out(block: Block, answers: dict[int, Answer]) -> None:
    answer = answers[block.line]
    assert answer.code == 200, answer.text
    assert answer.documents[0]["status"] is True
    assert answer.documents[0]["action"] == json.loads(block.text)["payload"]["action"]


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks_of("reply"))
def test_reply_is_the_one_that_comes(block: Block, answers: dict[int, Answer]) -> None:
    asked = max(line for line in answers if line < block.line)
    shown = json.loads(JOB.sub("JOB", block.text))
    real = json.loads(JOB.sub("JOB", json.dumps(answers[asked].documents[0])))
    assert {key: real.get(key) for key in shown} == shown


@pytest.mark.slow
def test_make_run_prints_the_line_to_try(daemons: dict[str, Daemon]) -> None:
    first = next(b for b in BLOCKS if b.kind == "command")
    printed = daemons[""].log_path.read_text().splitlines()
    assert printed[0] == "Try: " + first.text.replace("5010", "0")


@pytest.mark.slow
def test_a_job_of_the_readme_prints_what_it_should(answers: dict[int, Answer]) -> None:
    block = next(b for b in BLOCKS if b.kind == "command" and '"stdout"' in b.text)
    assert '"stdout": "hello\\n"' in json.dumps(answers[block.line].documents[0]["d_ret"])


@pytest.mark.slow
def test_quit_ends_make_run_well(daemons: dict[str, Daemon], answers: dict[int, Answer]) -> None:
    assert daemons[""].process.wait(DEADLINE_S) == 0, daemons[""].log_path.read_text()


@pytest.mark.slow
def test_tokens_are_needed_where_the_readme_says_so(daemons: dict[str, Daemon]) -> None:
    hello = next(b for b in BLOCKS if b.kind == "payload" and '"hello"' in b.text)
    assert daemons[TOKENS].payload(hello).code == 401


def test_blocks_that_are_not_run_are_known() -> None:
    assert [b.text for b in BLOCKS if b.kind == "not run"] == list(NOT_RUN)


@pytest.mark.parametrize("chapter", ELSEWHERE)
def test_chapters_that_are_carried_out_elsewhere_are(chapter: str) -> None:
    assert any(b.section == chapter and b.language == "bash" for b in BLOCKS)
    text = (ROOT / "tests" / ELSEWHERE[chapter]).read_text(encoding="utf-8")
    assert f'CHAPTER = "{chapter}"' in text
    assert 'DOCUMENT = ROOT / "README.rst"' in text


def test_no_block_is_written_in_a_way_that_hides_it() -> None:
    assert README.count("code-block") == len(BLOCKS)
    assert "::\n\n    " not in re.sub(r"\.\. code-block:: \w+\n\n", "", README)


def test_flags_of_the_readme_are_those_that_desc_shows() -> None:
    (block,) = [b for b in BLOCKS if b.kind == "flags"]
    _, _, rest = text_of(Show.DESC, coloured=False).partition("\n    ARGS\n")
    arguments, _, _ = rest.partition("\n    EXAMPLES\n")
    assert block.text == "ARGS\n\n" + textwrap.dedent(arguments).strip()


def test_configuration_file_of_the_readme_is_read(tmp_path: Path) -> None:
    (block,) = [b for b in BLOCKS if b.kind == "settings"]
    path = tmp_path / "pman.conf"
    path.write_text(block.text)
    settings = parse_arguments(["--config", str(path), "--DBpath", str(tmp_path)], {})
    assert isinstance(settings, Settings)
    assert (settings.port, settings.listeners, settings.max_body_bytes) == (5010, 8, 1 << 20)
