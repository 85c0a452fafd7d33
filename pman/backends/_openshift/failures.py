"""Errors of the API server in pman's words. Knows no SDK."""

from __future__ import annotations

import re

from pman.errors import BackendUnavailable

#: What RBAC says. Source: k8s.io/apiserver, endpoints/handlers/responsewriters/errors.go
_FORBIDDEN = re.compile(
    r'[Uu]ser "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)"'
)
_NO_NAMESPACE = re.compile(r'namespaces "([^"]*)" not found')


class Answered(BackendUnavailable):
    """The API server has answered with an error.

    Attributes:
        status: HTTP status code.
        words: The server's own message.
        cause: The server's word for the kind of error, such as `AlreadyExists`.
    """

    def __init__(self, message: str, *, status: int, words: str = "", cause: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.words = words
        self.cause = cause


def answered(status: int, words: str, cause: str, *, namespace: str) -> Answered:
    """Put an error of the API server into words that say what to do."""
    message = _advice(status, words, namespace)
    return Answered(message, status=status, words=words, cause=cause)


def _advice(status: int, words: str, namespace: str) -> str:
    said = f"the API server says {status}: {words}"
    if status == 401:
        return f"{said}; log in again ('oc login'), or renew the token of --kubeconfig"
    forbidden = _FORBIDDEN.search(words) if status == 403 else None
    if forbidden is not None:
        command = grant_command(forbidden["user"], namespace)
        return f"{said}; {command!r} grants it"
    missing = _NO_NAMESPACE.search(words) if status == 404 else None
    if missing is not None:
        return (
            f"project {missing[1]!r} does not exist: 'oc new-project {missing[1]}' or"
            f" 'kubectl create namespace {missing[1]}' makes it, --project names another"
        )
    return said


def is_forbidden_verb(failure: Answered) -> bool:
    """Whether RBAC refused, rather than an admission plug-in that looked at the object."""
    return failure.status == 403 and _FORBIDDEN.search(failure.words) is not None


def grant_command(user: str, namespace: str) -> str:
    """Return the command that lets `user` run jobs in a namespace.

    Args:
        user: As the server spells it: `system:serviceaccount:<namespace>:<name>` or a login.
    """
    parts = user.split(":")
    if len(parts) == 4 and parts[:2] == ["system", "serviceaccount"]:
        subject = f"--serviceaccount={parts[2]}:{parts[3]}"
    else:
        subject = f"--user={user}"
    return f"kubectl create rolebinding pman --clusterrole=edit {subject} -n {namespace}"
