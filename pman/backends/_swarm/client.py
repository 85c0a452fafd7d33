"""`EngineClient`: requests to one Docker Engine, by the Docker SDK's sessions.

Nothing above knows an SDK's exception: what fails is raised as `problems` translates it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pman.backends._swarm.problems import (
    Missing,
    Refused,
    answer_problem,
    connection_problem,
    socket_path,
)
from pman.errors import BackendUnavailable, shown

#: Longest wait for a connection, and for the next bytes of an answer, seconds.
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0

#: Longest wait for the answer to "are you there", seconds.
PING_TIMEOUT_S = 5.0

#: The same for a small question while a client waits for us: it is to hear of a frozen engine.
ASK_TIMEOUT_S = 10.0

#: Where the engine listens unless DOCKER_HOST says otherwise.
DEFAULT_HOST = "unix:///var/run/docker.sock"

#: Oldest API that has all we use (generic resources). Source: Docker, "Engine API version history".
OLDEST_API = (1, 32)

#: Idle sessions that are kept; each holds a connection.
MAX_IDLE = 8

#: Size of the pieces that streams are read in, bytes.
CHUNK_BYTES = 1 << 16

Params = Mapping[str, str | int]


class Stream:
    """An answer that is read bit by bit. One thread reads; any may `interrupt`."""

    def __init__(self, response: Any, host: str) -> None:
        self._response = response
        self._host = host

    def chunks(self) -> Iterator[bytes]:
        """Yield bytes as they arrive.

        Raises:
            BackendUnavailable: The answer broke off.
        """
        try:
            yield from self._response.raw.stream(CHUNK_BYTES)
        except _foreign() as exc:
            raise connection_problem(exc, self._host) from exc

    def interrupt(self) -> None:
        """End the answer for whoever reads it; from any thread."""
        connection = getattr(self._response.raw, "connection", None)
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):  # gone already: nobody reads it any more
                sock.shutdown(2)


class EngineClient:
    """Requests to one Docker Engine; from any thread, any number at once.

    Sessions of `requests` are not promised to be thread-safe: each serves one request at a time.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._api_version = ""
        self.host = environ.get("DOCKER_HOST") or DEFAULT_HOST

    def connect(self) -> dict[str, Any]:
        """Make sure that the engine answers, and manages a swarm.

        Returns:
            The engine's `/info`.
        Raises:
            BackendUnavailable: It doesn't; says what to do.
        """
        try:
            if self._api_version:
                self.ping()  # a frozen engine is noticed sooner than by what follows
            else:
                self._api_version = self._negotiate()
            info: dict[str, Any] = self.get("/info", timeout_s=ASK_TIMEOUT_S)
        except BackendUnavailable:
            self.close()  # what comes back may be another engine
            raise
        except Refused as exc:
            raise BackendUnavailable(
                f"docker engine at {self.host} refuses to say how it is: {exc.words}; if there is a"
                " proxy or an authorization plugin before it, let pman through"
            ) from exc
        _check_swarm(info.get("Swarm") or {})
        return info

    def ping(self) -> str:
        """Return the engine's idea of the time: an HTTP date.

        Raises:
            BackendUnavailable: No answer within `PING_TIMEOUT_S`.
        """
        with self._session() as session:
            response = self._send(session, "GET", "/_ping", timeout_s=PING_TIMEOUT_S)
            return str(response.headers.get("Date", ""))

    def get(
        self, path: str, params: Params | None = None, timeout_s: float = READ_TIMEOUT_S
    ) -> Any:
        """Return the JSON answer to GET; see `request`."""
        return self.request("GET", path, params, timeout_s=timeout_s)

    def post(
        self,
        path: str,
        body: Any = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """Return the JSON answer to POST; see `request`."""
        return self.request("POST", path, params, body, headers, timeout_s)

    def delete(self, path: str, params: Params | None = None) -> None:
        """Delete an object; one that is not there is no error."""
        with contextlib.suppress(Missing):
            self.request("DELETE", path, params)

    def request(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """Send a request; return the JSON answer, None when it is empty.

        Args:
            path: Without the version, from `url_path`.
            timeout_s: Longest silence of the engine.
        Raises:
            Missing: There is no such object (404).
            Refused: Another answer from 400 to 499.
            BackendUnavailable: Not connected, not reached, or nothing was sent.
            Unanswered: No whole answer, or one from 500 on.
        """
        with self._session() as session:
            response = self._send(session, method, path, params, body, headers, timeout_s)
            return msgspec.json.decode(response.content) if response.content else None

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = READ_TIMEOUT_S,
        own: Any = None,
    ) -> Iterator[Stream]:
        """Send a request; read its answer bit by bit. Errors as of `request`.

        Args:
            timeout_s: Longest silence, None for any.
            own: Session to use, from `connected_session`; None for any.
        """
        with contextlib.nullcontext(own) if own is not None else self._session() as session:
            response = self._send(
                session, method, path, params, headers=headers, timeout_s=timeout_s, stream=True
            )
            try:
                yield Stream(response, self.host)
            finally:
                response.close()

    def registry_headers(self, image: str) -> dict[str, str]:
        """Return the headers that let the engine pull a private image, {} when none are known."""
        import docker.auth

        try:
            registry, _ = docker.auth.resolve_repository_name(image)
        except docker.errors.DockerException:
            return {}  # not a name; the engine will say so
        with self._session() as session:
            header = docker.auth.get_config_header(session, registry)
        return {"X-Registry-Auth": header.decode("ascii")} if header else {}

    def connected_session(self) -> Any:
        """Return a session that has a connection, and nobody else uses; to be closed.

        Raises:
            BackendUnavailable: The engine does not answer.
        """
        session = self._new_session(self._api_version or ".".join(map(str, OLDEST_API)))
        _share_connection(session)
        try:
            self._send(session, "GET", "/_ping", timeout_s=PING_TIMEOUT_S)
        except BackendUnavailable:
            session.close()
            raise
        return session

    def close(self) -> None:
        """Close connections, those in use as soon as they are not; twice is safe."""
        with self._lock:
            self._api_version = ""
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    # --- sessions ---------------------------------------------------------------------------

    def _negotiate(self) -> str:
        """Return the API version to speak.

        Source: Docker, "Engine API", "Versioning"; `/_ping` says it without a version.
        """
        session = self._new_session(".".join(map(str, OLDEST_API)))
        try:
            response = self._send(session, "GET", "/_ping", timeout_s=PING_TIMEOUT_S)
        finally:
            session.close()
        offered = str(response.headers.get("Api-Version", ""))
        try:
            is_old = tuple(map(int, offered.split("."))) < OLDEST_API
        except ValueError as exc:
            raise BackendUnavailable(
                f"what answers at {self.host} is no docker engine; look at DOCKER_HOST"
            ) from exc
        if is_old:
            raise BackendUnavailable(
                f"docker engine at {self.host} speaks API {offered}, expected 1.32 or later;"
                " update the engine to 17.09 or later"
            )
        return self._environ.get("DOCKER_API_VERSION") or offered

    @contextlib.contextmanager
    def _session(self) -> Iterator[Any]:
        version = self._api_version
        if not version:
            raise BackendUnavailable("not connected to a docker engine")
        with self._lock:
            session = self._idle.pop() if self._idle else None
        session = session or self._new_session(version)
        try:
            yield session
        finally:
            with self._lock:
                is_kept = self._api_version == version and len(self._idle) < MAX_IDLE
                if is_kept:
                    self._idle.append(session)
            if not is_kept:
                session.close()

    def _new_session(self, version: str) -> Any:
        try:
            import docker
        except ImportError as exc:
            raise BackendUnavailable(
                "the docker SDK is not installed; run: pip install 'pman[swarm]'"
            ) from exc
        try:
            kwargs = docker.utils.kwargs_from_env(dict(self._environ))
            session = docker.APIClient(version=version, timeout=READ_TIMEOUT_S, **kwargs)
        except docker.errors.DockerException as exc:
            raise BackendUnavailable(
                f"docker engine can't be addressed: {exc}; look at DOCKER_HOST, DOCKER_TLS_VERIFY"
                " and DOCKER_CERT_PATH"
            ) from exc
        if socket_path(self.host):
            session.trust_env = False  # proxies and .netrc mean nothing to a unix socket
        return session

    def _send(
        self,
        session: Any,
        method: str,
        path: str,
        params: Params | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = READ_TIMEOUT_S,
        stream: bool = False,
    ) -> Any:
        version = "" if path == "/_ping" else f"/v{session.api_version}"
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            response = session.request(
                method,
                f"{session.base_url}{version}{path}",
                params=params,
                data=None if body is None else msgspec.json.encode(body),
                headers=sent,
                timeout=(CONNECT_TIMEOUT_S, timeout_s),
                stream=stream,
            )
            if response.status_code < 400:
                return response
            words = response.text
        except _foreign() as exc:
            raise connection_problem(exc, self.host) from exc
        raise answer_problem(response.status_code, _message(words))


def _share_connection(session: Any) -> None:
    """Have a session use one connection for all URLs; the SDK has one for each, on a unix socket.

    Source: docker, transport/unixconn.py, UnixHTTPAdapter.get_connection.
    """
    adapter = session.get_adapter(session.base_url)
    connection_to = adapter.get_connection
    adapter.get_connection = lambda _url, proxies=None: connection_to(session.base_url, proxies)


def url_path(template: str, *names: str) -> str:
    """Return `template` with each `{}` replaced by a name, quoted."""
    return template.format(*(urllib.parse.quote(name, safe="") for name in names))


def filters(**values: list[str]) -> dict[str, str]:
    """Return the query parameter that selects objects: {filter: [values]}."""
    return {"filters": msgspec.json.encode(values).decode()}


def _foreign() -> tuple[type[Exception], ...]:
    """Return what a session raises; imported with the SDK only."""
    import requests.exceptions
    import urllib3.exceptions

    return (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)


def _message(words: str) -> str:
    try:
        message = msgspec.json.decode(words)["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return words
    return str(message)


def _check_swarm(swarm: Mapping[str, Any]) -> None:
    """Raise unless the engine manages a swarm.

    Source: Docker, "Engine API", SystemInfo.Swarm.LocalNodeState.
    """
    state = swarm.get("LocalNodeState", "inactive")
    if state == "active" and swarm.get("ControlAvailable"):
        return
    advice = {
        "active": "the engine is a worker of its swarm; connect pman to a manager node",
        "inactive": "the engine is not in a swarm; run: docker swarm init",
        "locked": "the swarm is locked; run: docker swarm unlock",
        "pending": "the engine is joining a swarm; wait, or look at: docker info",
    }
    trouble = f"the engine's swarm is in state {shown(state)}; look at: docker info"
    raise BackendUnavailable(advice.get(state, trouble))
