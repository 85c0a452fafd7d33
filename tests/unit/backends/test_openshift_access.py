"""`access`: what is asked, what of it is missing, and what the log says of it."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import msgspec
import pytest

from pman.backends._openshift import project
from pman.backends._openshift.access import Said, check_access
from pman.errors import BackendUnavailable
from pman.settings import Settings

T = TypeVar("T")

SETTINGS = Settings()


class Server:
    """What `check_access` needs of an `Api`.

    Attributes:
        refused: `verb resource` of what is not allowed.
    """

    namespace = "myproject"
    url = "https://cluster.example"

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)

    def request(self, method: str, path: str) -> bytes:
        if path.startswith("/api/v1/namespaces/"):
            return b"{}"
        raise AssertionError(f"{method} {path}")

    def post(self, _path: str, body: Any, kind: type[T]) -> T:
        asked = body["spec"]["resourceAttributes"]
        assert asked["namespace"] == self.namespace
        words = f"{asked['verb']} {asked['resource']}"
        words += f"/{asked['subresource']}" if asked["subresource"] else ""
        return msgspec.convert({"status": {"allowed": words not in self.refused}}, kind)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def on_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "is_served", lambda _api: False)


@pytest.fixture
def on_openshift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "is_served", lambda _api: True)
    monkeypatch.setattr(project, "check_project", lambda _api: None)
    monkeypatch.setattr(project, "route_url", lambda _api: "https://pman.example")


def check(server: Server, said: Said | None = None, settings: Settings = SETTINGS) -> str | None:
    return check_access(server, settings, said or Said())  # type: ignore[arg-type]


@pytest.mark.usefixtures("on_kubernetes")
def test_table_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    said = Said()
    assert check(Server(), said) is None
    assert check(Server(), said) is None
    (line,) = caplog.messages
    assert line.startswith("rights in Kubernetes namespace myproject at https://cluster.example:\n")
    assert "jobs.batch" in line
    assert "NO" not in line
    assert "openshift" not in line


@pytest.mark.usefixtures("on_kubernetes")
def test_table_is_logged_again_when_a_right_has_come_or_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = Said()
    for server in (Server(), Server("list events"), Server("list events"), Server()):
        check(server, said)
    tables = [line for line in caplog.messages if line.startswith("rights in")]
    assert ["list=NO" in table for table in tables] == [False, True, False]
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "--verb=list --resource=events -n myproject" in warning.getMessage()


@pytest.mark.usefixtures("on_kubernetes")
def test_missing_right_that_no_job_can_do_without(caplog: pytest.LogCaptureFixture) -> None:
    said = Said()
    for _ in "12":
        with pytest.raises(BackendUnavailable, match=r"get on pods/log .*kubectl create role"):
            check(Server("get pods/log"), said)
    assert len(caplog.messages) == 1  # who catches the error says it


@pytest.mark.usefixtures("on_kubernetes")
def test_claims_are_asked_for_where_jobs_have_some() -> None:
    check(Server("create persistentvolumeclaims"))
    with pytest.raises(BackendUnavailable, match="persistentvolumeclaims"):
        check(Server("create persistentvolumeclaims"), settings=Settings(storage_type="claim"))


@pytest.mark.usefixtures("on_openshift")
def test_rights_on_kinds_of_openshift_are_in_the_table(caplog: pytest.LogCaptureFixture) -> None:
    assert check(Server("list routes")) == "https://pman.example"
    table, warning = caplog.messages
    assert "  projects.project.openshift.io   get=yes" in table
    assert "  routes.route.openshift.io       list=NO" in table
    assert "oc create role pman-0 --verb=list --resource=routes.route.openshift.io" in warning
