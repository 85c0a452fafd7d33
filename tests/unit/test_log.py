"""`log`: the form of a line, levels, places, and what must not appear."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pman import log
from pman.errors import StartError

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| (\S+) \| (\S+) \| (.*)$")


@pytest.fixture(autouse=True)
def _same_logging_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_secrets", log.Secrets())
    root, pman = logging.getLogger(), logging.getLogger("pman")
    before = root.handlers[:], root.level, pman.level
    chatty = [logging.getLogger(name) for name in (log.ACCESS, log.JOBS)]
    levels = [logger.level for logger in chatty]
    yield
    for logger, level in zip(chatty, levels, strict=True):
        logger.setLevel(level)
    for handler in root.handlers[:]:
        if handler not in before[0]:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(before[1])
    pman.setLevel(before[2])
    logging.captureWarnings(False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "pman.log"


def words(path: Path) -> list[str]:
    """Return the messages in a log file."""
    return [match[3] for line in path.read_text().splitlines() if (match := LINE.match(line))]


def speak() -> None:
    for name in ("pman.x", "library"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "%s %s", name, logging.getLevelName(level))


@pytest.mark.parametrize(
    ("verbosity", "heard"),
    [
        (0, "pman.x ERROR|library ERROR"),
        (1, "pman.x INFO|pman.x WARNING|pman.x ERROR|library WARNING|library ERROR"),
        (
            2,
            "pman.x DEBUG|pman.x INFO|pman.x WARNING|pman.x ERROR|library WARNING|library ERROR",
        ),
    ],
)
def test_levels(verbosity: int, heard: str, path: Path) -> None:
    log.set_up(verbosity, path)
    speak()
    assert words(path) == heard.split("|")


@pytest.mark.parametrize("verbosity", [3, 9])
def test_everything_from_level_3(verbosity: int, path: Path) -> None:
    log.set_up(verbosity, path)
    speak()
    assert len(words(path)) == 8


def test_a_line_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up(1)
    logging.getLogger("pman.services.front").info("hello %s", "you")
    out, err = capsys.readouterr()
    match = LINE.match(out)
    assert match is not None
    assert match[2] == "pman.services.front"
    assert match[3] == "hello you"
    assert err == ""
    assert "\x1b" not in out


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with open(slave, "w") as terminal, open(master, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stdout", terminal)
        log.set_up(1)
        logging.getLogger("pman").info("hello")
        assert b"\x1b[0;36m" in screen.read(4096)
        monkeypatch.setenv("NO_COLOR", "1")
        assert not log.has_colours(terminal)


def test_set_up_again_moves_the_log(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    log.set_up(1, path)
    log.set_up(1, other)
    logging.getLogger("pman").info("hello")
    assert words(path) == []
    assert words(other) == ["hello"]


def test_the_file_is_ours_alone_and_is_appended_to(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("before\n")
    path.chmod(0o600)
    log.set_up(1, path)
    logging.getLogger("pman").info("hello")
    assert path.read_text().startswith("before\n")
    path.rename(path.with_suffix(".1"))
    logging.getLogger("pman").info("rotated")
    assert words(path) == ["rotated"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be opened: Is a directory"):
        log.set_up(1, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be opened: "):
        log.set_up(1, tmp_path / "file" / "log")


def test_secrets_do_not_appear(path: Path) -> None:
    log.set_up(1, path)
    log.mask(["s3cret", "s3cret-longer", 'q"uo\\te\u00e9'])
    log.mask(["later"])
    logger = logging.getLogger("pman.x")
    logger.info("%s %r %s", "s3cret", {"token": "s3cret-longer"}, "xlaterx")
    logger.info("%s", json.dumps(['q"uo\\te\u00e9']))
    logger.info("%r", 'q"uo\\te\u00e9')
    try:
        raise ValueError("s3cret in an error")
    except ValueError:
        logger.exception("failed")
    text = path.read_text()
    assert words(path)[0] == "*** {'token': '***'} x***x"
    assert words(path)[1] == '["***"]'
    assert words(path)[2] == "'***'"
    assert "ValueError: *** in an error" in text
    assert "s3cret" not in text
    assert "longer" not in text


def test_short_secrets_do_not_shred_the_log(path: Path) -> None:
    log.set_up(1, path)
    log.mask(["", "a"])
    logging.getLogger("pman").info("banana")
    assert words(path) == ["banana"]


def test_text_of_a_client_cannot_forge_lines_or_command_a_terminal(path: Path) -> None:
    log.set_up(1, path)
    forged = "x\n2026-01-01 00:00:00 | host | pman | forged\r\x1b[2J\x00\x9b"
    logging.getLogger("pman").info("%s", forged)
    try:
        raise ValueError(forged)
    except ValueError:
        logging.getLogger("pman").exception("failed")
    assert words(path) == ["x", "failed"]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", path.read_text())
    assert r"\x1b[2J\x00\x9b" in path.read_text()


def test_what_is_no_text_is_written_anyhow(path: Path) -> None:
    log.set_up(1, path)
    logging.getLogger("pman").info("lone \udc80 surrogate")
    assert words(path) == [r"lone \udc80 surrogate"]


# --- an output that goes away, in processes of their own ------------------------------------

SPEAKER = """
import logging, sys
from pman import log
log.set_up(1)
sys.stdin.readline()
for number in range(3):
    logging.getLogger("pman").info("line %d \\udc80", number)
