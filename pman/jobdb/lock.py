"""`DBLock`: one daemon per job DB."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pman.errors import StartError

LOCK_NAME = "pman.lock"


class DBLock:
    """A lock on the job DB that ends with the process, however that ends."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    @classmethod
    def acquire(cls, folder: Path) -> DBLock:
        """Take the lock.

        Raises:
            StartError: Another pman has it, or the folder is not ours to write.
        """
        try:
            # Not inheritable: what the daemon starts must not hold the lock when it has gone.
            fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StartError(f"DBpath {str(folder)!r} is not writable: {exc.strerror}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as exc:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StartError(
                f"the job DB in {str(folder)!r} is in use by pman with pid {holder}"
            ) from exc
        except OSError as exc:
            os.close(fd)
            raise StartError(f"DBpath {str(folder)!r} is not writable: {exc.strerror}") from exc
        return cls(fd)

    def release(self) -> None:
        """Give the lock back; may be called twice. The file stays: removing it would race."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
