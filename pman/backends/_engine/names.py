"""Names of engine objects, made from job ids. Pure."""

from __future__ import annotations

import hashlib
import re

from pman.job.record import Job, job_name_of

#: Longest name of a service, of a Job's pods' label, and of a DNS label, characters.
MAX_NAME = 63

#: Characters that make a name one's own.
SUFFIX_LENGTH = 8

#: What follows the uuid in the name of a later try of a job: see `Job.run_name`.
_TRY = re.compile(r"_r([0-9]+)\Z")

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


def run_name(job: Job) -> str:
    """Return the name by which an engine and the output know a job, its newest try that is.

    Args:
        job: As the job DB has it, or as a backend is given one try of it: under this very name.
    """
    return job.run_name if job_name_of(job.name) == job.name else job.name


def unique_name(job_name: str) -> str:
    """Return what tells a job, and each try of it, from all others, as a legal name: `<uuid>`.

    Of a later try it is `<uuid>-r<N>`.
    """
    return job_name.partition("_")[2].replace("_", "-").lower()


def unique_part(job_name: str, length: int) -> str:
    """Return letters and digits that most likely no other job, and no other try of it, has.

    Args:
        length: How many, at most 8.
    """
    later = _TRY.search(job_name)
    uuid = job_name.removesuffix(later[0]) if later is not None else job_name
    digits = uuid.rpartition("_")[2].lower()
    if later is None:
        return digits[:length]
    # Other digits of the same uuid: names can't grow, and the former try may still have its own.
    digits = digits.replace("-", "")
    start = (int(later[1]) - 1) * length % max(1, len(digits) - length)
    return digits[start : start + length]
