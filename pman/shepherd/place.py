"""The folder that a shepherd works in: what lies where, and whether it is safe to use."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pman.errors import BackendUnavailable

#: Longest path of a socket, bytes. Source: unix(7), `sun_path` has 108 with the NUL; some are left
#: for systems that have fewer.
MAX_SOCKET_PATH_BYTES = 100


class Place:
    """`<state_path>`: lock, log and endpoint note of the shepherd, and two folders.

    `jobs/` holds one log a job, `ends/` what the guard saw of processes; see `joblog` and `ends`.
    """

    def __init__(self, state_path: Path) -> None:
        self.state_path = state_path.absolute()
        self.jobs_path = self.state_path / "jobs"
        self.ends_path = self.state_path / "ends"
        self.lock_path = self.state_path / "shepherd.lock"
        self.log_path = self.state_path / "shepherd.log"
        self.note_path = self.state_path / "shepherd.endpoint"

    def prepare(self) -> None:
        """Make the folders, or check that those that are there are ours alone.

        Raises:
            BackendUnavailable: They are not, or can't be made; says which and why.
        """
        private_folder(self.state_path)
        private_folder(self.jobs_path)
        private_folder(self.ends_path)

    def lock(self) -> int | None:
        """Become the one shepherd of this place.

        Returns:
            The descriptor that holds the lock, or None when another shepherd lives.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.lock_path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def choose_socket(self) -> Path:
        """Choose where the socket goes, make its folder, and note it for the daemon.

        Raises:
            BackendUnavailable: Its folder is not ours alone.
        """
        path = self.state_path / "shepherd.sock"
        if not _fits_socket(path):
            path = self._short_folder() / "shepherd.sock"
        raw = os.fsencode(path)
        # Written only if it must be: a full disk should not keep a shepherd from its jobs.
        if not self.note_path.exists() or self.note_path.read_bytes() != raw:
            note = self.note_path.with_suffix(".new")
            note.write_bytes(raw)
            note.replace(self.note_path)
        return path

    def _short_folder(self) -> Path:
        key = hashlib.sha256(os.fsencode(self.state_path)).hexdigest()[:16]
        name = f"pman-{os.geteuid()}-{key}"
        base = os.environ.get("XDG_RUNTIME_DIR", "")
        # The folder is checked to be ours alone, so that a public base is as good as a private one.
        if not base or not _fits_socket(Path(base) / name / "shepherd.sock"):
            base = "/tmp"  # noqa: S108
        folder = Path(base) / name
        private_folder(folder)
        return folder

    def read_socket(self) -> Path | None:
        """Return where the socket is, or None when no shepherd has made it yet.

        Raises:
            BackendUnavailable: Somebody else could talk to it, or could have put it there.
        """
        try:
            path = Path(os.fsdecode(self.note_path.read_bytes()))
            info = path.lstat()
        except FileNotFoundError:
            return None
        private_folder(path.parent)
        wrong = _stranger(info, stat.S_ISSOCK(info.st_mode), "a socket")
        if wrong:
            raise BackendUnavailable(f"{str(path)!r} {wrong}, so host jobs cannot be run")
        return path

    def and_successors(self) -> Iterator[Place]:
        """Give this place and those below it, for as long as they are there, and one more."""
        yield self
        for number in itertools.count(2):
            place = Place(self.state_path / str(number))
            yield place
            if not place.jobs_path.exists():
                return

    def is_in_use(self) -> bool:
        """Tell whether a shepherd lives here, or has left jobs."""
        if not self.jobs_path.exists():
            return False
        lock = self.lock()
        if lock is not None:
            os.close(lock)
        return lock is None or any(self.jobs_path.iterdir())


def _fits_socket(path: Path) -> bool:
    """Tell whether a socket can have this path; pyzmq takes UTF-8 only."""
    try:
        return len(str(path).encode()) <= MAX_SOCKET_PATH_BYTES
    except UnicodeEncodeError:
        return False


def private_folder(path: Path) -> None:
    """Make `path` a folder that nobody else can use.

    Raises:
        BackendUnavailable: It is a link, or no folder, or not ours, or others may write to it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
    except OSError as exc:
        raise BackendUnavailable(f"folder {str(path)!r} cannot be made: {exc.strerror}") from exc
    wrong = _stranger(info, stat.S_ISDIR(info.st_mode), "a folder (links are not followed)")
    if wrong:
        raise BackendUnavailable(f"folder {str(path)!r} {wrong}, so host jobs cannot be run")
    if info.st_mode & 0o077:
        path.chmod(0o700)


def _stranger(info: os.stat_result, is_kind: bool, kind: str) -> str:
    """Say what is wrong with a file that only we may write to, or return ""."""
    if not is_kind:
        return f"is not {kind}"
    if info.st_uid != os.geteuid():
        return f"belongs to user {info.st_uid}, expected {os.geteuid()}"
    if info.st_mode & 0o022:
        return f"has mode {stat.S_IMODE(info.st_mode):o}, expected 700: others may write to it"
    return ""
