"""Requests that web pages of strangers have browsers send."""

from __future__ import annotations

from pathlib import Path

import pytest
from action_harness import harness

from pman.errors import Forbidden
from pman.pageguard import MAX_GOOD_HOSTS, PageGuard


def guard_of(*origins: str, is_loopback: bool = True) -> PageGuard:
    return PageGuard(
        origins, lambda: is_loopback, lambda: "Node1.example.net", lambda: "node1.full.example.net"
    )


GOOD = [
    "",
    "127.0.0.1",
    "127.0.0.1:5010",
    "127.1:5010",
    "10.1.2.3:80",
    "[::1]:5010",
    "[::ffff:127.0.0.1]",
    "::1",
    "localhost",
    "LOCALHOST:5010",
    "localhost.:5010",
    "pman.localhost:5010",
    "pman",
    "pman:5010",
    "node1.example.net:5010",
    "portal.example.org",
    "PORTAL.example.org:5010",
]

BAD = [
    "evil.example",
    "evil.example:5010",
    "evil.example.",
    "127.0.0.1.evil.example",
    "localhost.evil.example:5010",
    "notlocalhost.example",
    "[evil.example]:5010",
    "portal.example.org.evil.example",
    "1.2.3.4.nip.io",
]


@pytest.mark.parametrize("host", GOOD)
def test_what_no_stranger_can_choose_is_good(host: str) -> None:
    guard = guard_of("https://portal.example.org")
    guard.check_host(host)
    assert host in guard.good_hosts


@pytest.mark.parametrize("host", BAD)
def test_names_of_the_dns_are_not(host: str) -> None:
    guard = guard_of("https://portal.example.org")
    with pytest.raises(Forbidden, match="--corsOrigin") as caught:
        guard.check_host(host)
    assert caught.value.field == "Host"
    assert repr(host) in caught.value.message
    assert not guard.good_hosts


def test_the_full_name_of_the_machine_is_good_once_it_is_known() -> None:
    guard = guard_of()
    with pytest.raises(Forbidden):
        guard.check_host("node1.full.example.net:5010")
    guard.learn_own_name()
    guard.check_host("node1.full.example.net:5010")


def test_who_listens_for_others_is_called_by_any_name() -> None:
    guard_of(is_loopback=False).check_host("pman.example.org")


def test_made_up_hosts_are_not_kept_for_ever() -> None:
    guard = guard_of()
    for number in range(10 * MAX_GOOD_HOSTS):
        guard.check_host(f"host{number}")
    assert len(guard.good_hosts) <= MAX_GOOD_HOSTS


# --- in the dispatcher --------------------------------------------------------------------------

REBOUND = [("Host", "evil.example:5010")]
CROSS_SITE = [("Host", "127.0.0.1:5010"), ("Sec-Fetch-Site", "cross-site")]


@pytest.mark.parametrize(
    ("headers", "field"), [(REBOUND, "Host"), (CROSS_SITE, "Sec-Fetch-Site")], ids=["host", "site"]
)
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/v1/"),
        ("GET", "/api/v2/jobs"),
        ("GET", "/metrics"),
        ("POST", "/api/v1/cmd"),
        ("PUT", "/api/v1/cmd"),
    ],
)
def test_nothing_is_told_to_pages_of_strangers(
    tmp_path: Path, headers: list[tuple[str, str]], field: str, method: str, target: str
) -> None:
    with harness(tmp_path) as pman:
        pman.run("true", "secret-job")
        reply = pman.send(method, target, body=b"{}" if method != "GET" else b"", headers=headers)
    assert reply.code == 403
    error = reply.json.get("error", reply.json)
    assert error["field"] == field
    assert "secret-job" not in str(reply.json)


def test_a_quick_request_is_checked_as_well(tmp_path: Path) -> None:
    from pman.http.message import Request

    body = b'{"payload": {"action": "hello", "meta": {"askAbout": "timestamp"}}}'
    with harness(tmp_path) as pman:
        for headers, code in ((REBOUND, 403), ([("host", "localhost:5010")], 200)):
            request = Request("POST", "/", body=body, headers=headers)
            reply = pman.dispatcher.handle_quick(request)
            assert reply is not None
            assert reply.status == code


def test_health_is_told_to_all_and_no_more(tmp_path: Path) -> None:
    with harness(tmp_path) as pman:
        assert pman.send("GET", "/healthz", headers=REBOUND).code == 200
        ready = pman.send("GET", "/readyz", headers=REBOUND).json
        assert set(ready) < set(pman.send("GET", "/readyz").json)


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_other_sites_of_a_browser_pass(tmp_path: Path, site: str) -> None:
    with harness(tmp_path) as pman:
        headers = [("Host", "localhost:5010"), ("Sec-Fetch-Site", site)]
        assert pman.send("GET", "/", headers=headers).code == 200


def test_a_page_of_a_known_origin_may_ask(tmp_path: Path) -> None:
    origin = "https://portal.example.org"
    with harness(tmp_path, cors_origins=(origin,)) as pman:
        headers = [*CROSS_SITE, ("Origin", origin)]
        assert pman.send("GET", "/", headers=headers).code == 200
        assert pman.send("GET", "/", headers=CROSS_SITE).code == 403
        assert pman.send("GET", "/", headers=[("Host", "portal.example.org")]).code == 200
