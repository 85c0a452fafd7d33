"""Names of engine objects, made from job ids. Pure."""

from __future__ import annotations

import re

#: Longest name of a service, of a Job's pods' label, and of a DNS label, characters.
MAX_NAME = 63

_ILLEGAL = re.compile(r"[^a-z0-9-]+")


def legal_name(text: str, fallback: str, max_length: int = MAX_NAME) -> str:
    """Return `text` as a DNS label: small letters, digits and `-`, a letter or digit at both ends.

    Args:
        text: A job id, or a name that a client has sent.
        fallback: Taken when nothing legal is left; legal itself.
    Source: RFC 1123, section 2.1; Docker and Kubernetes take such names for every object.
    """
    name = _ILLEGAL.sub("-", text.lower()).strip("-")[:max_length].strip("-")
    return name or fallback
