"""The code that docs/callbacks.rst gives to receivers does what the page says."""

from __future__ import annotations

import base64
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pman.services.signing import open_signer

PAGE = Path(__file__).parents[2] / "docs" / "callbacks.rst"
BODY = b'{"type": "job.ended"}'
NOW = 1_795_423_948


@pytest.fixture(scope="module")
def is_genuine() -> Any:
    """The function of the page, found by the name of its block."""
    text = PAGE.read_text(encoding="utf-8")
    _, _, rest = text.partition("   :name: verify\n\n")
    block = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(block), names)
    return names["is_genuine"]


def make_secret(byte: int) -> str:
    return "whsec_" + base64.b64encode(bytes([byte]) * 32).decode()


@pytest.fixture
def headers(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "secrets"
    path.write_text(f"{make_secret(1)}\n{make_secret(2)}\n")
    path.chmod(0o600)
    return open_signer(path, tmp_path).headers("msg_1", NOW, BODY)


@pytest.mark.parametrize("byte", [1, 2])
def test_each_secret_will_do(is_genuine: Any, headers: dict[str, str], byte: int) -> None:
    assert is_genuine(headers, BODY, make_secret(byte), now=lambda: NOW + 2)


def test_what_is_not_genuine(is_genuine: Any, headers: dict[str, str]) -> None:
    secret = make_secret(1)
    assert not is_genuine(headers, BODY, make_secret(3), now=lambda: NOW)
    assert not is_genuine(headers, BODY + b" ", secret, now=lambda: NOW)
    assert not is_genuine({**headers, "webhook-id": "msg_2"}, BODY, secret, now=lambda: NOW)
    late = {**headers, "webhook-timestamp": str(NOW + 1)}
    assert not is_genuine(late, BODY, secret, now=lambda: NOW)
    assert not is_genuine(headers, BODY, secret, now=lambda: NOW + 3600)
