"""What the daemon and the shepherd say to each other, and what the shepherd keeps of a job.

One ZeroMQ message is one JSON object; `op` names its kind. The log of a job on disk holds the same:
a `JobRecord` in its first line, an `Update` in each further one.

Whatever the version: all but `Start` and `Refused` stays readable, as do the logs, so that a daemon
can let a shepherd of another version finish its jobs. New fields have defaults.
"""

from __future__ import annotations

import os
import signal

import msgspec

#: Raised when an old shepherd could not start jobs for a new daemon any more.
VERSION = 2


class PartRecord(msgspec.Struct, omit_defaults=True):
    """One command of a job.

    Attributes:
        cmd: Command line of one `/bin/sh -c`.
        pid: Process id of that shell, its process group and its session.
        start_ticks: When the kernel says it started; with `pid` and the boot id it is unique.
        started_at, ended_at: UTC epoch seconds.
        returncode: Exit code, negative for the signal that ended it.
    """

    cmd: str
    pid: int | None = None
    start_ticks: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    returncode: int | None = None


class JobRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One job.

    Attributes:
        name: Key of the job, fit for a file name.
        folder: Where its output goes; `path_text`.
        boot: Boot id of the machine that it was started on.
        parts: Its commands, run one after the other.
        is_ended: Nothing will happen any more.
        is_canceled: Somebody asked for its end, while it ran.
        failure: Why a part could not be started.
        lost: Why it can't be known how it ended.
        argv: Program and arguments of its only part, run without a shell; [] for none.
        env: Variables beside those of `Hello`; keys and values are `path_text`.
        cwd: Its working directory in place of that of `Hello`; `path_text`, "" for none.
        has_stdin: Whether its folder holds what it reads.
    """

    name: str
    folder: str
    boot: str
    parts: list[PartRecord]
    is_ended: bool = False
    is_canceled: bool = False
    failure: str = ""
    lost: str = ""
    argv: list[str] = []
    env: dict[str, str] = {}
    cwd: str = ""
    has_stdin: bool = False

    def apply(self, update: Update) -> None:
        """Change what `update` says has changed."""
        if update.part is not None:
            self.parts[update.index] = update.part
        self.is_ended = self.is_ended or update.is_ended
        self.is_canceled = self.is_canceled or update.is_canceled
        self.failure = update.failure or self.failure
        self.lost = update.lost or self.lost


class Hello(msgspec.Struct, tag_field="op", tag="hello"):
    """From a daemon that has connected; events go to it from now on, and `Welcome` first.

    Attributes:
        env: Environment of the jobs that it will start; keys and values are `path_text`.
        cwd: Their working directory; `path_text`.
        max_output_bytes: Most of each stream of each part that is kept; 0 for all.
    """

    env: dict[str, str]
    cwd: str
    max_output_bytes: int = 0
    v: int = VERSION


class Start(msgspec.Struct, tag_field="op", tag="start"):
    """Run a job, unless its name is known. The answer is `Snapshot` or `Refused`.

    `argv`, `env` and `cwd` are as in `JobRecord`; `stdin` is what the job reads, None for nothing.
    """

    name: str
    parts: list[str]
    folder: str
    argv: list[str] = []
    env: dict[str, str] = {}
    cwd: str = ""
    stdin: str | None = None
    v: int = VERSION


class Cancel(msgspec.Struct, tag_field="op", tag="cancel"):
    """End a job: a signal to its process group, SIGKILL after `grace_s` seconds."""

    name: str
    grace_s: float
    signal: int = signal.SIGTERM
    v: int = VERSION


class Settled(msgspec.Struct, tag_field="op", tag="settled"):
    """The end of a job is known elsewhere: forget it. Of a job that runs it means nothing."""

    name: str
    v: int = VERSION


class Welcome(msgspec.Struct, tag_field="op", tag="welcome"):
    """The answer to `Hello`: who is there, and every job that has not been settled."""

    pid: int
    jobs: list[JobRecord]
    v: int = VERSION


class Snapshot(msgspec.Struct, tag_field="op", tag="snapshot"):
    """The answer to `Start`: the job is claimed, and this is how it stands."""

    job: JobRecord
    v: int = VERSION


class Update(msgspec.Struct, tag_field="op", tag="update", omit_defaults=True, kw_only=True):
    """What changed in a job; see `JobRecord` for the meaning. `index` counts parts from 0."""

    name: str
    index: int = 0
    part: PartRecord | None = None
    is_ended: bool = False
    is_canceled: bool = False
    failure: str = ""
    lost: str = ""
    v: int = VERSION


class Refused(msgspec.Struct, tag_field="op", tag="refused"):
    """The other answer to `Start`: the job was not claimed and will not run."""

    name: str
    message: str
    v: int = VERSION


Command = Hello | Start | Cancel | Settled
Event = Welcome | Snapshot | Update | Refused

encode = msgspec.json.Encoder().encode
decode_command = msgspec.json.Decoder(Command).decode
decode_event = msgspec.json.Decoder(Event).decode


def path_text(path: str | os.PathLike[str]) -> str:
    """Spell a path, or a word of the environment, so that JSON can hold whatever bytes it is of."""
    return os.fsencode(path).decode("latin-1")


def path_bytes(text: str) -> bytes:
    """Undo `path_text`."""
    return text.encode("latin-1")
