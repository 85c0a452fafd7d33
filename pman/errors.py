"""Every exception of pman, grouped by who must react.

`hint` is the HTTP status that the dispatcher answers with; it is advice, not protocol.
"""

from __future__ import annotations

import reprlib

#: Longest text of a client's value in a message, characters.
SHOWN_LENGTH = 120

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = SHOWN_LENGTH


def shown(value: object) -> str:
    """Return `repr(value)`, shortened, for a message."""
    return _repr.repr(value)


class PmanError(Exception):
    """Root of every error that pman raises on purpose.

    Attributes:
        hint: HTTP status code that fits the error.
        field: Name of the request field at fault, or None.
    """

    hint: int = 500

    def __init__(self, message: str, *, field: str | None = None, hint: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        if hint is not None:
            self.hint = hint

    @property
    def kind(self) -> str:
        """Name that a reply's `error.type` carries."""
        return type(self).__name__


# --- the caller must change something -------------------------------------------------------


class RequestError(PmanError):
    """The request cannot be carried out as it is."""

    hint = 400


def wrong(field: str, value: object, expected: str) -> RequestError:
    """Return the error for a field whose value is not what was expected."""
    return RequestError(f"{field} is {shown(value)}, expected {expected}", field=field)


class MalformedRequest(RequestError):
    """The bytes or the JSON are not a request."""


class RequestTooLarge(RequestError):
    """A limit on size was passed: 413 for the body, 431 for the head."""

    hint = 413


class RequestTimeout(RequestError):
    """The rest of a request did not arrive in time."""

    hint = 408


class NotAuthorized(RequestError):
    """No valid token came with the request."""

    hint = 401


class Forbidden(RequestError):
    """The request is understood, and this daemon does not allow it."""

    hint = 403


class UnknownAction(RequestError):
    """No action has that name."""


class UnknownJob(RequestError):
    """No job has that name, or its record nothing at that path."""

    hint = 404


class UnknownPath(RequestError):
    """There is nothing at an address of the REST API."""

    hint = 404


class MethodNotAllowed(RequestError):
    """The HTTP method is not one that pman knows."""

    hint = 405


class JobConflict(RequestError):
    """The job cannot be made beside what is there already."""

    hint = 409


class NotAcceptable(RequestError):
    """The client accepts none of the forms that the answer could have."""

    hint = 406


class UnsupportedMedia(RequestError):
    """The body of the request is in a form that is not read here."""

    hint = 415


class KeyReused(RequestError):
    """An idempotency key came again, with another request than the first."""

    hint = 422


class NotSupported(RequestError):
    """A word of 2.2 that does nothing any more, or a part of HTTP that we do not speak."""

    hint = 501


# --- the place that runs jobs failed --------------------------------------------------------


class BackendError(PmanError):
    """The place that runs jobs failed."""

    hint = 502


class BackendUnavailable(BackendError):
    """Engine, SDK or shepherd cannot be reached; the message says what to do."""

    hint = 503


class SubmitFailed(BackendError):
    """The engine was reached and did not take the job."""


# --- the job DB -----------------------------------------------------------------------------


class SnapshotError(PmanError):
    """The job DB could not be read or written."""

    hint = 503


class InvalidTransition(PmanError):
    """A job was to leave a final state, or to go backwards."""


# --- at start only --------------------------------------------------------------------------


class ConfigError(PmanError):
    """Arguments, environment or configuration file are wrong; exit status 2."""


class StartError(PmanError):
    """The daemon cannot start although its configuration is correct; exit status 1.

    The port is in use, the job DB is held by another daemon, …
    """
