"""Names of engine objects, made from job ids. Pure."""

from __future__ import annotations

import hashlib
import re

#: Longest name of a service, of a Job's pods' label, and of a DNS label, characters.
MAX_NAME = 63

#: Characters that make a name one's own.
SUFFIX_LENGTH = 8

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


def own_name(base: str, job_name: str, max_length: int = MAX_NAME) -> str:
    """Return a legal name with a suffix that no other job has, and nobody can guess.

    Args:
        base: Legal itself.
        job_name: Of the job or of one try of it; holds a random uuid.
    """
    suffix = hashlib.sha256(job_name.encode()).hexdigest()[:SUFFIX_LENGTH]
    return f"{base[: max_length - SUFFIX_LENGTH - 1].rstrip('-_')}-{suffix}"
