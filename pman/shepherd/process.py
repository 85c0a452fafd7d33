"""Starts, recognises and signals the process of one part of a job."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

SHELL = b"/bin/sh"

#: What this process ignores would stay ignored in jobs: python ignores SIGPIPE, nohup SIGHUP.
_DEFAULTED = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
#: States of a process that has ended. Source: proc_pid_stat(5).
ENDED = (b"Z", b"X")
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_STREAMS = ((1, "stdout"), (2, "stderr"))


def shell_command(cmd: str) -> list[bytes]:
    """Return the program and the arguments that run a command line."""
    return [SHELL, b"-c", cmd.encode()]


def spawn(
    argv: list[bytes],
    folder: bytes,
    index: int,
    env: dict[bytes, bytes],
    stdin: bytes = b"/dev/null",
) -> int:
    """Start a program in a session of its own, in our working directory.

    Args:
        argv: Program, looked for in the `PATH` of `env`, and arguments.
        folder: Where its `<index>.stdout` and `<index>.stderr` are appended to; is there.
        index: Number of the part, from 0.
        env: Its whole environment.
        stdin: File that it reads.
    Returns:
        Its process id, which is its process group's as well.
    Raises:
        OSError: It could not be started: no program, memory, process, descriptor, file.
    """
    actions: list[tuple[int, int, bytes, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0)
    ]
    for fd, stream in _STREAMS:
        path = output_path(folder, index, stream)
        actions.append((os.POSIX_SPAWN_OPEN, fd, path, _APPEND, 0o600))
    return os.posix_spawn(
        _find_program(argv[0], env),
        argv,
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULTED,
    )


@contextlib.contextmanager
def working_directory(path: bytes) -> Iterator[None]:
    """Be in another working directory for a while: a spawned process can't be told its own.

    Raises:
        OSError: It can't be entered; says so.
    """
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.chdir(path)
        except OSError as exc:
            raise OSError(f"working directory {os.fsdecode(path)!r}: {exc.strerror}") from exc
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _find_program(name: bytes, env: dict[bytes, bytes]) -> bytes:
    """Return the file of a program, as execvp(3) finds it with the `PATH` of `env`."""
    if b"/" in name:
        return name
    for folder in env.get(b"PATH", os.defpath.encode()).split(b":"):
        path = os.path.join(folder or b".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113, bytes
            return path
    raise OSError(f"there is no program {os.fsdecode(name)!r} in PATH")


def write_stdin(folder: bytes, text: str) -> None:
    """Write what a job is to read.

    Raises:
        OSError: It can't be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(stdin_path(folder), flags, 0o600), "wb") as file:
        file.write(text.encode())


def remove_stdin(folder: bytes) -> None:
    """Remove what a job was to read; nothing there is not an error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(stdin_path(folder))


def stdin_path(folder: bytes) -> bytes:
    """Return the file that a job reads."""
    return folder + b"/stdin"


def output_path(folder: bytes, index: int, stream: str) -> bytes:
    """Return the file of one stream of a part."""
    return b"%s/%d.%s" % (folder, index, stream.encode())


def ended_child() -> tuple[int, int] | None:
    """Return a child that has ended, and its code, or None; it stays to be waited for."""
    try:
        seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if seen is None else (seen.si_pid, exit_code(seen))


def exit_code(seen: os.waitid_result) -> int:
    """Return an exit code, negative for the signal that ended the process."""
    return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status


def make_output_folder(folder: bytes) -> None:
    """Make the folder of a job's output, and those above it, for us alone.

    Raises:
        OSError: It can't be made.
    """
    for is_last in (False, False, True):
        try:
            os.mkdir(folder, 0o700)  # noqa: PTH102, bytes
        except FileExistsError:
            return
        except FileNotFoundError:
            # Made anew, should the daemon remove it as an empty one at this very moment.
            if is_last:
                raise
            make_output_folder(os.path.dirname(folder))  # noqa: PTH120, bytes
        else:
            return


def remove_empty_output(folder: bytes, index: int) -> None:
    """Remove the output files of a part that nothing was written to."""
    for _, stream in _STREAMS:
        path = output_path(folder, index, stream)
        try:
            if os.stat(path).st_size == 0:  # noqa: PTH116, bytes
                os.unlink(path)
        except FileNotFoundError:
            continue  # removed with the job


def start_ticks(pid: int) -> int | None:
    """Return when a process, which may be a zombie, started: clock ticks since boot, or None.

    Source: proc_pid_stat(5), field 22.
    """
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def group_members(pgid: int) -> list[tuple[int, int]]:
    """Return the process ids and start ticks of a process group, without its zombies."""
    found = []
    for pid in _processes():
        fields = _stat_fields(pid)
        if fields and int(fields[2]) == pgid and fields[0] not in ENDED:
            found.append((pid, int(fields[19])))
    return found


def parent_of(pid: int, ticks: int) -> int | None:
    """Return the parent of the process, which may be a zombie, that started at `ticks`, or None."""
    fields = _stat_fields(pid)
    return int(fields[1]) if fields and int(fields[19]) == ticks else None


def leader_writing_to(path: bytes) -> int | None:
    """Return the process that leads its session and has `path` as standard output, or None."""
    for pid in _processes():
        fields = _stat_fields(pid)
        if fields and int(fields[3]) == pid and fields[0] not in ENDED:
            try:
                if os.readlink(b"/proc/%d/fd/1" % pid) == path:  # noqa: PTH115, bytes
                    return pid
            except OSError:
                continue  # it has ended, closed its output, or is not ours to look at
    return None


def is_starting(guard: int, *, is_first: bool) -> bool:
    """Tell whether a killed shepherd has left a child that has yet to become a part's shell.

    Such a child looks like a shepherd: it has the same command line.

    Args:
        guard: Process id of our guard.
        is_first: The killed shepherd had another guard, so that the child may have any parent.
    """
    ours = _command_line(os.getpid())
    known = {os.getpid(), guard}
    if is_first:
        known.add(_parent(guard))  # who has started us
    return any(
        _command_line(pid) == ours and (is_first or _parent(pid) == guard)
        for pid in _processes()
        if pid not in known
    )


def _parent(pid: int) -> int:
    fields = _stat_fields(pid)
    return int(fields[1]) if fields else 0


def _processes() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def is_running(pid: int, ticks: int) -> bool:
    """Tell whether the process that started at `ticks` still runs; a zombie does not."""
    fields = _stat_fields(pid)
    return bool(fields) and int(fields[19]) == ticks and fields[0] not in ENDED


def _stat_fields(pid: int) -> list[bytes]:
    """Return the fields from the third on; the second may hold blanks and `)`."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def boot_id() -> str:
    """Return the name of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def signal_group(pgid: int, number: int) -> bool:
    """Send a signal to a process group; return whether it has members (0 only asks)."""
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # the members changed their user; nothing more can be done
    return True
