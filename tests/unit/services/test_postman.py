"""`Postman`: tries, backoff, receivers that fail or are slow, the end. The receivers are fakes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from daemon_process import wait_until
from jobdb_builders import DEADLINE_S, THEN, stop

from pman.job.callback import Target
from pman.jobdb.database import Database
from pman.jobdb.outbox import Letter, OutboxChanges
from pman.jobdb.reader import Reader
from pman.services import postman as postman_module
from pman.services.courier import Undelivered
from pman.services.postman import GIVE_UP_S, SHOWN_S, Postman, backoff_s
from pman.services.signing import open_signer
from pman.services.timers import Timers
from pman.services.writer import Writer


class Receivers:
    """What answers, by host: a code, or None for no answer; a host may hold its answers back."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.codes: dict[str, list[int | None]] = {}
        self.got: list[tuple[str, str]] = []
        self.held: dict[str, threading.Event] = {}
        self.busy: dict[str, int] = {}
        self.most_busy: dict[str, int] = {}

    def answer(self, host: str, letter_id: str, is_cut: threading.Event) -> int:
        with self.lock:
            self.got.append((host, letter_id))
            self.busy[host] = self.busy.get(host, 0) + 1
            self.most_busy[host] = max(self.most_busy.get(host, 0), self.busy[host])
            codes = self.codes.get(host, [])
            code = codes.pop(0) if codes else 200
            self.lock.notify_all()
        if host in self.held:
            while not self.held[host].wait(0.01) and not is_cut.is_set():
                pass
        with self.lock:
            self.busy[host] -= 1
        if code is None or is_cut.is_set():
            raise Undelivered("no answer in time")
        return code

    def wait_for(self, count: int, host: str | None = None) -> list[str]:
        """Return the ids of the letters that came, once there are so many."""

        def ids() -> list[str]:
            return [each for name, each in self.got if host in (None, name)]

        with self.lock:
            assert self.lock.wait_for(lambda: len(ids()) >= count, DEADLINE_S), self.got
            return ids()


