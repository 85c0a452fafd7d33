"""An `Engine` in memory, with faults on demand: for `EngineBackend`.

A `World` is what outlives the daemon: containers and what is wrong with the engine. Each
`FakeEngine` is one daemon's connection to it.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pman.backends._engine.halt import Halt
from pman.backends._engine.order import Order
from pman.backends._engine.port import Changed, Engine, Phase, Sink, View
from pman.backends._engine.wish import Wish
from pman.errors import BackendUnavailable, JobConflict, RequestError
from pman.job.record import Worker
from pman.job.state import JobState

#: How long anything in a test may take before it counts as failed, seconds.
DEADLINE_S = 30.0

#: How often who follows looks whether it is to end, should nobody wake it, seconds.
WAKE_S = 1.0

AWAY = "the engine is away; start it"


class Thing:
    """The object of one job. Its attributes are those of `View`, and may be set by tests."""

    def __init__(self, order: Order, share_path: str | None, number: int) -> None:
        self.order = order
        self.share_path = share_path
        self.handle: dict[str, Any] = {"id": number}
        self.phase = Phase.WAITING
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.code: int | None = None
        self.reason = ""
        self.message = ""
        self.output: list[tuple[int, str, bytes]] = []
        self.ended: set[int] = set()  # workers that have ended before the others

    def view(self) -> View:
        code = self.code
        seen = View(
            job_name=self.order.job_name,
            handle=dict(self.handle),
            phase=self.phase,
            workers=[Worker(f"worker-{n}", self._stage(n).value, code) for n in self._numbers()],
            count=self.order.workers,
            started_at=self.started_at,
            ended_at=self.ended_at,
            reason=self.reason,
            message=self.message,
        )
        if self.phase is Phase.ENDED:
            assert code is not None
            seen.outcome = JobState.FAILED if code else JobState.COMPLETED
            seen.exit_code = code if code >= 0 else None
            seen.signal = -code if code < 0 else None
            seen.reason = self.reason or ("error" if code else "ok")
            seen.message = self.message or (f"ended with code {code}" if code else "")
        return seen

    def _stage(self, number: int) -> Phase:
        return Phase.ENDED if number in self.ended else self.phase

    def _numbers(self) -> range:
        return range(self.order.workers)


class World:
    """What runs the containers.

    Attributes:
        things: By job name.
        calls: Names of methods and jobs, in order.
        creates: How often each job was created.
        is_away: Whether nothing can be asked.
        is_acting: Whether containers start by themselves and do what their command says.
        faults: What the next calls of a method raise; None for one that works.
        signals: With which each job was stopped last.
        is_deaf: Whether jobs end only when their time is up, whatever they are asked.
        waiting: Jobs whose output somebody has read to its end and waits for more of.
        cuts: Jobs of which the connection of who follows them breaks.
        survives_stop: What `stop` returns: False when output can be collected afterwards.
    """

    def __init__(self, *, is_acting: bool = True) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.things: dict[str, Thing] = {}
        self.calls: list[tuple[str, str]] = []
        self.creates: collections.Counter[str] = collections.Counter()
        self.is_away = False
        self.is_acting = is_acting
        self.faults: dict[str, collections.deque[Exception | None]] = {}
        self.after_fault: dict[str, Callable[[], object]] = {}
        self.gates: dict[str, threading.Event] = {}
        self.entered: dict[str, threading.Event] = {}
        self.writes_at_stop = False
        self.can_retry = False
        self.events: list[tuple[str | None, bool]] = []
        self.signals: dict[str, int | None] = {}
        self.is_deaf = False
        self.waiting: set[str] = set()
        self.cuts: dict[str, int] = {}
        self._count = 0

    # --- what tests do ----------------------------------------------------------------------

    def fail(self, method: str, *errors: Exception | None) -> None:
        """Have the next calls of a method raise."""
        with self.lock:
            self.faults.setdefault(method, collections.deque()).extend(errors)

    def hold(self, method: str) -> tuple[threading.Event, threading.Event]:
        """Have calls of a method wait; return what says that one has come, and what frees it."""
        self.entered[method], self.gates[method] = threading.Event(), threading.Event()
        return self.entered[method], self.gates[method]

    def go_away(self) -> None:
        """Answer nothing any more; who watches is told."""
        with self.lock:
            self.is_away = True
            self.lock.notify_all()

    def come_back(self) -> None:
        with self.lock:
            self.is_away = False
            self.lock.notify_all()

    def event(self, name: str | None, *, is_hot: bool = False) -> None:
        """Send an event to who watches."""
        with self.lock:
            self.events.append((name, is_hot))
            self.lock.notify_all()

    def change(self, name: str, *, is_told: bool = True, **attributes: Any) -> None:
        """Set attributes of a thing, and send an event."""
        with self.lock:
            for key, value in attributes.items():
                setattr(self.things[name], key, value)
            if is_told:
                self.event(name)

    def run(self, name: str) -> None:
        self.change(name, phase=Phase.RUNNING, started_at=time.time(), reason="", message="")

    def end(self, name: str, code: int = 0, *, is_told: bool = True) -> None:
        """End a job with an exit code, negative for a signal."""
        with self.lock:
            thing = self.things[name]
            if thing.phase is Phase.ENDED:
                return
            now = time.time()
            started_at = thing.started_at or now
            self.change(
                name,
                is_told=is_told,
                phase=Phase.ENDED,
                started_at=started_at,
                ended_at=now,
                code=code,
                reason="",
                message="",
            )

    def say(self, name: str, raw: bytes, worker: int = 0, stream: str = "stdout") -> None:
        """Have a container print something."""
        with self.lock:
            self.things[name].output.append((worker, stream, raw))
            self.lock.notify_all()

    def wake(self) -> None:
        """Have all who wait look again."""
        with self.lock:
            self.lock.notify_all()

    def cut(self, name: str) -> None:
        """Break the connection of who follows a job."""
        with self.lock:
            self.cuts[name] = 1
            self.lock.notify_all()

    def drop(self, name: str) -> None:
        """Remove a thing behind our back."""
        with self.lock:
            del self.things[name]
            self.event(name)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until something is so; looked at with each call and event."""
        with self.lock:
            assert self.lock.wait_for(condition, DEADLINE_S), self.calls

    def wait_call(self, method: str, name: str = "", count: int = 1) -> None:
        """Wait until a method has been called so often."""
        self.wait(lambda: self.calls.count((method, name)) >= count)

    # --- what engines do --------------------------------------------------------------------

    def enter(self, method: str, name: str = "") -> None:
        """Note a call; wait or raise if that was wanted."""
        with self.lock:
            self.calls.append((method, name))
            self.lock.notify_all()
            gate = self.gates.get(method)
        if gate is not None:
            self.entered[method].set()
            assert gate.wait(DEADLINE_S)
        with self.lock:
            if self.is_away:
                raise BackendUnavailable(AWAY)
            waiting = self.faults.get(method)
            error = waiting.popleft() if waiting else None
        if error is not None:
            raise error

    def leave(self, method: str) -> None:
        """Wait with an answer that has been made up, if that was wanted (`<method>.answer`)."""
        gate = self.gates.get(f"{method}.answer")
        if gate is not None:
            self.entered[f"{method}.answer"].set()
            assert gate.wait(DEADLINE_S)

    @contextlib.contextmanager
    def not_waiting_after(self, name: str) -> Iterator[None]:
        """Take note that nobody waits for output of a job once this is over."""
        try:
            yield
        finally:
            with self.lock:
                self.waiting.discard(name)

    def make(self, order: Order, share_path: str | None) -> Thing:
        with self.lock:
            name = order.job_name
            if name in self.things:
                return self.things[name]
            self._count += 1
            self.creates[name] += 1
            thing = self.things[name] = Thing(order, share_path, self._count)
            if self.is_acting:
                self._act(thing, order.command or ["true"])
            self.event(name, is_hot=True)
            return thing

    def _act(self, thing: Thing, words: list[str]) -> None:
        name, command, arguments = thing.order.job_name, words[0], words[1:]
        thing.phase, thing.started_at = Phase.RUNNING, time.time()
        if command == "print":
            thing.output.append((0, "stdout", arguments[0].encode() + b"\n"))
            thing.output.append((0, "stderr", arguments[1].encode() + b"\n"))
        codes = {"exit": 1, "kill": -1}
        if command != "sleep":
            self.end(name, codes.get(command, 0) * int(arguments[0]) if command in codes else 0)


