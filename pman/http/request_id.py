"""The name of one request, by which its lines in several logs are found together."""

from __future__ import annotations

import re
import uuid

from pman.http.message import Request

#: Header of requests and replies.
HEADER = "X-Request-Id"


#: What is taken from a client: text that can neither end a header nor look like two words.
_ID = re.compile(r"[!-~]{1,128}", re.ASCII)


def request_id(request: Request) -> str:
    """Return the id of a request, always the same: the client's, else one that is made now."""
    if not request.id:
        sent = request.header_values(HEADER.lower())
        is_good = len(sent) == 1 and _ID.fullmatch(sent[0]) is not None
        request.id = sent[0] if is_good else uuid.uuid4().hex
    return request.id


def id_header(request: Request) -> tuple[str, str]:
    """Return the header that tells the id of a request."""
    return HEADER, request_id(request)
