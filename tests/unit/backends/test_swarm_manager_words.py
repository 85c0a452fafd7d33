"""What a manager is told, and what it can't be told."""

from __future__ import annotations

from typing import Any

import pytest

from pman.backends._engine.order import Manager, Order
from pman.backends._swarm.manager import _split_tag, check_manager, manager_of, schedule_words
from pman.errors import RequestError


def order(**fields: Any) -> Order:
    """Return an order that a manager can carry out."""
    values: dict[str, Any] = {
        "job_name": "job-1",
        "jid": "j",
        "cmd": 'echo "a b"; $(x)',
        "image": "img:1",
        "command": [],
        "manager": Manager("man:1", "swarm.py"),
    }
    return Order(**(values | fields))


def test_the_command_line_is_made_of_words() -> None:
    assert schedule_words(order(), "sv", "/a b") == [
        *("swarm.py", "-s", "sv", "-m", "/a b", "-i", "img:1", "-p", "none"),
        *("-c", 'echo "a b"; $(x)'),
    ]
    assert "-m" not in schedule_words(order(), "sv", None)


def test_an_order_that_fits() -> None:
    check_manager(order(labels={"a": "b"}))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("container.manager.image", {"manager": None}),
        ("cpu_limit", {"cpu_millis": 1}),
        ("memory_limit", {"memory_bytes": 1}),
        ("gpu_limit", {"gpus": 1}),
        ("number_of_workers", {"workers": 2}),
        ("env", {"env": {"A": ""}}),
    ],
)
def test_what_a_manager_has_no_option_for_is_refused(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        check_manager(order(**fields))
    assert (refused.value.field, refused.value.hint) == (field, 400)


def test_a_service_tells_which_manager_made_it() -> None:
    labels = {"pman.manager-image": "man:1", "pman.manager-app": "swarm.py"}
    assert manager_of({"Spec": {"Labels": labels}}) == Manager("man:1", "swarm.py")
    assert manager_of({"Spec": {"Labels": None}}) is None


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("busybox", ("busybox", "latest")),
        ("busybox:1", ("busybox", "1")),
        ("host:5000/a/b", ("host:5000/a/b", "latest")),
        ("host:5000/a/b:2", ("host:5000/a/b", "2")),
        ("a@sha256:00", ("a@sha256:00", "")),
    ],
)
def test_names_of_images(image: str, parts: tuple[str, str]) -> None:
    assert _split_tag(image) == parts
