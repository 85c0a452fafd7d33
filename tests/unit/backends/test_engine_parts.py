"""The small parts of `EngineBackend`: mover, calls, outage, orphans, peeks, shares, backoff."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fakes.engine import Thing

from pman.backends._engine import peeks as peeks_module
from pman.backends._engine.calls import Calls
from pman.backends._engine.mover import Mover
from pman.backends._engine.order import order_from_meta
from pman.backends._engine.orphans import Orphans
from pman.backends._engine.outage import NOT_YET, Outage
from pman.backends._engine.peeks import Peeks
from pman.backends._engine.port import View
from pman.backends._engine.shares import Shares, is_there
from pman.backends._engine.timing import backoff
from pman.errors import BackendUnavailable

DEADLINE_S = 30.0


@pytest.fixture
def mover() -> Mover:
    made = Mover("test")
    made.start()
    return made


def test_steps_run_in_order_and_survive_a_fault(
    mover: Mover, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    for n in range(5):
        mover.post(lambda n=n: done.append(n))
    mover.post(lambda: done[99])
    assert mover.ask(lambda: list(done), closed=[]) == [0, 1, 2, 3, 4]
    assert "IndexError" in caplog.text
    mover.close(DEADLINE_S)


def test_timers_run_in_their_order_unless_canceled(mover: Mover) -> None:
    done: list[str] = []
    over = threading.Event()
    mover.after(0.03, over.set)
    mover.after(0.02, lambda: done.append("second"))
    mover.after(0.01, lambda: done.append("first"))
    mover.after(0.0, lambda: done.append("never")).cancel()
    assert over.wait(DEADLINE_S)
    assert done == ["first", "second"]
    mover.close(DEADLINE_S)


def test_a_question_within_a_step_is_answered(mover: Mover) -> None:
    assert mover.ask(lambda: mover.ask(lambda: 1, closed=0), closed=0) == 1
    mover.close(DEADLINE_S)


def test_a_closed_mover_answers_with_what_it_was_given(mover: Mover) -> None:
    mover.close(DEADLINE_S)
    assert mover.ask(lambda: "answer", closed="closed") == "closed"
    assert not mover.post(lambda: None)


def test_calls_bring_results_and_errors_to_the_mover(mover: Mover) -> None:
    calls = Calls("test", 2, mover)
    got: list[object] = []
    over = threading.Event()
    calls.run(lambda: 1, got.append, got.append)
    calls.run(lambda: [][0], got.append, lambda error: (got.append(type(error)), over.set()))
    assert over.wait(DEADLINE_S)
    assert sorted(map(str, got)) == ["1", "<class 'IndexError'>"]
    calls.close()
    calls.run(lambda: pytest.fail("closed"), got.append, got.append)
    mover.close(DEADLINE_S)


def test_calls_have_so_many_threads_and_no_more(mover: Mover) -> None:
    calls = Calls("test", 3, mover)
    gate, done = threading.Event(), threading.Semaphore(0)
    running: list[int] = []
    barrier = threading.Barrier(3)

    def call(n: int) -> None:
        if n < 3:
            barrier.wait(DEADLINE_S)
        running.append(n)
        gate.wait(DEADLINE_S)

    for n in range(6):
        calls.run(lambda n=n: call(n), lambda _: done.release(), lambda _: None)
    gate.set()
    for _ in range(6):
        assert done.acquire(timeout=DEADLINE_S)
    assert sorted(running) == list(range(6))
    assert len(calls._threads) == 3
    calls.close()
    mover.close(DEADLINE_S)


def test_an_outage_has_two_sources() -> None:
    ups: list[int] = []
    outage = Outage("test", lambda: ups.append(1))
    assert outage.problem == NOT_YET
    outage.up("watch")
    assert outage.is_up
    assert outage.age_s() == float("inf")
    outage.down("watch", BackendUnavailable("broken"))
    outage.down("call", BackendUnavailable("silent"))
    outage.up("watch")
    assert outage.problem == "silent"
    outage.up("call")
    outage.up("call")
    assert outage.is_up
    assert len(ups) == 2


def view(name: str) -> View:
    meta = {"cmd": "true", "container": {"target": {"image": "i"}}}
    return Thing(order_from_meta(meta, job_name=name), None, 1).view()


def test_orphans_go_after_a_while_and_again_should_they_stay() -> None:
    now = [0.0]
    orphans = Orphans(60.0, lambda: now[0])
    views = {name: view(name) for name in ("known", "stranger")}
    assert orphans.judge(views, {"known"}) == []
    assert orphans.next_s() == 60.0
    now[0] = 60.0
    assert [name for name, _ in orphans.judge(views, {"known"})] == ["stranger"]
    assert orphans.judge(views, {"known"}) == []
    now[0] = 120.0
    assert len(orphans.judge(views, {"known"})) == 1
    assert orphans.judge({}, {"known"}) == []
    assert orphans.next_s() is None


def test_peeks_are_bounded_in_time_size_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peeks_module, "MAX_JOBS", 2)
    monkeypatch.setattr(peeks_module, "MAX_BYTES", 3)
    now = [0.0]
    peeks = Peeks(2.0, lambda: now[0])
    assert peeks.text("a") == ("", True)
    peeks.put("a", b"12345")
    assert peeks.text("a") == ("345", False)
    now[0] = 2.0
    assert peeks.text("a") == ("345", True)
    peeks.text("b")
    peeks.text("c")
    peeks.put("a", b"late")
    assert peeks.text("a")[0] == ""
    peeks.put("a", b"\xff")
    assert peeks.text("a")[0] == "\ufffd"
    peeks.drop("a")
    assert peeks.text("a")[0] == ""


def test_shares_tell_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    told: list[str] = []
    found, missing = threading.Event(), threading.Event()

    def tell(event: threading.Event, word: str) -> None:
        told.append(word)
        event.set()

    shares = Shares(
        "test",
        0.005,
        found=lambda name: tell(found, f"found {name}"),
        missing=lambda name: tell(missing, f"missing {name}"),
    )
    shares.start()
    shares.add("a", tmp_path / "a")
    shares.add("dropped", tmp_path / "a")
    shares.discard("dropped")
    assert missing.wait(DEADLINE_S)
    (tmp_path / "a").mkdir()
    assert found.wait(DEADLINE_S)
    shares.request_stop()
    shares.join(DEADLINE_S)
    assert [word for word in told if word.endswith(" a")] == ["missing a", "found a"]
    assert "found dropped" not in told


def test_a_folder_that_can_not_be_looked_at_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "file")
    assert not is_there(tmp_path / "file" / "below")
    assert not is_there(Path("/" + "x" * 5000))


def test_backoff_doubles_up_to_its_most() -> None:
    assert [backoff(5.0, 60.0, tries) for tries in range(6)] == [5, 10, 20, 40, 60, 60]
    assert backoff(1.0, 60.0, 10**6) == 60.0


def test_peeks_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peeks_module, "MAX_JOBS", 1)
    monkeypatch.setattr(peeks_module, "MAX_UNDER_WAY", 2)
    now = [0.0]
    peeks = Peeks(2.0, lambda: now[0])
    for name in ("a", "b"):
        assert peeks.text(name)[1]
        peeks.begin(name)
    assert not peeks.text("c")[1]
    assert not peeks.text("a")[1]  # forgotten, and still under way
    peeks.put("b", b"late")
    assert peeks.text("c")[1]
    now[0] = 3.0
    assert not peeks.text("c", 5.0)[1]
    assert peeks.text("c")[1]
