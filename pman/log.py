"""Set-up of the log: level, place, form, and secrets that may not appear in it.

Knows nothing of settings; everybody else just uses `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import json
import logging
import logging.handlers
import os
import re
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from pman.errors import StartError

#: Stands for a secret.
MASK = "***"

#: Shortest secret that is looked for, characters; a shorter one would mask half of the words.
MIN_SECRET_LENGTH = 4

#: Level of pman's own loggers, and of those of libraries, by `--verbosity`.
LEVELS = {
    0: (logging.ERROR, logging.ERROR),
    1: (logging.INFO, logging.WARNING),
    2: (logging.DEBUG, logging.WARNING),
    3: (logging.DEBUG, logging.DEBUG),
}

#: Loggers of what there may be very much of: a line for each request, and for each change of a
#: job's state.
ACCESS, JOBS = "pman.access", "pman.jobs"

#: From here on they speak, by the form of the log.
CHATTY_FROM = {"text": 2, "json": 1}

#: Colours of date, host, module and message on a terminal; the last one ends them.
COLOURS = ("\x1b[0;36m", "\x1b[1;36m", "\x1b[1;34m", "\x1b[0m")
PLAIN = ("", "", "", "")

#: What a client's text could use to forge a line or to command a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


#: Id of the request that this thread carries out, "" for none; kept only where `ACCESS` speaks.
_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")


@contextlib.contextmanager
def about_request(request_id: str) -> Iterator[None]:
    """Have what this thread logs meanwhile name a request."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def current_request() -> str:
    """Return the id of the request that this thread carries out, "" when that is not known."""
    return _request_id.get()


class Secrets:
    """Texts that must not be shown. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, secrets: Iterable[str]) -> None:
        """Mask these texts from now on, also as `repr` and JSON spell them."""
        with self._lock:
            for secret in secrets:
                if len(secret) >= MIN_SECRET_LENGTH:
                    self._known |= {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}
            if self._known:
                # longest first: a secret that begins another one would leave its rest
                longest_first = sorted(self._known, key=len, reverse=True)
                self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def hide(self, text: str) -> str:
        """Return the text with every secret replaced by `***`."""
        pattern = self._pattern
        return text if pattern is None else pattern.sub(MASK, text)


_secrets = Secrets()


def mask(secrets: Iterable[str]) -> None:
    """Keep these texts out of the log from now on; a last line of defence."""
    _secrets.add(secrets)


class LineFormatter(logging.Formatter):
    """`YYYY-MM-DD hh:mm:ss | host | module | message`, in local time.

    Masks the whole text, so that secrets in tracebacks are caught too. Lines after the first are
    indented: text of a client cannot pass for a line of its own.
    """

    def __init__(self, *, coloured: bool = False) -> None:
        date, host, module, end = COLOURS if coloured else PLAIN
        # the host's own name, looked up nowhere
        name = socket.gethostname().replace("%", "%%")
        super().__init__(
            f"{date}%(asctime)s{end} | {host}{name}{end} | {module}%(name)s{end} | %(message)s",
            "%Y-%m-%d %H:%M:%S",
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Fill in the line; its message has no control characters."""
        record.message = _printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return the traceback, without control characters."""
        return _printable(super().formatException(ei))

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record, traceback included."""
        if record.exc_text:  # left there by another handler
            record.exc_text = _printable(record.exc_text)
        return _secrets.hide(super().format(record)).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message` and fields.

    A record's `fields`, a dict, are put beside them: `log.info("...", extra={"fields": {...}})`.
    ASCII only, so that nothing in it can end a line or command a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record; every text in it is masked before it is spelled."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := current_request():
            line["requestId"] = request_id
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        hide = _secrets.hide
        return json.dumps(
            {key: hide(value) if isinstance(value, str) else value for key, value in line.items()},
            default=lambda value: hide(repr(value)),
        )


def _printable(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class StreamHandler(logging.StreamHandler[TextIO]):
    """Writes to stdout, and goes on when nobody reads it any more."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the record when the stream is closed or full; complain about anything else."""
        if not is_lost_stream(sys.exc_info()[1]):
            super().handleError(record)


class FileHandler(logging.handlers.WatchedFileHandler):
    """Writes to a file that only we may read; opens it again when it was rotated away."""

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=_open_private,
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the record when the disk is full; complain about anything else."""
        if not is_lost_stream(sys.exc_info()[1]):
            super().handleError(record)


def is_lost_stream(error: BaseException | None) -> bool:
    """Return whether an error of `write` means that the stream is gone, not that we are wrong."""
    is_closed = isinstance(error, ValueError) and "closed file" in str(error)
    return is_closed or isinstance(error, OSError)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def set_up(verbosity: int, path: Path | None = None, form: str = "text") -> None:
    """Send the log of the whole process to stdout, or to a file; may be called again.

    Args:
        verbosity: See `LEVELS`; what is higher is taken as the highest.
        path: File to append to, made together with its folder; None for stdout.
        form: text | json.
    Raises:
        StartError: The file cannot be opened.
    """
    level, library_level = LEVELS[min(verbosity, max(LEVELS))]
    root = logging.getLogger()
    handler = _make_handler(path)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    for old in root.handlers[:]:
        if isinstance(old, StreamHandler | FileHandler):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(library_level)
    logging.getLogger("pman").setLevel(level)
    is_chatty = verbosity >= CHATTY_FROM[form]
    for name in (ACCESS, JOBS):
        logging.getLogger(name).setLevel(logging.INFO if is_chatty else logging.WARNING)
    logging.captureWarnings(True)


def _make_handler(path: Path | None) -> logging.Handler:
    if path is None:
        stream = sys.stdout
        if stream is None:  # it was closed before we were started
            return logging.NullHandler()
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        handler: logging.Handler = StreamHandler(stream)
        handler.setFormatter(LineFormatter(coloured=has_colours(stream)))
        return handler
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as exc:
        raise StartError(f"log file {str(path)!r} cannot be opened: {exc.strerror}") from exc
    handler.setFormatter(LineFormatter())
    return handler


def has_colours(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal, and its owner likes colours.

    Source: https://no-color.org
    """
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()
