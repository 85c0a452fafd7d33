"""`Signer`: the scheme of Standard Webhooks, checked by an implementation of its own; the file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from pman.errors import StartError
from pman.services.signing import open_signer

BODY = b'{"test": 2432232314}'


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104, written out."""
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Check a callback as the specification of Standard Webhooks tells receivers to."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac_sha256(key, signed)).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_example_of_the_specification(tmp_path: Path) -> None:
    # Source: the test vector of the Standard Webhooks libraries.
    path = write(tmp_path / "s", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    headers = open_signer(path, tmp_path).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_secret_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    headers = open_signer(None, tmp_path).headers("id", 5, BODY)
    path = tmp_path / "callback.secret"
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_text().strip()
    assert verify(secret, headers, BODY)
    assert not verify(secret, headers, BODY + b" ")
    assert not verify(secret, {**headers, "webhook-timestamp": "6"}, BODY)
    assert open_signer(None, tmp_path).headers("id", 5, BODY) == headers
    assert [entry.name for entry in tmp_path.iterdir()] == ["callback.secret"]


def test_while_a_secret_is_replaced_both_sign(tmp_path: Path) -> None:
    secrets = ["whsec_" + base64.b64encode(bytes([n]) * 24).decode() for n in (1, 2)]
    path = write(tmp_path / "s", "\n".join(secrets), 0o640)
    headers = open_signer(path, tmp_path).headers("id", 5, BODY)
    assert all(verify(secret, headers, BODY) for secret in secrets)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
def test_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "s", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", mode)
    with pytest.raises(StartError, match=f"mode {mode:04o}, expected 0600"):
        open_signer(path, tmp_path)


@pytest.mark.parametrize(
    "text", ["", "\n", "hidden", "whsec_", "whsec_????", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8I"]
)
def test_what_is_no_secret_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "s", text)
    with pytest.raises(StartError) as caught:
        open_signer(path, tmp_path)
    assert not text.strip() or text.strip() == "whsec_" or text not in str(caught.value)


def test_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        open_signer(tmp_path / "none", tmp_path)
    with pytest.raises(StartError, match=r"not a regular file|cannot be read"):
        open_signer(tmp_path, tmp_path)
