"""`endpoint_of`: settings to endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from pman.config import Settings
from pman.errors import StartError
from pman.services.endpoint import endpoint_of


def settings(**changes: object) -> Settings:
    return Settings(db_path=Path("/db"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "tcp://127.0.0.1:5010"),
        ({"ip": "*", "port": 0}, "tcp://*:0"),
        ({"ip": "eth0"}, "tcp://eth0:5010"),
        ({"ip": "::1"}, "tcp://[::1]:5010"),
        ({"protocol": "ipc"}, "ipc:///db/pman-5010.sock"),
        ({"protocol": "ipc", "ip": "/run/pman"}, "ipc:///run/pman"),
    ],
)
def test_settings_name_an_endpoint(changes: dict[str, object], expected: str) -> None:
    assert endpoint_of(settings(**changes)) == expected


@pytest.mark.parametrize("changes", [{"protocol": "udp"}, {"port": 65536}, {"port": -1}])
def test_what_is_no_endpoint_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(StartError, match="expected"):
        endpoint_of(settings(**changes))
