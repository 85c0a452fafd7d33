"""`kill -9` while a client follows a log: it goes on by its offset, and gets every byte once."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_until
from places import DEADLINE_S, Place, wait_ended, wait_running

pytestmark = pytest.mark.slow

#: Lines of each of the three pieces that a job prints.
LINES = 2000


class Client:
    """Follows stdout of one job, as records or as raw bytes.

    Attributes:
        got: All that it has, in order.
    """

    def __init__(self, daemon: DaemonProcess, jid: str, *, is_raw: bool) -> None:
        self.got = b""
        self._daemon = daemon
        self._jid = jid
        self._is_raw = is_raw

    def follow(self, enough: int | None = None) -> None:
        """Go on from where it is, to the end; or kill the daemon once there are so many bytes.

        What the daemon has sent by then may still come, and is taken.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=DEADLINE_S)
        meta = {"jid": self._jid, "stream": "stdout", "part": 0, "offset": len(self.got)}
        meta |= {"follow": True, "raw": self._is_raw}
        wanted = {"payload": {"action": "logs", "meta": meta}}
        connection.request("POST", "/api/v1/cmd", json.dumps(wanted))
        with connection.getresponse() as response:
            assert response.status == 200
            if self._is_raw:
                assert int(response.headers["Pman-Offset"]) == len(self.got)
            pieces = self._pieces(response)
            while enough is not None and len(self.got) < enough:
                self.got += next(pieces)
            if enough is not None:  # perhaps because it had all that there is from the last time
                self._daemon.kill()
            for raw in pieces:
                self.got += raw

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while True:
                raw = response.read1(1 << 16) if self._is_raw else response.readline()
                if not raw or (not self._is_raw and not raw.endswith(b"\n")):
                    return  # the end, or a record that was cut off
                yield raw if self._is_raw else self._text(json.loads(raw))
        except (http.client.HTTPException, ConnectionError):
            return  # it was killed

    def _text(self, record: dict[str, Any]) -> bytes:
        if "end" in record:
            return b""
        assert record["offset"] == len(self.got), "each byte once"
        text: str = record["text"]
        return text.encode()


def piece(number: int) -> bytes:
    return b"".join(b"%d: line %d\n" % (number, n) for n in range(LINES))


@pytest.mark.parametrize("is_raw", [False, True], ids=["records", "raw"])
def test_who_follows_a_log_when_pman_is_killed_gets_every_byte_once(
    place: Place, is_raw: bool
) -> None:
    """Killed while the job prints, while it is silent, and when it has printed meanwhile."""
    daemon = place.start(name=f"follow-{place.name}-{'raw' if is_raw else 'records'}")
    gates = [place.gate(), place.gate()]
    printed = place.folder / f"printed-{'raw' if is_raw else 'records'}"
    prints = [
        f"n=0; while [ $n -lt {LINES} ]; do echo {number}: line $n; n=$((n+1)); done"
        for number in range(3)
    ]
    jid = place.run(
        daemon,
        f"{prints[0]}; {gates[0].passage}; {prints[1]}; echo > {place.share}/{printed.name};"
        f" {gates[1].passage}; {prints[2]}; exit 3",
    )
    wait_running(daemon, jid)
    client = Client(daemon, jid, is_raw=is_raw)
    client.follow(enough=1)
    daemon.start()
    client.follow(enough=len(piece(0)))
    assert client.got == piece(0)
    gates[0].open()
    wait_until(printed.exists, "what it prints while nobody is there", DEADLINE_S)
    daemon.start()
    client.follow(enough=len(piece(0)) + 1)
    daemon.start()
    gates[1].open()
    client.follow()
    assert client.got == piece(0) + piece(1) + piece(2)
    (job,) = wait_ended(daemon, jid)
    assert (job["state"], job["exitCode"]) == ("FAILED", 3)
