"""`Signer`: signs callbacks, so that who gets one can tell that it is ours.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from pman import log
from pman.errors import StartError
from pman.jobdb.private import write_private

#: In front of a secret, so that people and scanners know what it is.
PREFIX = "whsec_"

#: Least and greatest length of a secret, and the length of those that we make, bytes.
MIN_SECRET, MAX_SECRET, NEW_SECRET = 24, 64, 32

#: Longest file with secrets, bytes; a path given by mistake is not read into memory.
MAX_FILE_BYTES = 64 * 1024


class Signer:
    """Signs with one secret, or with several while an old one is being replaced."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys

    def headers(self, letter_id: str, at_s: int, body: bytes) -> dict[str, str]:
        """Return the headers that say who sent it, when, and that nobody has changed it.

        Args:
            at_s: When it is sent, UTC epoch seconds; those who check may refuse old ones.
        """
        signed = b"%s.%d.%s" % (letter_id.encode(), at_s, body)
        return {
            "webhook-id": letter_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(f"v1,{_signature(key, signed)}" for key in self._keys),
        }


def open_signer(path: Path | None, db_path: Path) -> Signer:
    """Return the signer of this daemon.

    Args:
        path: File with a secret on each line; None: the one in the job DB, made if it is not there.
    Raises:
        StartError: There is no such file, it holds something else, or others may read it.
    """
    if path is None:
        path = db_path / "callback.secret"
        if not path.exists():
            _make(path)
    texts = _read(path)
    log.mask(texts)
    return Signer([_key(text, path) for text in texts])


def _signature(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


def _make(path: Path) -> None:
    secret = PREFIX + base64.b64encode(secrets.token_bytes(NEW_SECRET)).decode("ascii")
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.unlink(missing_ok=True)
        write_private(unfinished, f"{secret}\n".encode("ascii"))
        unfinished.replace(path)
    except OSError as exc:
        raise StartError(f"callback secret {str(path)!r} cannot be made: {exc.strerror}") from exc


def _read(path: Path) -> list[str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise StartError(f"callback secret {str(path)!r} is not a regular file")
            raw = file.read(MAX_FILE_BYTES)
    except OSError as exc:
        raise StartError(f"callback secret {str(path)!r} cannot be read: {exc.strerror}") from exc
    if status.st_mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise StartError(
            f"callback secret {str(path)!r} has mode {stat.S_IMODE(status.st_mode):04o}, expected"
            " 0600 or 0640: others may know it; make a new one that nobody else can read"
        )
    texts = raw.decode("latin-1").split()
    if not texts:
        raise StartError(f"callback secret {str(path)!r} holds none, expected {PREFIX}...")
    return texts


def _key(text: str, path: Path) -> bytes:
    try:
        if not text.startswith(PREFIX):
            raise ValueError(text)
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        # nothing of it is shown, nor the error that quotes it
        raise StartError(
            f"callback secret {str(path)!r} does not hold {PREFIX} and base64 on each line"
        ) from None
    if not MIN_SECRET <= len(key) <= MAX_SECRET:
        raise StartError(
            f"callback secret {str(path)!r} holds one of {len(key)} bytes, expected {MIN_SECRET} to"
            f" {MAX_SECRET}"
        )
    return key
