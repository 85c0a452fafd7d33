"""`python -m pman.shepherd <state path>`: detach and serve, unless another one does.

Returns when the daemon may connect; exit status 1, and a line on standard error, when it can't.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pman.errors import BackendUnavailable
from pman.shepherd.place import Place


def main(arguments: list[str]) -> int:
    """Start a shepherd for one place, unless there is one; return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m pman.shepherd STATE_PATH", file=sys.stderr)
        return 2
    place = Place(Path(arguments[0]))
    try:
        place.prepare()
        lock = place.lock()
    except (BackendUnavailable, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    if lock is None:
        return 0
    ready, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return 0 if os.read(ready, 1) else 1
    os.close(ready)
    _serve(place, writer)
    return 0


def _serve(place: Place, writer: int) -> None:
    """Be the shepherd; `writer` gets a byte when the daemon may connect."""
    # Imported here: the process that forks need not be large.
    from pman.shepherd.server import Server

    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server(place)
    log = os.open(place.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)

    def ready() -> None:
        for fd, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(fd, target)
        os.close(null)
        os.close(log)
        os.write(writer, b"1")
        os.close(writer)

    server.run(ready)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
