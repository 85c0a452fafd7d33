"""`Api`: requests to the API server, with a deadline on each; the only user of the SDK's client.

Of the SDK it takes how to find and reach a server and how to prove who we are, which is where the
many kinds of clusters differ. Objects go through as JSON: the SDK's classes for them change with
its version, and building them costs more than the request. Import this module in `connect` only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import SERVICE_TOKEN_FILENAME

from pman.backends._engine.port import Unanswered
from pman.backends._openshift.failures import Answered, answered
from pman.backends._openshift.objects import ObjectList, Status
from pman.backends._openshift.pods import utc_now
from pman.errors import BackendUnavailable
from pman.settings import Settings
from pman.structs import prepare

_log = logging.getLogger(__name__)

#: How long connecting may take, seconds.
CONNECT_TIMEOUT_S = 5.0
#: How long the server may be silent while it answers, seconds.
READ_TIMEOUT_S = 30.0
#: Connections kept for later requests; more are made and dropped when more are needed.
POOL_SIZE = 32
#: Objects in one page of a list.
PAGE_SIZE = 500
#: Longest text of a server that can't say what is wrong as JSON, characters.
MAX_WORDS = 500

#: Namespace of the pod that we run in. Source: Kubernetes, "Accessing the API from a Pod"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
#: 2.2's.
DEFAULT_NAMESPACE = "myproject"

#: Clocks that differ by no more are taken to be alike: `Date` has whole seconds, and travels.
CLOCK_TRIFLE = timedelta(seconds=5)

T = TypeVar("T")

#: Nothing has gone out when one of these is raised.
_NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


class Api:
    """One API server and one namespace of it; may be used by many threads.

    Attributes:
        namespace: Of the jobs.
        jobs, pods, claims, tickets, events: Paths of the lists of these, in the namespace.
        client: The SDK's client, for its dynamic client.
    """

    def __init__(self, settings: Settings) -> None:
        """Find the server; sends nothing.

        Raises:
            BackendUnavailable: No kubeconfig and no service account, or they can't be read.
        """
        self._settings = settings
        self.namespace = settings.project or _own_namespace()
        self.client = client.ApiClient(_configuration(settings))
        self.url = self.client.configuration.host
        if self.url.startswith("https:") and not self.client.configuration.verify_ssl:
            _log.warning(
                "the certificate of %s is not looked at: insecure-skip-tls-verify", self.url
            )
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # said once
        in_namespace = f"namespaces/{quote(self.namespace, safe='')}"
        self.jobs = f"/apis/batch/v1/{in_namespace}/jobs"
        self.pods = f"/api/v1/{in_namespace}/pods"
        self.claims = f"/api/v1/{in_namespace}/persistentvolumeclaims"
        self.tickets = f"/api/v1/{in_namespace}/configmaps"
        self.events = f"/api/v1/{in_namespace}/events"
        self._ahead = timedelta()  # the server's clock, of ours

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        """Send a request and return the body of the answer.

        Raises:
            Answered: The server has refused.
            Unanswered: It may have been carried out.
            BackendUnavailable: It was not carried out.
        """
        response = self._send(method, path, query, body, content_type, READ_TIMEOUT_S)
        try:
            return bytes(response.data)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise self._broken(exc, method) from exc
        finally:
            response.release_conn()

    def get(self, path: str, kind: type[T], query: Mapping[str, Any] | None = None) -> T:
        """Return an object.

        Raises:
            BackendUnavailable: As for `request`.
        """
        return _decoded(self.request("GET", path, query), kind)

    def post(self, path: str, body: Any, kind: type[T]) -> T:
        """Make an object and return it.

        Raises:
            BackendUnavailable: As for `request`.
        """
        raw = self.request("POST", path, body=body)
        try:
            return _decoded(raw, kind)
        except BackendUnavailable as exc:
            raise Unanswered(exc.message) from exc  # it has been made all the same

    def list(self, path: str, kind: type[T], query: Mapping[str, Any]) -> tuple[list[T], str]:
        """Return all objects that `query` selects, page by page, and their version for a watch.

        Raises:
            BackendUnavailable: As for `request`.
        """
        items: list[T] = []
        paged: dict[str, Any] = {**query, "limit": PAGE_SIZE}
        while True:
            try:
                page = self.get(path, ObjectList, paged)
            except Answered as exc:
                if exc.status != 410 or "limit" not in paged:
                    raise
                # The pages have become too old while they were read: all at once, then.
                items, paged = [], dict(query)
                continue
            items += [_decoded(raw, kind) for raw in page.items]
            if not page.metadata.continue_:
                return items, page.metadata.resource_version
            paged["continue"] = page.metadata.continue_

    def stream(self, path: str, query: Mapping[str, Any], read_timeout_s: float) -> Stream:
        """Begin an answer that lasts: a watch or a log.

        Args:
            read_timeout_s: How long the server may be silent, seconds.
        Raises:
            BackendUnavailable: As for `request`.
        """
        response = self._send("GET", path, query, None, "application/json", read_timeout_s)
        return Stream(response, self)

    def now(self) -> datetime:
        """Return the time of the server: its objects are stamped with that, and ours may differ."""
        return utc_now() + self._ahead

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self.client.rest_client.pool_manager.clear()
        self.client.close()

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        content_type: str,
        read_timeout_s: float,
    ) -> Any:
        """Send a request; with the credentials that are there now, should others have run out."""
        try:
            return self._send_once(method, path, query, body, content_type, read_timeout_s)
        except Answered as exc:
            if exc.status != 401 or not self._renew():
                raise
        return self._send_once(method, path, query, body, content_type, read_timeout_s)

    def _renew(self) -> bool:
        """Read the credentials again; return whether they are others.

        The SDK does so itself for a service account and for a command that tells when they run
        out, but not for a file with a token.
        """
        known, found = self.client.configuration, _configuration(self._settings)
        if found.api_key == known.api_key:
            return False
        known.refresh_api_key_hook = found.refresh_api_key_hook
        known.api_key = found.api_key
        return True

    def _send_once(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        content_type: str,
        read_timeout_s: float,
    ) -> Any:
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        try:
            response = self.client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
            )
        except ApiException as exc:
            if not exc.status:  # the SDK's way to say that TLS failed
                raise self._broken(exc, "GET") from exc
            raise self._answered(exc) from exc
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise self._broken(exc, method) from exc
        except ConfigException as exc:  # a command of the kubeconfig that brings a token
            raise BackendUnavailable(f"no credentials for {self.url}: {exc}") from exc
        self._ahead = _ahead(response.headers.get("Date", ""))
        return response

    def _answered(self, exc: ApiException) -> Answered:
        raw = exc.body.encode() if isinstance(exc.body, str) else exc.body or b""
        try:
            said = msgspec.json.decode(raw, type=Status)
        except msgspec.DecodeError:
            said = Status(message=raw.decode("utf-8", "replace")[:MAX_WORDS] or str(exc.reason))
        return answered(exc.status, said.message, said.reason, namespace=self.namespace)

    def _broken(self, exc: Exception, method: str) -> BackendUnavailable:
        reason = str(getattr(exc, "reason", None) or exc) or type(exc).__name__
        if method == "GET":
            return BackendUnavailable(f"the API server at {self.url} does not answer: {reason}")
        if isinstance(exc, _NOT_SENT):
            return BackendUnavailable(f"the API server at {self.url} can't be reached: {reason}")
        return Unanswered(f"the API server at {self.url} has not answered: {reason}")

    def broken(self, exc: Exception) -> BackendUnavailable:
        """Put what ended a stream into words."""
        return self._broken(exc, "GET")


class Stream:
    """An answer that lasts."""

    def __init__(self, response: Any, api: Api) -> None:
        self._response = response
        self._api = api

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield bytes as they come, until the server ends the answer.

        Raises:
            BackendUnavailable: It broke off.
        """
        try:
            # `read1` returns what there is; `stream` and `read` wait for a full buffer.
            while raw := self._response.read1(1 << 16):
                yield raw
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
            raise self._api.broken(exc) from exc

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the answer, without their ends.

        Raises:
            BackendUnavailable: It broke off.
        """
        rest = b""
        for raw in self.chunks():
            *lines, rest = (rest + raw).split(b"\n")
            yield from (line for line in lines if line)

    def interrupt(self) -> None:
        """End the answer now; from another thread."""
        try:
            self._response.shutdown()
        except (OSError, ValueError, RuntimeError):
            return  # it has ended meanwhile

    def close(self) -> None:
        """Let go of the connection; an answer that was not read to its end takes it along."""
        self._response.close()
        self._response.release_conn()


def _ahead(date: str) -> timedelta:
    """Return how far the clock that has written a `Date` is ahead of ours; 0 for a trifle."""
    try:
        ahead = parsedate_to_datetime(date) - utc_now()
    except (TypeError, ValueError):  # none, or no zone
        return timedelta()
    return ahead if abs(ahead) > CLOCK_TRIFLE else timedelta()


def _decoded(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    prepare(kind)
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as exc:
        raise BackendUnavailable(
            f"the API server answers what is no {kind.__name__}: {exc}"
        ) from exc


def _configuration(settings: Settings) -> Any:
    """Return how to reach the server: --kubeconfig, the default one, or the pod's own account."""
    found = client.Configuration()
    found.connection_pool_maxsize = POOL_SIZE
    found.retries = False  # a POST must not go out twice, and redirects lead nowhere good
    try:
        if settings.kubeconfig is not None:
            config.load_kube_config(str(settings.kubeconfig), client_configuration=found)
        elif _has_default_kubeconfig() or not Path(SERVICE_TOKEN_FILENAME).exists():
            config.load_kube_config(client_configuration=found)
        else:
            config.load_incluster_config(client_configuration=found)
    except (ConfigException, OSError, ValueError) as exc:
        where = settings.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise BackendUnavailable(
            f"{str(where)!r} leads to no API server: {exc}; name a file with --kubeconfig or"
            " KUBECONFIG, or run in a pod with a service account"
        ) from exc
    return found


def _has_default_kubeconfig() -> bool:
    return "KUBECONFIG" in os.environ or Path("~/.kube/config").expanduser().exists()


def _own_namespace() -> str:
    try:
        return NAMESPACE_FILE.read_text(encoding="ascii").strip() or DEFAULT_NAMESPACE
    except (OSError, UnicodeDecodeError):
        return DEFAULT_NAMESPACE
