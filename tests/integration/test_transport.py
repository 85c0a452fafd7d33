"""Front and listeners on a real port: framing, order, limits, deadlines, and the end."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from daemon_process import wait_until
from front_harness import PATIENCE_S, Daemon, ToyHandler, chunked, post
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pman.errors import StartError
from pman.http.message import Request, Response
from pman.services import connections

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Daemon]:
    """A daemon for tests that leave it as it was."""
    with Daemon() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def hasty() -> Iterator[Daemon]:
    """A daemon with short deadlines and small limits."""
    with Daemon(header_timeout_s=0.3, idle_timeout_s=0.6, max_body_bytes=1000) as daemon:
        yield daemon


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- framing --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (post(b"0123456789"), b"10:0123456789"),
        (chunked(b"0123456789", 4), b"10:0123456789"),
        (post(b"0123456789").replace(b"\r\n", b"\n"), b"10:0123456789"),
    ],
    ids=["length", "chunked", "lf-only"],
)
def test_a_request_may_be_cut_at_every_byte(shared: Daemon, raw: bytes, body: bytes) -> None:
    with shared.connect() as wire:
        for cut in range(1, len(raw)):
            wire.send(raw[:cut])
            wire.send(raw[cut:])
            reply = wire.reply()
            assert (reply.status, reply.body) == (200, body), cut


@pytest.mark.parametrize("size", [64_000, 2_000_000])
def test_large_bodies_arrive(shared: Daemon, size: int) -> None:
    body = os.urandom(size)
    assert shared.ask(post(body)).body == b"%d:%b" % (size, body[:100])
    assert shared.ask(chunked(body, 5000)).body == b"%d:%b" % (size, body[:100])


@pytest.mark.slow
def test_a_body_over_64_mib_is_refused(shared: Daemon) -> None:
    size = 64 * 1024 * 1024 + 1
    head = f"POST / HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode()
    with shared.connect() as wire:
        wire.send(head)
        reply = wire.reply()
        assert reply.status == 413
        assert reply.headers["connection"] == "close"
    with shared.connect() as wire:  # the refusal reaches a client that has begun to send
        wire.send(head + b"x" * 100_000)
        assert wire.reply().status == 413
    shared.hello()


@pytest.mark.slow
def test_a_body_of_64_mib_passes_and_a_chunked_byte_more_does_not(shared: Daemon) -> None:
    body = bytes(64 * 1024 * 1024)
    with shared.connect() as wire:
        wire.send(post(body))
        assert wire.reply().body.startswith(b"67108864:")
    with shared.connect() as wire:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(chunked(body + b"x", 1 << 20))
        assert wire.reply().status == 413


def test_five_requests_in_one_segment_get_five_replies_in_order(shared: Daemon) -> None:
    with shared.connect() as wire:
        wire.send(b"".join(post(b"%d" % number) for number in range(5)))
        assert [wire.reply().body for _ in range(5)] == [b"1:%d" % number for number in range(5)]


@pytest.mark.slow
def test_thousands_of_requests_in_one_go_are_all_answered(shared: Daemon) -> None:
    count = 3000
    with shared.connect() as wire:
        sender = threading.Thread(target=wire.send, args=(post(b"abc") * count,))
        sender.start()
        assert all(wire.reply().body == b"3:abc" for _ in range(count))
        sender.join()


def test_http_1_0_is_closed_unless_it_asks(shared: Daemon) -> None:
    with shared.connect() as wire:
        wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert wire.reply().headers["connection"] == "keep-alive"
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        assert wire.reply().headers["connection"] == "close"
        assert wire.is_closed()


def test_http_1_1_is_kept_open_unless_it_asks(shared: Daemon) -> None:
    with shared.connect() as wire:
        wire.send(GET)
        assert "connection" not in wire.reply().headers
        wire.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert wire.reply().headers["connection"] == "close"
        assert wire.is_closed()


def test_the_headers_of_2_2_come_first(shared: Daemon) -> None:
    reply = shared.ask(GET)
    assert reply.names == ["Content-Length", "Content-Type", "Server", "Date"]


def test_expect_is_continued_once(shared: Daemon) -> None:
    raw = post(b"abcdef", "/", "Expect: 100-continue")
    with shared.connect() as wire:
        wire.send(raw[:-6])
        assert wire.reply().status == 100
        wire.send(b"abc")
        wire.send(b"def")
        assert wire.reply().body == b"6:abcdef"


def test_expect_waits_for_the_replies_before_it() -> None:
    with Daemon() as daemon, daemon.connect() as wire:
        raw = post(b"abcdef", "/", "Expect: 100-continue")
        wire.send(post(b"first", "/slow") + raw[:-6])
        daemon.handler.slow_running.acquire()
        daemon.handler.release.set()
        assert [wire.reply().body, wire.reply().status] == [b"5:first", 100]
        wire.send(b"abcdef")
        assert wire.reply().body == b"6:abcdef"


@pytest.mark.parametrize(
    ("length", "expectation", "status"),
    [(5000, "100-continue", 413), (5, "tea", 417)],
)
def test_expect_may_be_refused(hasty: Daemon, length: int, expectation: str, status: int) -> None:
    head = f"POST / HTTP/1.1\r\nContent-Length: {length}\r\nExpect: {expectation}\r\n\r\n"
    assert hasty.ask(head.encode()).status == status


def test_head_has_the_headers_of_get_and_no_body(shared: Daemon) -> None:
    with shared.connect() as wire:
        wire.send(b"HEAD /big100000 HTTP/1.1\r\n\r\n")
        reply = wire.reply(has_body=False)
        assert reply.headers["content-length"] == "100000"
        wire.send(GET)
        assert wire.reply().body == b"0:"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"get / HTTP/1.1\r\n\r\n", 405),
        (b"POST /\r\n\r\n", 400),
        (b"CONNECT h:1 HTTP/1.1\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"\0" * 100_000, 400),
    ],
)
def test_what_is_not_a_request_is_answered_and_closed(
    shared: Daemon, raw: bytes, status: int
) -> None:
    with shared.connect() as wire:
        wire.send(raw)
        assert wire.reply().status == status
        assert wire.is_closed()
    shared.hello()


def test_a_reply_before_garbage_is_sent_first(shared: Daemon) -> None:
    with shared.connect() as wire:
        wire.send(post(b"good") + b"\0garbage")
        assert [wire.reply().status, wire.reply().status] == [200, 400]
        assert wire.is_closed()


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.binary(min_size=1, max_size=300), after=st.sampled_from([b"", GET, post(b"x")]))
def test_garbage_never_takes_the_server_down(hasty: Daemon, raw: bytes, after: bytes) -> None:
    with hasty.connect() as wire, contextlib.suppress(ConnectionError):
        wire.send(raw + after)
    hasty.hello()


def test_a_half_closed_request_is_carried_out(shared: Daemon) -> None:
    handler = shared.handler
    with shared.connect() as wire:
        wire.send(post(b"half-closed"))
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.is_closed() or wire.reply().body == b"11:half-closed"
    while handler.handled[-1].body != b"half-closed":
        assert handler.handled_count.acquire(timeout=PATIENCE_S)
    shared.hello()


def test_all_clients_together_are_bounded() -> None:
    half = b"x" * 50_000
    with Daemon(max_incoming_bytes=220_000) as daemon, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(daemon.connect()) for _ in range(5)]
        for wire in wires[:4]:
            wire.send(post(half + half)[: -len(half)])
        clients = daemon.front._clients
        wait_until(lambda: clients.buffered_bytes == 4 * len(half), "all that was sent is there")
        wires[4].send(post(half + half)[: -len(half)])
        refused = wires[4].reply()
        assert refused.status == 503
        assert b"try again later" in refused.body
        daemon.hello()
        for wire in wires[:2]:
            wire.sock.close()
        wait_until(lambda: clients.buffered_bytes == 2 * len(half), "what was theirs is free")
        for wire in wires[2:4]:
            wire.send(half)
            assert wire.reply().status == 200
        assert daemon.ask(post(half + half)).status == 200
        # A reply is sent before it is booked.
        wait_until(lambda: not clients.buffered_bytes, "nothing is left on the account")


# --- order, and who waits for whom ----------------------------------------------------------


def test_slow_and_quick_replies_keep_the_order_of_their_connection() -> None:
    with Daemon() as daemon, daemon.connect() as wire:
        wire.send(post(b"a") + post(b"b", "/slow") + post(b"c") + post(b"d", "/later") + post(b"e"))
        assert wire.reply().body == b"1:a"
        daemon.handler.release.set()
        assert [wire.reply().body, wire.reply().body] == [b"1:b", b"1:c"]
        assert daemon.handler.deferred_made.acquire(timeout=PATIENCE_S)
        daemon.handler.deferred[0].resolve(Response(status=200, body=b"late"))
        assert [wire.reply().body, wire.reply().body] == [b"late", b"1:e"]


def test_a_slow_request_holds_up_one_listener_and_nobody_else() -> None:
    with Daemon(listeners=2) as daemon, daemon.connect() as slow:
        slow.send(post(b"", "/slow"))
        assert daemon.handler.slow_running.acquire(timeout=PATIENCE_S)
        for _ in range(50):
            assert daemon.ask(post(b"x", "/listener")).body == b"1:x"
        daemon.handler.release.set()
        assert slow.reply().status == 200


def test_requests_wait_when_no_listener_is_idle() -> None:
    with Daemon(listeners=1) as daemon, contextlib.ExitStack() as stack:
        slow = stack.enter_context(daemon.connect())
        slow.send(post(b"", "/slow"))
        assert daemon.handler.slow_running.acquire(timeout=PATIENCE_S)
        others = [stack.enter_context(daemon.connect()) for _ in range(100)]
        for number, wire in enumerate(others):
            wire.send(post(b"%d" % number, "/listener"))
        daemon.hello()  # the front has time for what needs no listener
        assert len(daemon.handler.handled) == 2
        daemon.handler.release.set()
        assert slow.reply().status == 200
        assert [wire.reply().body[-2:] for wire in others[10:]] == [
            b"%d" % number for number in range(10, 100)
        ]


def test_a_listener_survives_a_handler_that_raises() -> None:
    with Daemon(listeners=1) as daemon:
        for _ in range(3):
            assert daemon.ask(post(b"", "/raise")).status == 500
        daemon.hello()


def test_deferred_replies_leave_the_listener_free() -> None:
    with Daemon(listeners=1) as daemon, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(daemon.connect()) for _ in range(20)]
        for wire in wires:
            wire.send(post(b"", "/later"))
            assert daemon.handler.deferred_made.acquire(timeout=PATIENCE_S)
        daemon.hello()
        for number, deferred in enumerate(daemon.handler.deferred):
            assert deferred.resolve(Response(status=200, body=b"%d" % number))
            assert not deferred.resolve(Response(status=200, body=b"again"))
        assert [wire.reply().body for wire in wires] == [b"%d" % n for n in range(20)]


def test_a_deferred_reply_to_a_client_that_has_left_is_dropped() -> None:
    with Daemon(listeners=1) as daemon:
        with daemon.connect() as wire:
            wire.send(post(b"", "/later"))
            assert daemon.handler.deferred_made.acquire(timeout=PATIENCE_S)
        daemon.hello()
        daemon.handler.deferred[0].resolve(Response(status=200, body=b"late"))
        daemon.hello()


# --- limits and deadlines -------------------------------------------------------------------


@pytest.mark.slow
def test_half_open_clients_are_timed_out_and_disturb_nobody(hasty: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(hasty.connect()) for _ in range(200)]
        for number, wire in enumerate(wires):
            wire.send(post(b"abc")[: 1 + number % 50])
        for _ in range(20):
            hasty.hello()
        for wire in wires:
            assert wire.reply().status == 408
            assert wire.is_closed()


def test_a_trickling_client_is_timed_out(hasty: Daemon) -> None:
    stop = threading.Event()
    with hasty.connect() as wire:

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    wire.send(b"a")

        wire.send(b"GET /")
        thread = threading.Thread(target=trickle)
        thread.start()
        assert wire.reply().status == 408
        stop.set()
        thread.join()


def test_an_idle_client_is_closed_without_a_word(hasty: Daemon) -> None:
    with hasty.connect() as fresh, hasty.connect() as used:
        used.send(GET)
        assert used.reply().status == 200
        assert fresh.is_closed()
        assert used.is_closed()


def test_a_request_in_flight_has_no_deadline() -> None:
    with (
        Daemon(header_timeout_s=0.05, idle_timeout_s=0.05) as daemon,
        daemon.connect() as wire,
        daemon.connect() as idle,
    ):
        wire.send(post(b"", "/slow"))
        assert daemon.handler.slow_running.acquire(timeout=PATIENCE_S)
        assert idle.is_closed()  # deadlines have passed by now
        daemon.handler.release.set()
        assert wire.reply().status == 200


def test_connections_over_the_limit_are_refused() -> None:
    with Daemon(max_connections=2) as daemon:
        with daemon.connect() as first, daemon.connect() as second:
            for wire in (first, second):
                wire.send(GET)
                assert wire.reply().status == 200
            with daemon.connect() as third:
                third.send(GET)
                assert third.reply().status == 503
                assert third.is_closed()
        while daemon.ask(GET).status == 503:  # until the front has seen that they left
            pass
        daemon.hello()


def test_fewer_connections_are_allowed_than_there_are_descriptors() -> None:
    import resource

    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    daemon = Daemon(max_connections=10**9)
    assert connections.connection_limit(daemon.settings) < descriptors


@pytest.mark.slow
def test_a_client_that_does_not_read_is_dropped_and_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = {"max_unread_bytes": 1 << 20, "header_timeout_s": 0.3, "idle_timeout_s": 60.0}
    with Daemon(**limits) as daemon, daemon.connect() as wire:
        before = resident_bytes()
        wire.send(b"GET /big20000000 HTTP/1.1\r\n\r\n" * 20)
        for _ in range(50):
            daemon.hello()
        while not caplog.records:
            daemon.hello()
        assert re.match(r"a client was dropped: it left \d+ bytes unread", caplog.text[-70:]) or (
            "was dropped: it left" in caplog.text
        )
        assert resident_bytes() - before < 200_000_000
        daemon.hello()
        with contextlib.suppress(ConnectionResetError):
            while wire.sock.recv(1 << 20):
                pass  # what the system had taken already; then the end
        daemon.hello()
        assert not daemon.front._clients.clients or len(daemon.front._clients.clients) <= 1


@pytest.mark.slow
def test_unread_replies_of_all_clients_together_are_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = 60_000_000
    with Daemon(max_outgoing_bytes=limit) as daemon, contextlib.ExitStack() as stack:
        clients = daemon.front._clients
        wires = [stack.enter_context(daemon.connect()) for _ in range(8)]
        for wire in wires:
            wire.send(b"GET /big30000000 HTTP/1.1\r\n\r\n")
        wait_until(lambda: clients.meter.dropped >= 5, "what is too much is dropped")
        wait_until(lambda: clients.meter.unread_bytes() <= limit, "and one that is not read")
        assert f"and all clients together more than {limit}" in caplog.text
        daemon.hello()
        big = daemon.ask(b"GET /big80000000 HTTP/1.1\r\n\r\n")  # more than all, but it is read
        assert len(big.body) == 80_000_000


@pytest.mark.slow
def test_a_client_that_reads_next_to_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    limits = {"max_unread_bytes": 1 << 20, "header_timeout_s": 1.0, "idle_timeout_s": 60.0}
    with Daemon(**limits) as daemon, daemon.connect() as wire:
        wire.send(b"GET /big100000000 HTTP/1.1\r\n\r\n")
        read = 0
        with contextlib.suppress(ConnectionError):
            while not caplog.records:
                until = read + 1_500_000  # about what libzmq takes at a time
                while read < until:
                    piece = wire.sock.recv(100_000)
                    if not piece:
                        raise ConnectionError
                    read += len(piece)
                threading.Event().wait(0.4)
        assert read < 50_000_000
        wait_until(lambda: "was dropped: it left" in caplog.text, "it is dropped")


@pytest.mark.slow
def test_a_slow_reader_gets_every_byte() -> None:
    size = 30_000_000
    with Daemon() as daemon, daemon.connect() as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.send(f"GET /big{size} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        for _ in range(20):
            daemon.hello()
        assert len(wire.reply().body) == size
        assert wire.is_closed()


@pytest.mark.slow
def test_a_closed_connection_that_is_not_read_gives_its_descriptor_back() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    # A reply that libzmq takes at once and that the system does not.
    with Daemon(header_timeout_s=0.3) as daemon:
        daemon.hello()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            before = descriptors()
            sock.connect(("127.0.0.1", daemon.front.port))
            sock.sendall(b"GET /big3000000 HTTP/1.1\r\nConnection: close\r\n\r\n")
            while daemon.handler.handled[-1].target == "/api/v1/cmd":
                assert daemon.handler.handled_count.acquire(timeout=PATIENCE_S)
            deadline = time.monotonic() + PATIENCE_S
            while descriptors() > before:
                assert time.monotonic() < deadline
                daemon.hello()


@pytest.mark.slow
def test_a_client_that_sends_far_ahead_is_dropped() -> None:
    with (
        Daemon(max_unread_bytes=1 << 20) as daemon,
        daemon.connect() as wire,
        contextlib.suppress(ConnectionError),
    ):
        wire.send(post(b"", "/slow"))
        assert daemon.handler.slow_running.acquire(timeout=PATIENCE_S)
        while True:
            wire.send(post(b"x" * 1000) * 10)
    assert len(daemon.handler.handled) < 300


# --- ZeroMQ peers ---------------------------------------------------------------------------


@pytest.fixture
def zmtp() -> Iterator[Daemon]:
    with Daemon(rawmode=False, max_body_bytes=1000) as daemon:
        yield daemon


@contextlib.contextmanager
def peer(daemon: Daemon, kind: int) -> Iterator[zmq.Socket[bytes]]:
    with daemon.context.socket(kind) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        sock.connect(daemon.front.endpoint)
        yield sock


def test_a_req_peer_gets_the_document_alone(zmtp: Daemon) -> None:
    with peer(zmtp, zmq.REQ) as sock:
        for _ in range(3):
            sock.send(b'{"payload": {}}')
            assert sock.recv_multipart() == [b'15:{"payload": {}}']
    request = zmtp.handler.handled[-1]
    assert (request.method, request.target, request.is_http) == ("POST", "", False)
    assert request.authorization is None


def test_a_dealer_peer_gets_its_delimiter_back_if_it_sent_one(zmtp: Daemon) -> None:
    with peer(zmtp, zmq.DEALER) as sock:
        sock.send_multipart([b"", b"one"])
        sock.send_multipart([b"two"])
        sock.send_multipart([b"Bearer x", b"three"])
        sock.send_multipart([b"", b"Bearer y", b"four"])
        assert [sock.recv_multipart() for _ in range(4)] == [
            [b"", b"3:one"],
            [b"3:two"],
            [b"5:three"],
            [b"", b"4:four"],
        ]
    assert [request.authorization for request in zmtp.handler.handled] == [
        None,
        None,
        "Bearer x",
        "Bearer y",
    ]


def test_a_peer_is_told_what_is_wrong_with_its_message(zmtp: Daemon) -> None:
    with peer(zmtp, zmq.DEALER) as sock:
        sock.send_multipart([b"a", b"b", b"c"])
        assert sock.recv().startswith(b"the message has 3 frames")
        sock.send(b"x" * 1001)
        assert sock.recv().startswith(b"the document has 1001 bytes")
        sock.send(b"x")
        assert sock.recv() == b"1:x"


def test_peers_are_forgotten_when_they_have_their_replies(zmtp: Daemon) -> None:
    for _ in range(5):
        with peer(zmtp, zmq.DEALER) as sock:
            for number in range(20):
                sock.send(b"%d" % number)
            assert len([sock.recv() for _ in range(20)]) == 20
    assert zmtp.front._clients.clients == {}


# --- where it listens -----------------------------------------------------------------------


def test_ipc_speaks_http_and_is_ours_alone(tmp_path: Path) -> None:
    with Daemon(protocol="ipc", db_path=tmp_path, port=5010) as daemon:
        path = tmp_path / "pman-5010.sock"
        assert daemon.front.endpoint == f"ipc://{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        daemon.hello()
        with (
            pytest.raises(StartError, match="address already in use"),
            Daemon(protocol="ipc", ip=str(path)),
        ):
            pass
        daemon.hello()


def test_an_ipc_path_that_nobody_serves_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "left-behind"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with Daemon(protocol="ipc", ip=str(path)) as daemon:
        daemon.hello()


@pytest.mark.parametrize("ip", ["*", "lo", "127.0.0.1"])
def test_the_address_may_be_an_interface_or_any(ip: str) -> None:
    with Daemon(ip=ip) as daemon:
        daemon.hello()


def test_a_port_in_use_is_one_clear_line(shared: Daemon) -> None:
    port = shared.front.port
    expected = f"^cannot listen on tcp://127.0.0.1:{port}: address already in use$"
    with pytest.raises(StartError, match=expected), Daemon(port=port):
        pass


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"ip": "nosuch0"}, "cannot listen on tcp://nosuch0:0: no such address"),
        ({"ip": "8.8.8.8"}, "cannot listen on tcp://8.8.8.8:0: cannot assign requested address"),
        ({"port": 99999}, "port 99999 is not a port, expected 0 to 65535"),
        ({"protocol": "udp"}, "protocol 'udp' is not known, expected tcp or ipc"),
        ({"protocol": "ipc", "ip": "/nonexistent/s"}, "cannot listen on ipc:///nonexistent/s: "),
        ({"protocol": "ipc", "ip": "/" + "x" * 200}, "cannot listen on ipc:///xxx"),
    ],
)
def test_a_bad_address_is_one_clear_line(bad: dict[str, object], message: str) -> None:
    with pytest.raises(StartError) as caught, Daemon(**bad):
        pass
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message


# --- the end --------------------------------------------------------------------------------


def test_the_stop_answers_what_is_in_flight() -> None:
    with Daemon() as daemon, daemon.connect() as wire, daemon.connect() as idle:
        wire.send(post(b"last", "/slow"))
        assert daemon.handler.slow_running.acquire(timeout=PATIENCE_S)
        daemon.front.request_stop()
        while daemon.ask(GET).status == 200:
            pass
        daemon.handler.release.set()
        reply = wire.reply()
        assert (reply.body, reply.headers["connection"]) == (b"4:last", "close")
        assert wire.is_closed()
        assert idle.is_closed()


def test_a_listener_ends_though_the_front_has_gone_before_it() -> None:
    with Daemon(listeners=1) as daemon:
        with daemon.connect() as wire:
            wire.send(post(b"", "/slow"))
            assert daemon.handler.slow_running.acquire(timeout=PATIENCE_S)
        daemon.front.request_stop()
        assert daemon.front.join(time.monotonic() + PATIENCE_S)
        daemon.handler.release.set()  # and now the end of the daemon waits for the listener


@pytest.mark.slow
def test_the_stop_answers_even_what_is_never_ready() -> None:
    with Daemon() as daemon, daemon.connect() as wire:
        wire.send(post(b"", "/later"))
        assert daemon.handler.deferred_made.acquire(timeout=PATIENCE_S)
        daemon.front.request_stop()
        reply = wire.reply()
        assert (reply.status, reply.headers["connection"]) == (503, "close")
        assert daemon.front.join(time.monotonic() + PATIENCE_S)
        daemon.handler.deferred[0].resolve(Response(status=200, body=b""))


@pytest.mark.slow
def test_an_idle_daemon_costs_nothing() -> None:
    with Daemon() as daemon, daemon.connect() as wire:
        wire.send(GET)
        assert wire.reply().status == 200
        before = time.process_time()
        threading.Event().wait(1.0)
        assert time.process_time() - before < 0.02


def test_replies_are_whole(shared: Daemon) -> None:
    """Several clients at a time, each with its own bodies."""
    failures: list[str] = []

    def talk(mark: bytes) -> None:
        with shared.connect() as wire:
            for number in range(100):
                body = b"%b%d" % (mark, number)
                wire.send(post(body))
                if wire.reply().body != b"%d:%b" % (len(body), body):
                    failures.append(body.decode())

    threads = [threading.Thread(target=talk, args=(bytes([65 + i]) * 9,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def stalled(daemon: Daemon) -> None:
    """Wait until a client has output that it does not take."""
    wait_until(lambda: daemon.front._clients._stalled, "a client does not read")


@pytest.mark.slow
def test_a_further_request_does_not_spare_a_client_that_does_not_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Daemon(idle_timeout_s=0.3) as daemon, daemon.connect() as wire:
        wire.send(b"GET /big12000000 HTTP/1.1\r\n\r\n")
        stalled(daemon)
        wire.send(GET)
        wait_until(lambda: "a client was dropped" in caplog.text, "it is dropped")
        daemon.hello()


@pytest.mark.slow
def test_a_client_that_reads_again_is_not_cut_off_while_it_waits() -> None:
    with Daemon(idle_timeout_s=0.3) as daemon, daemon.connect() as wire:
        wire.send(b"GET /big12000000 HTTP/1.1\r\n\r\n" + post(b"", "/later"))
        stalled(daemon)
        assert len(wire.reply().body) == 12_000_000
        assert daemon.handler.deferred_made.acquire(timeout=PATIENCE_S)
        past = time.monotonic() + 4 * daemon.settings.idle_timeout_s
        wait_until(lambda: daemon.hello() or time.monotonic() > past, "the time to be idle is over")
        daemon.handler.deferred[0].resolve(Response(status=200, body=b"late"))
        assert wire.reply().body == b"late"


def traced_bytes() -> int:
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture
def traced() -> Iterator[None]:
    """Let `tracemalloc` count what Python's objects hold while the test runs."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_what_a_connection_had_sent_goes_with_it() -> None:
    part = post(b"x" * 6_000_000)[:-1]
    with Daemon() as daemon:
        clients = daemon.front._clients
        before = traced_bytes()
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(daemon.connect()).send(part)
            size = 10 * (6_000_000 - 1)
            wait_until(lambda: clients.buffered_bytes == size, "all is there")
            assert traced_bytes() - before >= size
        wait_until(lambda: not clients.buffered_bytes, "all is gone")
        # The resident size would count what the allocator keeps for later as well.
        wait_until(lambda: traced_bytes() - before < len(part) / 2, "its memory is given back")


class NothingIsQuick(ToyHandler):
    def handle_quick(self, request: Request) -> Response | None:
        return None


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_listener_does_not_keep_the_reply_that_it_gave() -> None:
    size = 30_000_000
    with Daemon(NothingIsQuick(), listeners=1) as daemon:
        before = traced_bytes()
        assert len(daemon.ask(f"GET /big{size} HTTP/1.1\r\n\r\n".encode()).body) == size
        wait_until(lambda: traced_bytes() - before < size / 2, "the listener has let go of it")
