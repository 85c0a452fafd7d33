"""Certificates for receivers in tests, made with the `openssl` program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

#: An authority that may sign nothing but what is below it.
CA = "basicConstraints=critical,CA:TRUE"


class Authority:
    """A certificate authority of its own.

    Attributes:
        path: Its certificate, as `SSL_CERT_FILE` takes it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Make one below a folder."""
        self._folder = folder
        self.path = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _request(self._key, self.path, name, CA, "keyUsage=critical,keyCertSign")

    def certify(self, host: str) -> Path:
        """Return a file with a certificate for `IP:<address>` or `DNS:<name>`, and its key."""
        name = host.replace(":", "-")
        key, certificate = self._folder / f"{name}.key", self._folder / f"{name}.crt"
        signed_by = ("-CA", str(self.path), "-CAkey", str(self._key))
        extensions = (f"subjectAltName={host}", "basicConstraints=critical,CA:FALSE")
        _request(key, certificate, name, *extensions, options=signed_by)
        both = self._folder / f"{self.path.stem}-{name}.pem"
        both.write_text(certificate.read_text() + key.read_text())
        return both


def _request(
    key: Path, certificate: Path, name: str, *extensions: str, options: tuple[str, ...] = ()
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={name}", *options]
    command += ["-keyout", str(key), "-out", str(certificate)]
    for extension in extensions:
        command += ["-addext", extension]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
