"""What a client wants to have run; made from the `meta` of a `run` request, checked once."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pman.errors import RequestError, wrong
from pman.job.callback import parse_target
from pman.job.lenient import eased
from pman.job.pairs import MAX_LABELS, environment, labels
from pman.job.reading import EXPECTED, read_struct
from pman.job.sizes import (
    MAX_CMD_BYTES,
    MAX_NAME_BYTES,
    MAX_STDIN_BYTES,
    check_length,
    check_words,
)

#: Longest time that a client may name, seconds: ten years.
MAX_SECONDS = 315_360_000

#: Most jobs that one may wait for.
MAX_AFTER = 1000

_Seconds = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
_Name = str | int | float


class RunOptions(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`meta` of `run`, as clients spell it; null stands for what is not given."""

    auid: Annotated[_Name, Meta(description="Whose job it is; 1 KiB at most.")]
    jid: Annotated[_Name, Meta(description="Id of the job, 1 KiB at most; need not be unique.")]
    cmd: Annotated[
        str | None, Meta(description="Command line, 1 MiB at most. Either this or argv.")
    ] = None
    argv: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(
            description="Program and arguments, run without a shell; with env 1 MiB at most. Either"
            " this or cmd."
        ),
    ] = None
    threaded: Annotated[Any, Meta(description="True: do not wait for the end of the job.")] = None
    container: Annotated[
        dict[str, Any] | None, Meta(description="What to run it in; without it, on the host.")
    ] = None
    compound: Annotated[
        bool, Meta(description="Whether cmd is split at ';' and each command tracked; host only.")
    ] = True
    env: Annotated[
        dict[str, str | int | float] | None, Meta(description="Environment variables.")
    ] = None
    cwd: Annotated[
        Annotated[str, Meta(pattern="^/", extra={EXPECTED: "an absolute path"})] | None,
        Meta(description="Working directory, an absolute path."),
    ] = None
    stdin: Annotated[
        str | None, Meta(description="What the command reads; 1 MiB at most. Default: nothing.")
    ] = None
    labels: Annotated[
        dict[str, str | int | float] | None,
        Meta(description=f"Names to find the job by; {MAX_LABELS} at most."),
    ] = None
    timeout: Annotated[
        _Seconds | None, Meta(description="How long each try of it may run, seconds.")
    ] = None
    pending_timeout: Annotated[
        _Seconds | None, Meta(description="How long it may wait for its start, seconds.")
    ] = None
    retries: Annotated[
        int, Meta(ge=0, le=100, description="How often it is tried again when it has failed.")
    ] = 0
    backoff: Annotated[
        float,
        Meta(ge=0, le=3600, description="Seconds before the second try; doubled for each more."),
    ] = 10.0
    priority: Annotated[
        int, Meta(ge=-1000, le=1000, description="Who waits with a higher one is started first.")
    ] = 0
    after: Annotated[
        Annotated[list[_Name], Meta(max_length=MAX_AFTER)] | None,
        Meta(description="Ids of jobs that must end well first; the newest job of each id."),
    ] = None
    callback: Annotated[
        str | None, Meta(description="URL that gets the final record of the job.")
    ] = None
    idempotent: Annotated[
        bool, Meta(description="Whether a job with this id is answered instead of a new one.")
    ] = False
    dry_run: Annotated[
        bool, Meta(description="Whether to only tell what would be made; nothing is kept.")
    ] = False
    progress: Annotated[
        bool, Meta(description="Whether to look for progress in what the job prints.")
    ] = True


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A checked `run` request.

    Attributes:
        cmd: Command line as sent, or one that stands for `argv`.
        argv: Program and arguments as sent, or None.
        auid: Apparent user, "" when none; numbers are kept as text.
        jid: Job id of the client, "" when none; numbers are kept as text. Not unique.
        container: The `container` block as sent, or None for a plain host job.
        compound: Whether a host command may be split at its top-level `;`.
        env: Environment variables beside those that the place has.
        cwd: Working directory, or None for that of the place.
        stdin: What it reads, or None for nothing.
        labels: What the client calls it by.
        timeout_s: How long a try may run, seconds, or None.
        pending_timeout_s: How long it may wait for its start, seconds, or None.
        retries: How many more tries than one it may have.
        backoff_s: Before the second try, seconds; doubled for each further one.
        priority: Who waits with a higher one is started first.
        after: Job ids that must end well first.
        callback: URL that gets the final record, "" for none.
        idempotent: Whether a job with this jid is to be answered instead of a new one.
        dry_run: Whether nothing is to be made.
        progress: Whether what it prints is looked at for progress.
        meta: The whole `meta` as sent; backends read their own keys from it.
    """

    cmd: str
    argv: list[str] | None = None
    auid: str
    jid: str
    container: dict[str, Any] | None = None
    compound: bool = True
    env: dict[str, str] = {}
    cwd: str | None = None
    stdin: str | None = None
    labels: dict[str, str] = {}
    timeout_s: float | None = None
    pending_timeout_s: float | None = None
    retries: int = 0
    backoff_s: float = 10.0
    priority: int = 0
    after: list[str] = []
    callback: str = ""
    idempotent: bool = False
    dry_run: bool = False
    progress: bool = True
    meta: dict[str, Any]


def spec_from_meta(meta: dict[str, Any], *, is_lenient: bool = False) -> JobSpec:
    """Check the `meta` of a `run` request.

    Args:
        meta: JSON object as sent.
        is_lenient: Whether it may come from a client of 2.2; see `eased`.
    Returns:
        The spec; `meta` is kept in it, not copied.
    Raises:
        RequestError: A key is missing or of the wrong type; names field, value and expectation.
    """
    given = eased(meta) if is_lenient else meta
    env, tags = environment(given), labels(given)  # first: their errors name the entry
    options = read_struct(given, RunOptions)
    check_words(options.argv or (), env)
    return JobSpec(
        cmd=_command(options),
        argv=options.argv,
        auid=_name("auid", options.auid),
        jid=_name("jid", options.jid),
        container=meta.get("container"),
        compound=options.compound,
        env=env,
        cwd=_text("cwd", options.cwd),
        stdin=_stdin(options.stdin),
        labels=tags,
        timeout_s=options.timeout,
        pending_timeout_s=options.pending_timeout,
        retries=options.retries,
        backoff_s=options.backoff,
        priority=options.priority,
        after=[str(jid) for jid in options.after or ()],
        callback=_callback(options.callback),
        idempotent=options.idempotent,
        dry_run=options.dry_run,
        progress=options.progress,
        meta=meta,
    )


def _command(options: RunOptions) -> str:
    if options.argv is None:
        if options.cmd is None:
            raise RequestError("cmd is missing, and so is argv: run needs one", field="cmd")
        check_length("cmd", options.cmd, MAX_CMD_BYTES)
        _text("cmd", options.cmd)
        return options.cmd
    if options.cmd is not None:
        raise RequestError("cmd and argv are both given, expected one of them", field="argv")
    for number, word in enumerate(options.argv):
        _text(f"argv[{number}]", word)
    if not options.argv[0]:
        raise wrong("argv[0]", "", "the name of a program")
    return shlex.join(options.argv)


def _name(field: str, value: _Name) -> str:
    text = str(value)
    check_length(field, text, MAX_NAME_BYTES)
    return text


def _text(field: str, value: str | None) -> str | None:
    """Return a text that can be given to a program.

    Raises:
        RequestError: It can't.
    """
    if value is not None and "\0" in value:
        raise wrong(field, value, "no NUL character")
    return value


def _stdin(value: str | None) -> str | None:
    if not value:
        return None
    check_length("stdin", value, MAX_STDIN_BYTES)
    return _text("stdin", value)


def _callback(url: str | None) -> str:
    """Return the URL to call back, "" for none; which may be, `run` decides."""
    if url:
        parse_target(url)
    return url or ""
