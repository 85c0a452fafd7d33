"""`python -m pman.shepherd <state path>`: detach and serve, unless another one does.

Returns when the daemon may connect; exit status 1, and a line on standard error, when it can't.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pman.descriptors import restore_limit
from pman.errors import BackendUnavailable
from pman.shepherd.ends import Ends
from pman.shepherd.guard import Guard
from pman.shepherd.place import Place
from pman.shepherd.process import boot_id

if TYPE_CHECKING:
    from pman.shepherd.server import Server

#: What the shepherd says when the daemon may connect; anything else says why it may not.
READY = b"ready"


def main(arguments: list[str]) -> int:
    """Start a shepherd for one place, unless there is one; return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m pman.shepherd STATE_PATH", file=sys.stderr)
        return 2
    restore_limit()
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
        said = os.read(ready, 1000)
        if said == READY:
            return 0
        print(said.decode() or f"it ended; see {place.log_path}", file=sys.stderr)
        return 1
    os.close(ready)
    _detach(place)
    # Read before the guard begins: a shepherd that is started again, maybe weeks later, must be of
    # the same release. Who only looks whether there is one does without.
    from pman.shepherd.server import Server

    gc.freeze()  # so that guard and shepherd go on sharing this memory
    guard = Guard(Ends(place.ends_path, boot_id()))
    return guard.run(lambda: _serve(lambda: Server(place, guard), writer))


def _detach(place: Place) -> None:
    """Leave the daemon's session and its streams."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(place.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)
    os.close(null)
    os.close(log)


def _serve(make: Callable[[], Server], writer: int) -> None:
    """Be the shepherd; `writer` is told when the daemon may connect, or why not."""

    def say(raw: bytes) -> None:
        # Whoever started the first shepherd does not listen to those that replace it.
        with contextlib.suppress(BrokenPipeError):
            os.write(writer, raw)
        os.close(writer)

    try:
        server = make()
        server.open()
    except (BackendUnavailable, OSError) as exc:
        say(str(exc).encode())
        raise
    say(READY)
    server.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
