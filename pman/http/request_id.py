"""The name of one request, by which its lines in several logs are found together."""

from __future__ import annotations

import re
import uuid

from pman.http.message import Request

#: Header of requests and replies.
HEADER = "X-Request-Id"

_LOWER = HEADER.lower()
_LENGTH = len(HEADER)

#: What is taken from a client: text that can neither end a header nor look like two words.
_ID = re.compile(r"[!-~]{1,128}", re.ASCII)


def request_id(request: Request) -> str:
    """Return the id of a request, always the same: the client's, else one that is made now."""
    if not request.id:
        sent = request.header_values(_LOWER)
        is_good = len(sent) == 1 and _ID.fullmatch(sent[0]) is not None
        request.id = sent[0] if is_good else uuid.uuid4().hex
    return request.id


def has_sent_id(request: Request) -> bool:
    """Return whether the client wants to find the request again."""
    # Asked for each request, hence no list and no call more than it takes.
    for name, _ in request.headers:  # noqa: SIM110  any() takes twice as long
        if len(name) == _LENGTH and name.lower() == _LOWER:
            return True
    return False


def id_header(request: Request) -> tuple[str, str]:
    """Return the header that tells the id of a request."""
    return HEADER, request_id(request)