sys.stderr.write("alive")
"""


def speak_in_process(**streams: int | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SPEAKER],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        **streams,  # type: ignore[arg-type]
    )


def test_a_closed_pipe_does_not_end_the_process() -> None:
    process = speak_in_process(stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(b"go\n", timeout=30)
    assert err == b"alive"


def test_a_full_disk_does_not_end_the_process() -> None:
    with open("/dev/full", "wb") as full:
        _, err = speak_in_process(stdout=full.fileno()).communicate(b"go\n", timeout=30)
    assert err == b"alive"


def test_stdout_that_was_never_open() -> None:
    command = [sys.executable, "-c", SPEAKER]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(closed, input=b"go\n", stderr=subprocess.PIPE, timeout=30)
    assert done.stderr == b"alive"


# --- JSON -----------------------------------------------------------------------------------


def objects(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_of_json(path: Path) -> None:
    log.set_up(1, path, "json")
    logging.getLogger("pman.x").warning("two\nlines of %s\x1b[0m", "cafe\u0301")
    (line,) = objects(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("time")))
    assert line == {
        "level": "warning",
        "logger": "pman.x",
        "message": "two\nlines of cafe\u0301\x1b[0m",
    }
    assert path.read_bytes().isascii()


def test_fields_and_the_request_of_json(path: Path) -> None:
    log.set_up(1, path, "json")
    with log.about_request("r-1"):
        logging.getLogger("pman.x").info("m", extra={"fields": {"jid": "7", "exitCode": None}})
    logging.getLogger("pman.x").info("n")
    first, second = objects(path)
    assert (first["jid"], first["exitCode"], first["requestId"]) == ("7", None, "r-1")
    assert "requestId" not in second


def test_a_traceback_of_json(path: Path) -> None:
    log.set_up(1, path, "json")
    try:
        raise ValueError("bad \x07")
    except ValueError:
        logging.getLogger("pman.x").exception("oops")
    (line,) = objects(path)
    assert "ValueError: bad \x07" in str(line["exception"])
    assert str(line["exception"]).startswith("Traceback")


def test_secrets_are_masked_in_json_everywhere(path: Path) -> None:
    log.set_up(1, path, "json")
    secret = 'quo"te\\and caf\xe9'
    log.mask([secret])
    try:
        raise ValueError(secret)
    except ValueError:
        logging.getLogger("pman.x").exception(
            "got %s", secret, extra={"fields": {"path": f"/?t={secret}", "odd": {secret}}}
        )
    (line,) = objects(path)
    assert "quo" not in path.read_text()
    assert line["message"] == "got ***"
    assert line["path"] == "/?t=***"


@pytest.mark.parametrize(
    ("verbosity", "form", "is_heard"),
    [
        (0, "json", False),
        (1, "json", True),
        (2, "json", True),
        (1, "text", False),
        (2, "text", True),
        (3, "text", True),
    ],
)
def test_who_writes_much_is_heard_on_demand(
    verbosity: int, form: str, is_heard: bool, path: Path
) -> None:
    log.set_up(verbosity, path, form)
    for name in (log.ACCESS, log.JOBS):
        assert logging.getLogger(name).isEnabledFor(logging.INFO) is is_heard