class FakeEngine(Engine):
    """One daemon's connection to a `World`."""

    noun = "thing"

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_interrupted = False
        self.is_closed = False

    def connect(self) -> None:
        self.world.enter("connect")

    def check(self, order: Order) -> None:
        self.world.enter("check")
        if order.gpus:
            raise RequestError(f"gpu_limit is {order.gpus!r}, expected 0", field="gpu_limit")

    def create(self, order: Order, share_path: str | None) -> dict[str, Any]:
        name = order.job_name
        try:
            self.world.enter("create", name)
        except BackendUnavailable:
            after = self.world.after_fault.pop("create", None)
            if after is not None:
                self.world.make(order, share_path)
            raise
        self._make_room(order)
        return dict(self.world.make(order, share_path).handle)

    def _make_room(self, order: Order) -> None:
        with self.world.lock:
            rivals = [
                name
                for name, thing in self.world.things.items()
                if order.service_name
                and thing.order.service_name == order.service_name
                and name != order.job_name
            ]
        for name in rivals:
            if not self.may_replace(name):
                raise JobConflict(f"the name {order.service_name!r} is taken")
            with self.world.lock:
                self.world.things.pop(name, None)

    def describe(self, order: Order, share_path: str | None) -> dict[str, Any]:
        self.world.enter("describe")
        return {"thing": {"order": order, "share_path": share_path}}

    def look_all(self) -> dict[str, View]:
        self.world.enter("look_all")
        with self.world.lock:
            views = {name: thing.view() for name, thing in self.world.things.items()}
        self.world.leave("look_all")
        return views

    def look(self, job_name: str, handle: dict[str, Any]) -> View | None:
        self.world.enter("look", job_name)
        with self.world.lock:
            thing = self.world.things.get(job_name)
            return thing.view() if thing is not None and thing.handle == handle else None

    def watch(self, changed: Changed, stop: threading.Event) -> None:
        world = self.world
        world.enter("watch")
        with world.lock:
            at = len(world.events)
        changed(None, False)
        while True:
            with world.lock:
                while len(world.events) == at and not (world.is_away or self.is_interrupted):
                    world.lock.wait()
                if world.is_away:
                    raise BackendUnavailable(AWAY)
                if stop.is_set():
                    return
                news = world.events[at:]
                at = len(world.events)
            for name, is_hot in news:
                changed(name, is_hot)

    def interrupt(self) -> None:
        with self.world.lock:
            self.is_interrupted = True
            self.world.lock.notify_all()

    def collect(self, view: View, sink: Sink) -> None:
        name = view.job_name
        with self.world.lock:
            thing = self.world.things.get(name)
            output = list(thing.output) if thing is not None else []
        for worker, stream, raw in output[:1]:
            sink.write(worker, stream, raw)
        self.world.enter("collect", name)
        for worker, stream, raw in output[1:]:
            sink.write(worker, stream, raw)

    def peek(self, view: View, max_bytes: int) -> bytes:
        self.world.enter("peek", view.job_name)
        with self.world.lock:
            output = self.world.things[view.job_name].output
            return b"".join(raw for _, _, raw in output)[-max_bytes:]

    def stage_of(self, worker: Worker) -> Phase:
        return Phase(worker.state)

    def check_signal(self, signal: int) -> None:
        if signal > 15:
            raise RequestError(f"signal is {signal}, expected at most 15", field="signal")

    def follow(self, view: View, worker: int, sink: Sink, halt: Halt, *, waits: bool) -> None:
        world, name = self.world, view.job_name
        world.enter("follow", name)
        at = 0
        with halt.interrupts(world.wake), world.not_waiting_after(name):
            while not halt.is_set():
                with world.lock:
                    thing = world.things.get(name)
                    news = [] if thing is None else thing.output[at:]
                    at += len(news)
                    is_over = thing is None or thing.phase is Phase.ENDED or not waits
                    if not news and not is_over and not halt.is_set():
                        if name not in world.waiting:
                            world.waiting.add(name)
                            world.lock.notify_all()
                        world.lock.wait(WAKE_S)
                        if world.cuts.pop(name, 0):
                            raise BackendUnavailable("the connection was cut")
                        continue
                for number, stream, raw in news:
                    if number == worker:
                        sink.write(number, stream, raw)
                if not news:
                    return

    def stop(self, view: View, wish: Wish, sink: Sink) -> bool:
        name = view.job_name
        self.world.signals[name] = wish.signal
        self.world.enter("stop", name)
        if self.world.is_deaf:
            self._wait_for_deadline(name, wish)
        with self.world.lock:
            thing = self.world.things.get(name)
            if thing is None:
                return False
            self.world.end(name, -15)
            output = list(thing.output)
            if self.world.writes_at_stop:
                thing.output.clear()
        if self.world.writes_at_stop:
            for worker, stream, raw in output:
                sink.write(worker, stream, raw)
        return self.world.writes_at_stop

    def _wait_for_deadline(self, name: str, wish: Wish) -> None:
        heard = threading.Event()
        with wish.heard_by(heard.set):
            while left_s := wish.left_s():
                self.world.signals[name] = wish.signal
                self.world.wake()
                heard.wait(left_s)
                heard.clear()
        self.world.signals[name] = wish.signal

    def remove(self, job_name: str, handle: dict[str, Any]) -> None:
        self.world.enter("remove", job_name)
        with self.world.lock:
            thing = self.world.things.get(job_name)
            if thing is not None and thing.handle == handle:
                del self.world.things[job_name]
                self.world.event(job_name)

    def retry(self, view: View) -> bool:
        self.world.enter("retry", view.job_name)
        return self.world.can_retry

    def close(self) -> None:
        self.is_closed = True
