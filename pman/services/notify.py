"""What pman tells the service manager that has started it (systemd), if there is one.

Source: sd_notify(3).
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import MutableMapping

#: Variables of the protocol; they are for us, not for our jobs.
NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Notifier:
    """Sends datagrams to the service manager, or to nobody. Thread-safe; never blocks or raises."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """Prepare.

        Args:
            address: Path of the manager's socket, "@..." for an abstract one; "": there is none.
            watchdog_s: How often it wants to hear of us at least, seconds; None: it does not care.
        """
        self.watchdog_s = watchdog_s
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Return a notifier for the manager that an environment names, and take that out of it."""
        address = environ.pop(NOTIFY_SOCKET, "")
        usec = environ.pop(WATCHDOG_USEC, "")
        pid = environ.pop(WATCHDOG_PID, str(os.getpid()))
        is_ours = usec.isdecimal() and int(usec) > 0 and pid == str(os.getpid())
        return cls(address, int(usec) / 1e6 if is_ours else None)

    def send(self, *assignments: str) -> None:
        """Send lines like `READY=1`; they are lost when the manager does not take them at once."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return  # the manager has gone, or is busy: nothing that we could do about it

    def status(self, text: str, *assignments: str) -> None:
        """Tell in a few words what pman does, and send further lines along with it."""
        self.send(*assignments, f"STATUS={' '.join(text.split())}")


class Heartbeat:
    """Tells the manager that one thread still comes round; belongs to that thread.

    Not a timer of its own: it would go on while pman hangs.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._period_s = math.inf if notifier.watchdog_s is None else notifier.watchdog_s / 2
        #: When to call `beat` next, monotonic seconds.
        self.next_at = math.inf if notifier.watchdog_s is None else 0.0

    def beat(self, now: float) -> None:
        """Tell it."""
        self._notifier.send("WATCHDOG=1")
        self.next_at = now + self._period_s
