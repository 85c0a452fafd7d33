"""`logs` of host jobs on a real daemon: followed to the end, over a kill, and at full speed."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_factory import NewDaemon
from daemon_process import Connection, DaemonProcess, wait_until

from pman.output import OutputFiles


class Follow:
    """One `logs` reply that is a stream, read line by line."""

    def __init__(self, daemon: DaemonProcess, **meta: Any) -> None:
        self.connection = daemon.connect()
        meta = {"follow": True, **meta}
        document = json.dumps({"payload": {"action": "logs", "meta": meta}}).encode()
        head = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len(document)}\r\n\r\n"
        self.connection.send(head.encode() + document)
        reply = self.connection.read_reply()
        assert reply.status == 200
        assert reply.header("Transfer-Encoding") == "chunked"
        self.headers = dict(reply.headers)

    def __enter__(self) -> Follow:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.socket.close()

    def chunks(self) -> Iterator[bytes]:
        """Give the chunks; ConnectionError when the connection ends before the last one."""
        connection: Connection = self.connection
        while length := int(connection._until(b"\r\n"), 16):
            yield connection._exactly(length)
            connection._exactly(2)
        connection._exactly(2)

    def records(self) -> Iterator[dict[str, Any]]:
        for chunk in self.chunks():
            yield from map(json.loads, chunk.splitlines())


def texts(records: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for record in records:
        if "text" in record:
            name = f"{record['part']}.{record['stream']}"
            assert record["offset"] == len(found.get(name, "").encode()), "without a hole"
            found[name] = found.get(name, "") + record["text"]
    return found


def test_followed_to_the_end(shared_daemon: DaemonProcess, tmp_path: Path) -> None:
    said_to = tmp_path / "fifo"
    os.mkfifo(said_to)
    shared_daemon.run(f"cat {said_to}; echo second >&2; exit 3", "followed")
    with said_to.open("w") as fifo, Follow(shared_daemon, jid="followed") as follow:
        records = follow.records()
        said = ""
        for line in ("one\n", "zwei ä\n", "end\n"):
            fifo.write(line)
            fifo.flush()
            while not said.endswith(line):
                said += next(records)["text"]
        fifo.close()
        rest = list(records)
        end = rest[-1]
        assert (end["end"], end["state"], end["exitCode"]) == (True, "FAILED", 3)
        assert texts(rest) == {"1.stderr": "second\n"}
        assert said == "one\nzwei ä\nend\n"
        # The connection is kept.
        follow.connection.send(b"GET /api/v1/ HTTP/1.1\r\nHost: h\r\n\r\n")
        assert follow.connection.read_reply().status == 200


def test_of_a_job_that_has_not_begun_its_parts(shared_daemon: DaemonProcess) -> None:
    shared_daemon.run("sleep 0.2; echo a; echo b", "parts")
    with Follow(shared_daemon, jid="parts") as follow:
        assert texts(follow.records()) == {"1.stdout": "a\n", "2.stdout": "b\n"}
    reply = shared_daemon.post("logs", jid="parts", part=2).json()
    assert reply["status"] is True
    assert reply["d_ret"]["isComplete"] is True
    assert [record["text"] for record in reply["d_ret"]["records"]] == ["b\n"]


def test_a_follower_of_a_job_that_is_deleted(shared_daemon: DaemonProcess) -> None:
    shared_daemon.run("echo a; sleep 60", "deleted")
    with Follow(shared_daemon, jid="deleted") as follow:
        records = follow.records()
        assert next(records)["text"] == "a\n"
        shared_daemon.post("delete", value="deleted", threaded=True)
        *_, end = records
        assert end["end"] is True
        # It depends on whether it looks between the end and the removal.
        assert end["state"] in (None, "CANCELED")


def test_a_stop_ends_it_cleanly(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    daemon.run("echo a; sleep 60", "long")
    with Follow(daemon, jid="long") as follow, Follow(daemon, jid="long") as other:
        records = follow.records()
        assert next(records)["text"] == "a\n"
        assert daemon.stop() == 0
        assert list(records) == []
        assert all("end" not in record for record in other.records())


@pytest.mark.slow
def test_a_reader_survives_the_daemon(new_daemon: NewDaemon) -> None:
    count = 4000
    daemon = new_daemon()
    script = f"for n in $(seq {count}); do echo out $n; echo err $n >&2; done"
    daemon.run(f"{script}; sleep 0.3; {script}", "long", compound=False)
    got: dict[str, str] = {"stdout": "", "stderr": ""}
    cursor: dict[str, str] = {}
    for kill_after in (1, 3, 10, None):
        with Follow(daemon, jid="long", **cursor) as follow:
            try:
                for n, record in enumerate(follow.records()):
                    if "end" in record:
                        break
                    stream = record["stream"]
                    assert record["offset"] == len(got[stream])
                    got[stream] += record["text"]
                    cursor = {"cursor": record["cursor"]}
                    if n == kill_after:
                        daemon.kill()  # what it has sent may still come
            except ConnectionError:
                pass
        if kill_after is not None:
            daemon.kill()
            daemon.start()
    wanted = "".join(f"{{}} {n}\n" for n in range(1, count + 1)) * 2
    assert got == {
        "stdout": wanted.replace("{}", "out"),
        "stderr": wanted.replace("{}", "err"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("is_raw", [False, True])
def test_100_mb_are_followed_completely(new_daemon: NewDaemon, is_raw: bool) -> None:
    size = 100 * 1024 * 1024
    daemon = new_daemon()
    daemon.run(f"yes 0123456789abcdef | head -c {size}", "fast", compound=False)
    line = b"0123456789abcdef\n"
    wanted = zlib.crc32((line * (size // len(line) + 1))[:size])
    crc = length = 0
    meta = {"raw": True, "stream": "stdout", "part": 0} if is_raw else {"stream": "stdout"}
    with Follow(daemon, jid="fast", **meta) as follow:
        if is_raw:
            assert follow.headers["Pman-Offset"] == "0"
            for chunk in follow.chunks():
                crc = zlib.crc32(chunk, crc)
                length += len(chunk)
        else:
            for record in follow.records():
                if "text" in record:
                    assert record["offset"] == length
                    crc = zlib.crc32(record["text"].encode(), crc)
                    length += len(record["text"])
    assert (length, crc) == (size, wanted)


def test_a_gap_is_told(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon("--maxOutput", "64K")
    go = tmp_path / "go"
    size = 4 * 1024 * 1024
    daemon.run(
        f"head -c {size} /dev/zero | tr '\\0' x; until [ -e {go} ]; do sleep 0.05; done", "much",
        compound=False,
    )  # fmt: skip
    output = OutputFiles(daemon.db_path / "output", 1024)
    reply = daemon.post("logs", jid="much").json()["d_ret"]
    gap = output.path(reply["job"], 0, "stdout.gap")
    wait_until(lambda: gap.exists(), "the gap")
    records = daemon.post("logs", jid="much", stream="stdout").json()["d_ret"]["records"]
    go.touch()
    (dropped,) = [record for record in records if "dropped" in record]
    start, end = dropped["dropped"]
    assert 0 < start < end < size
    assert sum(len(record.get("text", "")) for record in records) + end - start == size
    meta = {"raw": True, "stream": "stdout", "part": 0, "follow": False}
    with Follow(daemon, jid="much", **meta) as follow:
        assert len(b"".join(follow.chunks())) == start
    with Follow(daemon, jid="much", offset=start, **meta) as follow:
        assert follow.headers["Pman-Offset"] == str(end)
        assert len(b"".join(follow.chunks())) == size - end
