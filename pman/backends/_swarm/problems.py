"""What went wrong on the way to a Docker Engine, said so that a reader knows what to do.

Translates foreign exceptions; knows their shapes, imports no SDK.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from pman.backends._engine.port import Unanswered
from pman.errors import BackendError, BackendUnavailable, SubmitFailed, shown

#: Longest piece of an engine's own words in a message, characters.
WORDS_LENGTH = 2000

#: Raised only while a connection is made: the request was not sent.
_BEFORE_SENDING = (
    FileNotFoundError,
    PermissionError,
    ConnectionRefusedError,
    socket.gaierror,
    ssl.SSLError,
)
_CONNECT_ERRORS = {"ConnectTimeout", "NewConnectionError", "ConnectTimeoutError", "InvalidURL"}
_SILENCE_ERRORS = {"ReadTimeout", "ReadTimeoutError"}

#: Engines that answer, and manage no swarm now. Source: moby, daemon/cluster/errors.go.
_SWARM_STATES = (
    ("encrypted", "the swarm is locked; run: docker swarm unlock"),
    ("not part of a swarm", "the engine is not in a swarm; run: docker swarm init"),
    ("not a swarm manager", "the engine manages no swarm, or not yet; run: docker swarm init"),
    ("does not have a leader", "the swarm has no leader; are enough of its managers up?"),
)


#: What a swarm will not take however often it is asked, and calls its own failure. Source: grpc-go,
#: rpc_util.go; moby/swarmkit, manager/state/raft (a service has to fit into 1.5 MB).
_TOO_LARGE = ("message larger than max", "raft message is too large")


class Refused(SubmitFailed):
    """The engine answered with an error.

    Attributes:
        status: HTTP status of the answer, 400 to 499.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"the docker engine refused: {words}")
        self.status = status
        self.words = words


class Missing(Refused):
    """There is no object of that name."""


class Failed(Unanswered):
    """The engine answered that it failed: it may have carried the request out, or not."""


def answer_problem(status: int, words: str) -> BackendError:
    """Return the error for an answer of 400 or above.

    Args:
        status: HTTP status.
        words: The engine's message.
    """
    words = plain(words)
    for part, advice in _SWARM_STATES:
        if part in words:
            return BackendUnavailable(advice)
    if any(part in words for part in _TOO_LARGE):
        return Refused(413, words)
    if status < 500:
        return Missing(status, words) if status == 404 else Refused(status, words)
    return Failed(f"the docker engine failed: {words}")


def plain(words: str) -> str:
    """Return an engine's message without its wrapping, on one line, not too long."""
    _, wrapped, rest = words.partition(" desc = ")
    return " ".join((rest if wrapped else words).split())[:WORDS_LENGTH]


def connection_problem(exc: Exception, host: str) -> BackendUnavailable:
    """Return the error for a request that got no whole answer.

    Args:
        exc: What `requests` or `urllib3` raised.
        host: URL of the engine.
    """
    chain = list(_chain(exc))
    names = {type(each).__name__ for each in chain}
    for each in chain:
        if isinstance(each, _BEFORE_SENDING):
            return BackendUnavailable(_advice(each, host))
    if names & _CONNECT_ERRORS:
        return BackendUnavailable(f"docker engine at {host} can't be reached; is it running?")
    if names & _SILENCE_ERRORS:
        return Unanswered(f"docker engine at {host} does not answer; is it stopped or overloaded?")
    return Unanswered(f"the connection to the docker engine at {host} broke: {shown(str(exc))}")


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it was made of, each once.

    `requests` wraps `urllib3`, which wraps what the socket raised, some of them in `args` only.
    """
    waiting: list[object] = [exc]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]


def _advice(exc: OSError, host: str) -> str:
    path = socket_path(host)
    if isinstance(exc, FileNotFoundError) and path:
        return (
            f"docker engine has no socket at {path}; is the engine running? in a container, mount"
            f" it: -v {path}:{path}; elsewhere, set DOCKER_HOST"
        )
    if isinstance(exc, PermissionError) and path:
        return (
            f"no permission for docker engine's socket {path}; add the user that runs pman to the"
            f" socket's group{_group(path)}"
        )
    if isinstance(exc, ConnectionRefusedError):
        return f"docker engine at {host} refuses connections; is the engine running?"
    if isinstance(exc, ssl.SSLError):
        return (
            f"docker engine at {host}: TLS failed: {shown(str(exc))}; look at DOCKER_TLS_VERIFY"
            " and DOCKER_CERT_PATH"
        )
    return f"docker engine at {host} can't be reached: {exc.strerror or exc}; look at DOCKER_HOST"


def _group(path: str) -> str:
    try:
        return f", gid {Path(path).stat().st_gid}"
    except OSError:
        return ""


def socket_path(host: str) -> str:
    """Return the path of the engine's unix socket, "" when it listens elsewhere."""
    scheme, separator, path = host.partition("://")
    if separator and scheme not in ("unix", "http+unix"):
        return ""
    return path if separator else host