class Office:
    """A postman with a data base and fake receivers; `now` stands still unless it is moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "pman.db"
        self.now = THEN
        self.receivers = Receivers()
        self.allowed = ["*"]
        if not self.path.exists():
            Database.create(self.path, [], str(uuid.uuid4())).close()

    def open(self) -> None:
        self.writer = Writer(Database.open(self.path))
        self.reader = Reader(self.path)
        self.timers = Timers()
        self.postman = Postman(
            self.reader,
            self.writer.change_outbox,
            open_signer(None, self.folder),
            self.allowed,
            self.timers,
            now=lambda: self.now,
        )
        self.writer.on_letters(self.postman.take)
        for service in (self.writer, self.timers, self.postman):
            service.start()
            service.wait_ready()

    def close(self) -> None:
        for service in (self.postman, self.timers, self.writer):
            stop(service)
        self.reader.close()

    def post(self, number: int, host: str = "h", auid: str = "me") -> None:
        url = f"http://{host}/"
        letter = Letter(f"msg_{number}", f"job-{number}", auid, url, b"{}", THEN, THEN)
        self.writer.change_outbox(OutboxChanges(new=[letter]))

    def pass_time(self, seconds: float) -> None:
        """Move the clock, once nobody is under way."""
        deadline = time.monotonic() + DEADLINE_S
        while self.postman._threads:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        self.now += seconds
        with self.postman._news:
            self.postman._news.notify()

    def left(self) -> dict[str, Letter]:
        """Return what is on disk once the office is closed."""
        reader = Reader(self.path)
        try:
            return {letter.id: letter for letter in reader.letters()}
        finally:
            reader.close()


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    made = Office(tmp_path)

    class FakeErrand:
        def __init__(self, target: Target) -> None:
            self.host = target.host
            self.is_cut = threading.Event()

        def post(self, headers: Mapping[str, str], body: bytes) -> int:
            return made.receivers.answer(self.host, headers["webhook-id"], self.is_cut)

        def cut(self) -> None:
            self.is_cut.set()

    monkeypatch.setattr(postman_module, "Errand", FakeErrand)
    made.open()
    yield made
    for held in made.receivers.held.values():
        held.set()
    made.close()


def reopen(office: Office) -> None:
    office.close()
    office.open()


def test_delivered_letter_is_gone(office: Office) -> None:
    office.post(1)
    assert office.receivers.wait_for(1) == ["msg_1"]
    reopen(office)
    assert office.left() == {}
    assert office.receivers.got == [("h", "msg_1")]


@pytest.mark.parametrize("code", [None, 301, 404, 500, 199])
def test_anything_but_success_is_tried_again_with_the_same_id(
    office: Office, code: int | None
) -> None:
    office.receivers.codes["h"] = [code, code]
    office.post(1)
    office.receivers.wait_for(1)
    office.pass_time(2)
    office.receivers.wait_for(2)
    reopen(office)
    assert office.left()["msg_1"].tries == 2
    office.pass_time(3)
    assert office.receivers.wait_for(3) == ["msg_1"] * 3
    reopen(office)
    assert office.left() == {}


def test_gone_gives_up_at_once(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.receivers.codes["h"] = [410]
    office.post(1)
    office.receivers.wait_for(1)
    reopen(office)
    assert office.left()["msg_1"].given_up_at == THEN
    assert "answered with 410; given up after 1 tries" in caplog.text
    office.pass_time(SHOWN_S + 1)
    reopen(office)
    office.close()
    assert office.left() == {}
    assert len(office.receivers.got) == 1
    office.open()


def test_after_three_days_it_gives_up(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.receivers.codes["h"] = [None] * 10
    office.post(1)
    office.receivers.wait_for(1)
    office.pass_time(GIVE_UP_S)
    office.receivers.wait_for(2)
    office.pass_time(GIVE_UP_S)
    reopen(office)
    letter = office.left()["msg_1"]
    assert (letter.tries, letter.problem) == (2, "no answer in time")
    assert letter.given_up_at is not None
    assert "1 callbacks were given up" in caplog.text


def test_slow_receiver_holds_up_nobody_else(office: Office) -> None:
    office.receivers.held["slow"] = threading.Event()
    for n in range(20):
        office.post(n, "slow")
    for n in range(20, 30):
        office.post(n, "quick")
    assert len(office.receivers.wait_for(10, "quick")) == 10
    assert office.receivers.most_busy["slow"] <= postman_module.MAX_FOR_ONE
    office.receivers.held["slow"].set()
    assert sorted(office.receivers.wait_for(20, "slow")) == sorted(f"msg_{n}" for n in range(20))


def hold(office: Office, numbers: range) -> list[str]:
    """Return hosts that do not answer until they are let go."""
    hosts = [f"silent{n}" for n in numbers]
    for host in hosts:
        office.receivers.held[host] = threading.Event()
        office.receivers.codes[host] = [None]
    return hosts


def test_user_whose_receivers_hang_holds_up_nobody_else(office: Office) -> None:
    hosts = hold(office, range(96))
    for n, host in enumerate(hosts):
        office.post(n, host)
    office.receivers.wait_for(postman_module.MAX_COURIERS // 2)
    office.post(100, "quick", "you")
    office.receivers.wait_for(1, "quick")
    assert sum(office.receivers.busy[host] for host in hosts if host in office.receivers.busy) == (
        postman_module.MAX_COURIERS // 2
    )


def test_receivers_in_trouble_have_few_couriers_together(office: Office) -> None:
    hosts = [f"h{n}" for n in range(40)]
    for n, host in enumerate(hosts):
        office.receivers.codes[host] = [None]
        office.post(n, host, f"user{n % 8}")
    office.receivers.wait_for(40)
    for host in hosts:
        office.receivers.held[host] = threading.Event()
    office.pass_time(2)
    office.receivers.wait_for(40 + 15)
    office.post(100, "quick", "you")
    office.receivers.wait_for(1, "quick")
    with office.postman._news:
        in_trouble = sum(each.is_in_trouble for each in office.postman._threads.values())
    assert in_trouble <= postman_module.MAX_IN_TROUBLE


def test_trouble_of_one_user_is_not_that_of_another_at_the_same_address(office: Office) -> None:
    office.receivers.codes["h"] = [None]
    office.post(1)
    office.receivers.wait_for(1)
    office.pass_time(0)
    office.receivers.held["h"] = threading.Event()
    for n in range(2, 12):
        office.post(n, "h", "you")
    office.receivers.wait_for(1 + postman_module.MAX_FOR_ONE)
    assert office.receivers.busy["h"] == postman_module.MAX_FOR_ONE
    office.receivers.held["h"].set()
    assert len(office.receivers.wait_for(11)) == 11


def test_once_a_receiver_is_back_it_gets_all_at_once(office: Office) -> None:
    office.receivers.codes["h"] = [None, None]
    office.post(1)
    office.receivers.wait_for(1)
    office.pass_time(1.25)
    office.receivers.wait_for(2)
    office.post(2)  # the clock stands still: the next try of the first is not due by itself
    assert office.receivers.wait_for(4) == ["msg_1", "msg_1", "msg_2", "msg_1"]
    reopen(office)
    assert office.left() == {}


def test_receiver_in_trouble_is_tried_by_one(office: Office) -> None:
    office.receivers.codes["h"] = [None]
    office.post(0)
    office.receivers.wait_for(1)
    office.pass_time(0)
    office.receivers.held["h"] = threading.Event()
    for n in range(1, 6):
        office.post(n)
    office.post(6, "other")
    office.receivers.wait_for(1, "other")
    office.receivers.wait_for(2, "h")
    assert office.receivers.busy["h"] == 1
    office.receivers.held["h"].set()
    assert len(office.receivers.wait_for(7, "h")) == 7


def test_host_that_is_not_allowed_any_more_is_not_called(office: Office) -> None:
    office.close()
    office.allowed = ["other"]
    office.open()
    office.post(1)
    office.post(2, "other")
    office.receivers.wait_for(1, "other")
    problem = wait_until(lambda: office.left()["msg_1"].problem, "the other one is refused")
    assert "--callbackHosts" in problem
    assert office.receivers.got == [("other", "msg_2")]


def test_stop_cuts_tries_short_and_does_not_count_them(office: Office) -> None:
    office.receivers.held["h"] = threading.Event()
    office.post(1)
    office.receivers.wait_for(1)
    office.close()
    assert office.left()["msg_1"].tries == 0
    office.receivers.held["h"].set()
    office.open()
    assert office.receivers.wait_for(2) == ["msg_1", "msg_1"]


def test_backoff_is_doubled_up_to_an_hour() -> None:
    for tries, wait_s in ((1, 1), (2, 2), (5, 16), (12, 2048)):
        assert 0.75 * wait_s <= backoff_s(tries) <= 1.25 * wait_s
    for tries in (13, 50, 5000):
        assert 2700 <= backoff_s(tries) <= 3600
