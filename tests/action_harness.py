"""The actions and the dispatcher on a real store and the stub backend; no sockets, no daemon."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobdb_builders import DEADLINE_S, running_writer, stop

import pman.actions
import pman.backends
from pman.actions import ACTIONS
from pman.actions.base import ActionContext
from pman.auth import TokenAuth
from pman.backends import BACKENDS
from pman.backends.base import BackendContext
from pman.backends.stub import StubBackend
from pman.config import Settings
from pman.dispatcher import Dispatcher
from pman.http.deferred import Deferred
from pman.http.message import Request, Response
from pman.http.streaming import Body
from pman.jobdb.events import EventLog
from pman.jobdb.reader import Reader
from pman.jobdb.store import JobStore
from pman.output import OutputFiles
from pman.pageguard import PageGuard
from pman.queue import JobQueue
from pman.services.errands import Errands
from pman.services.herald import Herald
from pman.services.queuedriver import QueueDriver
from pman.services.saver import Saver
from pman.services.timers import Timers

#: A moment, in UTC epoch seconds.
NOW = 1_795_423_317.670218

ACTIONS.load(pman.actions)
BACKENDS.load(pman.backends)


class HostLikeStub(StubBackend):
    """The stub under the name of the host backend."""

    name = "host"


class Harness:
    """A dispatcher and what it works on."""

    def __init__(self, context: ActionContext, auth: TokenAuth | None = None) -> None:
        self.context = context
        self.store = context.store
        self.backend = context.backends["host"]
        guard = PageGuard(context.settings.cors_origins, lambda: True) if auth is None else None
        self.dispatcher = Dispatcher(context, auth, guard=guard)

    def send(
        self, method: str, target: str = "/api/v1/cmd", body: Any = b"", **more: Any
    ) -> Answer:
        """Carry out one request; wait for a reply that comes late."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answered = self.dispatcher.handle(Request(method, target, body=raw, **more))
        return Answer(wait_for(answered) if isinstance(answered, Deferred) else answered)

    def post(self, action: Any, meta: Any, **more: Any) -> Answer:
        return self.send("POST", body={"payload": {"action": action, "meta": meta}}, **more)

    def begin(self, action: Any, meta: Any) -> Response | Deferred:
        """Carry out one request; return what there is at once."""
        body = json.dumps({"payload": {"action": action, "meta": meta}}).encode()
        return self.dispatcher.handle(Request("POST", "/api/v1/cmd", body=body))

    def stream(self, action: str, meta: Any) -> tuple[Response, Body]:
        """Carry out one request whose reply is a stream."""
        body = json.dumps({"payload": {"action": action, "meta": meta}}).encode()
        response = self.dispatcher.handle(Request("POST", "/api/v1/cmd", body=body))
        assert isinstance(response, Response)
        assert response.stream is not None, response.body
        return response, response.stream

    def run(self, cmd: str, jid: Any = "job-1", **meta: Any) -> Answer:
        return self.post("run", {"cmd": cmd, "auid": "t", "jid": jid, "threaded": True, **meta})


class Answer:
    """A response, and its JSON."""

    def __init__(self, response: Response) -> None:
        self.code = response.status
        self.headers = dict(response.headers)
        self.content_type = response.content_type
        self.json: dict[str, Any] = json.loads(response.body)

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = self.json["error"]
        return found


def wait_for(deferred: Deferred) -> Response:
    """Return the reply that comes late."""
    done = threading.Event()
    got: list[Response] = []

    def take(response: Response) -> None:
        got.append(response)
        done.set()

    deferred.on_done(take)
    assert done.wait(DEADLINE_S), "the reply did not come"
    return got[0]


@contextlib.contextmanager
def harness(folder: Path, auth: TokenAuth | None = None, **settings: Any) -> Iterator[Harness]:
    """Yield a harness with a job DB below `folder`."""
    chosen = Settings(db_path=folder / "db", **{"container_env": "host", **settings})
    chosen.db_path.mkdir()
    output = OutputFiles(chosen.db_path / "output", chosen.max_inline_output_bytes)
    backend = HostLikeStub(
        BackendContext(settings=chosen, instance="test", state_path=folder / "stub", output=output)
    )
    stopped = threading.Event()
    with running_writer(folder) as writer, contextlib.closing(Errands(1)) as errands:
        store = JobStore(writer)
        database = writer._database
        reader = Reader(database.path)
        events = EventLog(writer.numbering, database.horizon, reader.events)
        herald = Herald(events)
        writer.on_events(events.publish)
        writer.on_events(herald.ring)
        herald.start()
        saver = Saver(chosen, store, output)
        saver.start()
        timers = Timers()
        timers.start()
        queue = JobQueue(store, {"host": backend}, chosen)
        driver = QueueDriver(queue)
        driver.start()
        backend.start(queue.observe)
        yield Harness(
            ActionContext(
                store=store,
                events=events,
                backends={"host": backend},
                settings=chosen,
                output=output,
                snapshots=saver,
                request_stop=stopped.set,
                now=lambda: NOW,
                errands=errands,
                timers=timers,
                queue=queue,
            ),
            auth,
        )
        stop(driver)
        stop(herald)
        reader.close()
        stop(timers)
        stop(saver)
