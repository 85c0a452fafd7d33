"""Files that hold what jobs print: where they are, and how much of one a reply may hold.

Knows nothing of backends and of the job DB; both use it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pman.errors import SnapshotError

#: Streams of one part or worker.
STREAMS = ("stdout", "stderr")


class OutputFiles:
    """`<root>/<yyyymmdd>/<job folder name>/<part>.<stream>`; a missing file is empty output."""

    def __init__(self, root: Path, max_inline_bytes: int) -> None:
        self.root = root
        self._max_inline_bytes = max_inline_bytes

    def folder(self, job_name: str) -> Path:
        """Return the folder of one job's output; it need not exist."""
        return self.root / job_name[:8] / job_name

    def path(self, job_name: str, part: int, stream: str) -> Path:
        """Return the file of one stream of one part (counted from 0)."""
        return self.folder(job_name) / f"{part}.{stream}"

    def read_text(self, job_name: str, part: int, stream: str) -> str:
        """Return a stream as text for a reply.

        Bytes that are not UTF-8 become U+FFFD. Of a stream longer than `max_inline_bytes` the end
        is kept, behind a line that says how many bytes are missing.

        Raises:
            SnapshotError: The file is there and cannot be read.
        """
        try:
            with self.path(job_name, part, stream).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                missing = max(0, size - self._max_inline_bytes)
                file.seek(missing)
                text = file.read(self._max_inline_bytes).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except OSError as exc:
            raise SnapshotError(f"{stream} of job {job_name} cannot be read: {exc}") from exc
        return f"[pman: {missing} bytes before this are not shown]\n{text}" if missing else text

    def size_bytes(self, job_name: str) -> int:
        """Return the size of all that one job has printed; what can't be looked at counts as 0."""
        try:
            with os.scandir(self.folder(job_name)) as entries:
                return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
        except OSError:
            return 0

    def remove(self, job_name: str) -> None:
        """Remove the output of one job; nothing there is not an error."""
        folder = self.folder(job_name)
        try:
            for entry in os.scandir(folder):
                os.unlink(entry.path)
            folder.rmdir()
        except FileNotFoundError:
            return
