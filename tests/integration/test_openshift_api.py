"""`Api` against a small server that says what real ones say seldom."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from pman.backends._engine.port import Unanswered
from pman.backends._openshift.cache import Cache
from pman.backends._openshift.client import Api
from pman.backends._openshift.failures import Answered
from pman.backends._openshift.guard import Guard
from pman.backends._openshift.objects import KubeJob, KubePod
from pman.backends._openshift.pods import utc_now
from pman.backends._openshift.rescue import Rescue
from pman.backends._openshift.tickets import Tickets
from pman.backends._openshift.watching import Watch
from pman.settings import Settings

DEADLINE_S = 30.0
EMPTY = {"metadata": {"resourceVersion": "1"}, "items": []}


class Server(http.server.ThreadingHTTPServer):
    """Answers everything alike.

    Attributes:
        ahead: Of its clock.
        body: Of its answers.
        token: That it takes.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ahead = timedelta()
        self.body: Any = EMPTY
        self.token = "t"
        self.watched = threading.Semaphore(0)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        is_watch = "watch=true" in self.path
        raw = b"" if is_watch else json.dumps(self.server.body).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_known = self.headers.get("Authorization", "").lower() == f"bearer {self.server.token}"
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        if is_watch:
            self.server.watched.release()

    def do_POST(self) -> None:
        self.do_GET()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(utc_now() + self.server.ahead, usegmt=True)

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join(DEADLINE_S)
    made.server_close()


@pytest.fixture
def api(server: Server, tmp_path: Path) -> Iterator[Api]:
    config = {
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "users": [{"name": "c", "user": {"tokenFile": str(tmp_path / "token")}}],
        "current-context": "c",
    }
    (tmp_path / "token").write_text(server.token)
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    made = Api(Settings(db_path=tmp_path, kubeconfig=path))
    yield made
    made.close()


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(hours=-2), timedelta()])
def test_the_time_is_that_of_the_server(server: Server, api: Api, ahead: timedelta) -> None:
    server.ahead = ahead
    api.list(api.pods, KubePod, {})
    assert abs(api.now() - utc_now() - ahead) < timedelta(seconds=DEADLINE_S)


def test_a_token_that_has_run_out_is_read_again(server: Server, api: Api, tmp_path: Path) -> None:
    assert api.list(api.pods, KubePod, {}) == ([], "1")
    server.token = "another"
    with pytest.raises(Answered, match="401"):
        api.list(api.pods, KubePod, {})
    (tmp_path / "token").write_text(server.token)
    assert api.list(api.pods, KubePod, {}) == ([], "1")


def test_an_answer_that_is_no_job_does_not_mean_that_there_is_none(
    server: Server, api: Api
) -> None:
    server.body = {"metadata": 1}
    with pytest.raises(Unanswered, match="no KubeJob"):
        api.post(api.jobs, {}, KubeJob)


def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause(
    server: Server, api: Api, tmp_path: Path
) -> None:
    rests: list[float] = []

    class Stop(threading.Event):
        """Notes how long is to be waited, and does not."""

        def wait(self, timeout: float | None = None) -> bool:
            rests.append(timeout or 0.0)
            return self.is_set()

    stop, cache = Stop(), Cache()
    watch = Watch(api, "a=b", cache, Guard(cache, Rescue(tmp_path), Tickets()))
    thread = threading.Thread(target=watch.run, args=(lambda *_: None, stop))
    thread.start()
    for _ in range(6):
        assert server.watched.acquire(timeout=DEADLINE_S)
    stop.set()
    watch.interrupt()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert max(rests) > 0.0
    assert len(rests) >= 2
